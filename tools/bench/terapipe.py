"""Token slices against published figures: TeraPipe (Li et al. 2021, arXiv 2102.07988), GPT-3 on p3.16xlarge machines.

In: nothing. Out: seconds a step, published and simulated, without token slices, with the published ones, and with those
that our own dynamic program finds. Three figures of the machine (FLOP rate, memory bandwidth, launch of a kernel) are
fitted on the equal slices of setting 9 alone; links are the data sheet's, what a layer computes and sends is read off
its graph. As in the paper (section 3.3), a message is part of its sender's time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import numpy as np
from scipy.optimize import least_squares

from ...compiler import pipeline
from ...compiler.base.span import Source
from ...compiler.cost.cluster import Cluster, Level, Link, collective_s
from ...compiler.cost.flops import work_of
from ...compiler.cost.roofline import FREE, VIEWS, Machine
from ...compiler.devices import partitioned
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.ir.graph import Graph
from ...compiler.ir.layout import Mesh
from ...compiler.ir.types import DType, Node
from ...compiler.ops.collectives import COLLECTIVES
from ...compiler.ops.costs import read_bytes
from ...compiler.partition.choices import Wishes
from ...compiler.passes.localize import localize
from ...compiler.schedule.actions import Shape, one_chunk_each
from ...compiler.schedule.orders import gpipe
from ...compiler.schedule.simulate import Price, simulate
from ...compiler.schedule.sliced import HALVES, SlicedBlocks
from ...compiler.schedule.slices import cut
from ...compiler.schedule.transfers import complete
from ..specs import open_spec

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

TOKENS = 2048
STEP = 4  # tokens: our own slices are multiples
NEAR = 1e-4  # of a step's time: how close our own slices come to the best
DEVICES = 8  # of a machine
INSIDE, BETWEEN = Link(150e9, 3e-6), Link(25e9 / 8, 20e-6)  # NVLink 2 of a device; 25 Gbit/s between machines


@dataclass(frozen=True, slots=True)
class Setting:
    """Seconds of a step on one data-parallel rank, without token slices and with these (tables 1, 2 and 3).

    Of setting 10 only the number of slices is known to us (the authors' flop_model.py), and that they are equal.
    """

    number: int
    model: str
    layers: int
    hidden: int
    batch: int
    stages: int
    devices: int  # that share a layer
    without_s: float
    with_s: float
    lengths: tuple[int, ...]


SETTINGS = (
    Setting(5, "GPT3-13B", 40, 5120, 32, 40, 8, 1.863, 1.328, (704, 688, 656)),
    Setting(8, "GPT3-44B", 96, 6144, 8, 48, 8, 2.662, 1.111, (384, 384, 368, 320, 296, 296)),
    Setting(9, "GPT3-175B", 96, 12288, 2, 96, 4, 9.99, 1.481, (120,) * 4 + (112,) * 6 + (104,) * 8 + (64,)),
    Setting(10, "GPT3-175B", 96, 12288, 2, 48, 8, 5.822, 1.16, (128,) * 16),
)
# Figure 6: seconds by the number of equal slices.
EQUAL: Mapping[int, Mapping[int, float]] = MappingProxyType(
    {
        9: {1: 9.99, 4: 2.902, 8: 1.892, 16: 1.547, 32: 1.593, 64: 2.227, 128: 3.252},
        8: {1: 2.662, 4: 1.241, 8: 1.255, 16: 1.241},
    }
)
FITTED = 9


@dataclass(frozen=True, slots=True)
class Rates:
    """What is fitted: of one device, FLOPs a second in f16, bytes a second, seconds of a launch."""

    flops_per_s: float
    bandwidth_bytes_per_s: float
    launch_s: float


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


# ---- what a layer takes


def device_graph(setting: Setting) -> Graph:
    """One device's part of the step of two layers, the rows cut into two slices."""
    text = _SPEC.format(D=setting.hidden, H=setting.hidden // 128, F=4 * setting.hidden, T=TOKENS)
    here = resources.files("partita.specs").joinpath("models").joinpath("terapipe.partita")
    spec = open_spec(Source(str(Path(str(here))), text))
    step = pipeline.unfused_step(spec, load_recipe(spec, "layers"), "cuda")
    mesh = Mesh((("tensor", setting.devices),))
    heads: dict[str, tuple[str, ...]] = dict.fromkeys("HGF", ("tensor",))
    wishes = Wishes({**heads, **dict.fromkeys(("T", "D", "V"), ())}, 0)
    cluster = Cluster(_machine(Rates(125e12, 900e9, 4e-6)), 16 << 30, (Level(DEVICES, INSIDE), Level(64, BETWEEN)))
    return localize(partitioned([step], mesh, wishes, cluster).graph, mesh, (0,))


_SPEC = """use gpt2
train layers {{
  model        = GPT2(drop = 0)
  dims         = [T = {T}, L = 2, D = {D}, H = {H}, F = {F}, V = 1024, N = {T}]
  data {{ read = text("none.txt"), rows = chunk(T), target = next(tokens) }}
  loss         = mean(cross_entropy[V](logits, target))
  batch        = 2
  microbatches = 2
  steps        = 1
  precision    = mixed(compute = f16, scale = none)
  optimizer    = adamw()
  lr           = 0.1
  plan {{ mesh = [pipe = 1], schedule = token_slices(2) }}
}}
"""


def _machine(rates: Rates) -> Machine:
    peaks = MappingProxyType({DType.F32: 15.7e12, DType.F16: rates.flops_per_s})
    return Machine(peaks, 15.7e12, rates.bandwidth_bytes_per_s, rates.launch_s)


@dataclass
class LayerCosts:
    """What one layer takes for a slice of l tokens behind c: FLOPs and bytes of each kernel, exactly.

    Both are polynomials 1, l, c, l c, l², c² in the sizes, read off at six of them.
    """

    setting: Setting

    @cached_property
    def blocks(self) -> SlicedBlocks:
        """The graph's blocks; no time is asked of them."""
        return SlicedBlocks(device_graph(self.setting), lambda node: 0.0, BETWEEN)

    @cached_property
    def kernels(self) -> Mapping[str, Sequence[_Kernel]]:
        """The kernels of the second layer, by half."""
        at = list(self.blocks.names).index("blocks.1")
        sizes = [(1, length, context) for length, context in _SAMPLES]
        found: dict[str, list[_Kernel]] = {}
        for half in HALVES:
            nodes = zip(*(self.blocks.nodes(at, half, size) for size in sizes), strict=True)
            found[half] = [_kernel(many, self.setting.devices) for many in nodes if many[0][0].op not in FREE | VIEWS]
        return MappingProxyType(found)

    def crossing_bytes(self, length: int) -> int:
        """What a slice of a stage's output has."""
        at = list(self.blocks.names).index("blocks.1")
        return round(self.blocks.price(at, 1, length, 0).transfer * BETWEEN.bandwidth_bytes_per_s)

    def seconds(self, half: str, lengths: Array, contexts: Array, rates: Rates) -> Array:
        """Of one layer, for each of many slices."""
        powers = _powers(lengths, contexts)
        total = np.zeros(len(lengths))
        for kernel in self.kernels[half]:
            rate = rates.flops_per_s if kernel.contraction else 15.7e12
            bound = np.maximum(powers @ kernel.flops / rate, powers @ kernel.moved / rates.bandwidth_bytes_per_s)
            sent = powers @ kernel.sent * kernel.wire_s_per_byte + kernel.wire_s
            total += kernel.count * (np.where(kernel.wire_s > 0, sent, bound) + rates.launch_s)
        return total


_SAMPLES = ((64, 0), (128, 0), (64, 64), (192, 128), (64, 256), (256, 64), (320, 448))


def _powers(lengths: Array, contexts: Array) -> Array:
    own, before = lengths / TOKENS, contexts / TOKENS
    return np.stack([np.ones_like(own), own, before, own * before, own * own, before * before], axis=-1)


@dataclass(frozen=True)
class _Kernel:
    """Coefficients of its FLOPs, bytes moved and bytes sent; a collective's wire time has a slope and a base."""

    count: int
    contraction: bool
    flops: Array
    moved: Array
    sent: Array
    wire_s_per_byte: float
    wire_s: float


def _kernel(many: Sequence[tuple[Node, int]], devices: int) -> _Kernel:
    node, count = many[0]
    works = [work_of(one) for one, _ in many]
    sent, spans = node.op in COLLECTIVES, (Level(devices, INSIDE),)
    base = collective_s(node.op, 0, spans) if sent else 0.0
    slope = collective_s(node.op, 1e9, spans) - base if sent else 0.0
    return _Kernel(
        count, works[0].model_flops > 0,
        _coefficients([work.flops for work in works]), _coefficients([work.bytes_moved for work in works]),
        _coefficients([read_bytes(one) for one, _ in many]), slope / 1e9, base,
    )  # fmt: skip


def _coefficients(values: Sequence[float]) -> Array:
    """The polynomial through the first samples; the last one proves it."""
    lengths, contexts = (np.array(column, dtype=float) for column in zip(*_SAMPLES, strict=True))
    powers, wanted = _powers(lengths, contexts), np.array(values, dtype=float)
    found = np.linalg.solve(powers[:-1], wanted[:-1]).astype(np.float64)
    assert np.allclose(powers @ found, wanted, rtol=1e-9), "a kernel's cost is a polynomial of the slice's sizes"
    return found


# ---- a pipeline of such layers


Slice = tuple[int, int]  # (length, context)


@dataclass
class Pipe:
    """A setting on a machine."""

    layer: LayerCosts
    rates: Rates
    known: dict[tuple[int, int], tuple[float, float]] = field(
        default_factory=dict[tuple[int, int], tuple[float, float]]
    )

    def prepare(self, slices: Sequence[Slice]) -> None:
        """Reckons many (length, context) at once."""
        left = [one for one in dict.fromkeys(slices) if one not in self.known]
        if not left:
            return
        lengths, contexts = (np.array(column, dtype=float) for column in zip(*left, strict=True))
        setting = self.layer.setting
        parts = [self.layer.seconds(half, lengths, contexts, self.rates) for half in HALVES]
        each = setting.layers // setting.stages
        forward, backward = each * parts[0], each * (parts[1] + parts[2])
        self.known |= dict(zip(left, zip(forward.tolist(), backward.tolist(), strict=True), strict=True))

    def hop_s(self, chunk: int, length: int) -> float:
        """The message of a slice from chunk to chunk + 1: inside of a machine where both stand there."""
        setting = self.layer.setting
        inside = (chunk + 1) * setting.devices % DEVICES != 0
        link = INSIDE if inside else BETWEEN
        return self.layer.crossing_bytes(length) / link.bandwidth_bytes_per_s + link.latency_s

    def mean_hop_s(self, length: int) -> float:
        """Over all borders."""
        hops = [self.hop_s(chunk, length) for chunk in range(DEVICES)]
        return sum(hops) / len(hops)

    def slice_s(self, rows: int, length: int, context: int) -> float:
        """Forward and backward with both messages, as the dynamic program asks."""
        assert rows == 1, "a microbatch is a row"
        forward, backward = self.known[length, context]
        return forward + backward + 2 * self.hop_s(DEVICES - 1, length)

    def best(self) -> tuple[int, ...]:
        """Our own slices of a row."""
        units = TOKENS // STEP
        self.prepare([(k * STEP, c * STEP) for c in range(units) for k in range(1, units - c + 1)])
        setting = self.layer.setting
        near = NEAR * setting.with_s / setting.stages
        found = cut(setting.batch, TOKENS, setting.stages, self.slice_s, STEP, near, row_counts=[1])
        return found.microbatches[0].lengths

    def step_s(self, lengths: Sequence[int]) -> float:
        """A step, simulated: every row is a microbatch, cut alike."""
        setting, begins = self.layer.setting, _begins(lengths)
        self.prepare(list(zip(lengths, begins, strict=True)))
        shape = Shape(one_chunk_each(setting.stages), (len(lengths),) * setting.batch)
        table = [
            [self._price(chunk, *one) for one in zip(lengths, begins, strict=True)] for chunk in range(shape.last + 1)
        ]
        found = simulate(complete("gpipe", shape, gpipe(shape)), lambda chunk, microbatch, part: table[chunk][part])
        return float(found.makespan)

    def _price(self, chunk: int, length: int, context: int) -> Price:
        forward, backward = self.known[length, context]
        after = self.hop_s(chunk, length) if chunk + 1 < self.layer.setting.stages else 0.0
        before = self.hop_s(chunk - 1, length) if chunk else 0.0
        return Price(forward + after, backward + before, 0.0)

    def formula_s(self, lengths: Sequence[int]) -> float:
        """Σ t_i + (K - 1) max t_i, the slowest border in the sum and the mean one on the way through."""
        setting, begins = self.layer.setting, _begins(lengths)
        self.prepare(list(zip(lengths, begins, strict=True)))
        slow = [self.slice_s(1, *one) for one in zip(lengths, begins, strict=True)]
        faster = 2 * (self.mean_hop_s(lengths[0]) - self.hop_s(DEVICES - 1, lengths[0]))
        return setting.batch * sum(slow) + (setting.stages - 1) * (max(slow) + faster)


def _begins(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:at]) for at in range(len(lengths))]


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


# ---- in words


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
