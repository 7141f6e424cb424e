"""Token slices against published figures: TeraPipe (Li et al. 2021, arXiv 2102.07988), GPT-3 on p3.16xlarge machines.

In: nothing. Out: seconds a step, published and simulated, without token slices, with the published ones, and with those
that our own dynamic program finds. Three figures of the machine (FLOP rate, memory bandwidth, launch of a kernel) are
fitted on the equal slices of setting 9 alone; links are the data sheet's (`terapipe_published.py`), what a layer
computes and sends is read off its graph (`terapipe_layer.py`), a step is simulated (`terapipe_pipe.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from .terapipe_layer import Array, LayerCosts, Rates
from .terapipe_pipe import Pipe
from .terapipe_published import EQUAL, SETTINGS, TOKENS, Setting

FITTED = 9


@dataclass(frozen=True, slots=True)
class Row:
    """A published figure and ours."""

    setting: Setting
    what: str
    published_s: float
    simulated_s: float
    lengths: tuple[int, ...]

    @property
    def error(self) -> float:
        """Relative, of ours."""
        return self.simulated_s / self.published_s - 1


@dataclass(frozen=True, slots=True)
class Found:
    """rates: fitted. rows: the settings, without slices, with the published ones and with ours (`best`). equal: by the
    number of equal slices, by setting."""

    rates: Rates
    rows: tuple[Row, ...]
    equal: tuple[Row, ...]

    @property
    def worst(self) -> float:
        """Of the settings that nothing was fitted on, and of setting 9's unequal slices."""
        return max(abs(row.error) for row in self.rows if self._is_new(row))

    def _is_new(self, row: Row) -> bool:
        """Whether it foretells what nothing was fitted on and somebody has measured."""
        return row.what == "with" or (row.what == "without" and row.setting.number != FITTED)


def bench_terapipe() -> Found:
    """Fits the machine and simulates every setting."""
    costs = {one.number: LayerCosts(one) for one in SETTINGS}
    rates = fitted(costs[FITTED])
    rows: list[Row] = []
    equal: list[Row] = []
    for number, layer in costs.items():
        pipe = Pipe(layer, rates)
        one = layer.setting
        whole = (TOKENS,)
        rows.append(Row(one, "without", one.without_s, pipe.step_s(whole), whole))
        rows.append(Row(one, "with", one.with_s, pipe.step_s(one.lengths), one.lengths))
        best = pipe.best()
        rows.append(Row(one, "best", one.with_s, pipe.step_s(best), best))
        for count, seconds in EQUAL.get(number, {}).items():
            lengths = (TOKENS // count,) * count
            equal.append(Row(one, f"{count} equal", seconds, pipe.step_s(lengths), lengths))
    return Found(rates, tuple(rows), tuple(equal))


def fitted(layer: LayerCosts) -> Rates:
    """The machine that comes closest to the published seconds of equal slices, in relative terms."""
    published = EQUAL[layer.setting.number]

    def errors(logs: Array) -> list[float]:
        pipe = Pipe(layer, Rates(*np.exp(logs).tolist()))
        return [
            float(np.log(pipe.formula_s((TOKENS // count,) * count) / seconds)) for count, seconds in published.items()
        ]

    start = np.log([60e12, 500e9, 30e-6])
    return Rates(*np.exp(least_squares(errors, start, x_scale=0.1).x).tolist())


def table(found: Found) -> str:
    """Both tables, as text."""
    rates = found.rates
    lines = [
        f"fitted on the equal slices of setting {FITTED}: {rates.flops_per_s / 1e12:.1f} TFLOP/s, "
        f"{rates.bandwidth_bytes_per_s / 1e9:.0f} GB/s, {rates.launch_s * 1e6:.1f} us a kernel",
        "setting  model      slices     published  simulated  error   lengths",
    ]
    for row in (*found.rows, *found.equal):
        one = row.setting
        lines.append(
            f"{one.number:>7}  {one.model:<9}  {row.what:<9}  {row.published_s:>7.3f} s  {row.simulated_s:>7.3f} s  "
            f"{row.error:+6.1%}  {_lengths(row.lengths)}"
        )
    lines.append("(with: the published slices; best: ours)")
    for one in SETTINGS:
        mine = {row.what: row.simulated_s for row in found.rows if row.setting is one}
        ratio, theirs = mine["without"] / mine["with"], one.without_s / one.with_s
        lines.append(f"speed-up of setting {one.number}: published {theirs:.2f}, simulated {ratio:.2f}")
    return "\n".join([*lines, f"worst error of what nothing was fitted on: {found.worst:.1%}"])


def _lengths(lengths: Sequence[int]) -> str:
    """`4 x 120, 6 x 112`"""
    runs: list[tuple[int, int]] = []
    for length in lengths:
        if runs and runs[-1][1] == length:
            runs[-1] = (runs[-1][0] + 1, length)
        else:
            runs.append((1, length))
    return ", ".join(f"{count} x {length}" if count > 1 else str(length) for count, length in runs)


def as_json(found: Found) -> dict[str, object]:
    """Every figure."""
    return {
        "flops_per_s": found.rates.flops_per_s,
        "bandwidth_bytes_per_s": found.rates.bandwidth_bytes_per_s,
        "launch_s": found.rates.launch_s,
        "worst": found.worst,
        "rows": [
            {
                "setting": row.setting.number, "model": row.setting.model, "slices": row.what,
                "published_s": row.published_s, "simulated_s": row.simulated_s, "error": row.error,
                "lengths": list(row.lengths),
            }
            for row in (*found.rows, *found.equal)
        ],
    }  # fmt: skip
