"""How long a step takes and what bounds it, by operator and by layer: the report of `partita show --time`.

In: a step, and either a device's figures (its roofline, from the graph alone) or this machine's table (call by call,
from the lowered program). Out: pieces, sums over them, and their tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..compiler.cost.flops import ONCE_A_STEP
from ..compiler.cost.roofline import Machine, node_time
from ..compiler.ir.graph import Graph
from .numbers import compact, seconds_text
from .occupied import layer_of

if TYPE_CHECKING:
    from ..compiler.lower.timing import StepTime

ROWS = 16  # of each table; shorter ones are one row
BOUNDS = ("arithmetic", "bandwidth", "launch")


@dataclass(frozen=True, slots=True)
class Piece:
    """All runs of one operator at one place. `bound`: what limits it."""

    operator: str
    layer: str
    calls: int
    seconds: float
    bound: str


@dataclass(frozen=True, slots=True)
class Duration:
    """A step's pieces, beside its model FLOPs, its tokens and the matrix peak that MFU is reckoned by."""

    name: str
    pieces: tuple[Piece, ...]
    model_flops: int
    tokens: int
    peak_flops_per_s: float

    @property
    def seconds(self) -> float:
        """Of the whole step."""
        return sum(piece.seconds for piece in self.pieces)

    @property
    def mfu(self) -> float:
        """Model FLOPs utilization that is expected."""
        return self.model_flops / self.seconds / self.peak_flops_per_s if self.seconds else 0.0


def pieces_of_graph(step: Graph, machine: Machine) -> tuple[Piece, ...]:
    """By the roofline: a lower bound, which a device's kernels may come near."""
    found: list[Piece] = []
    for node in step:
        time = node_time(node, machine)
        if time.seconds:
            times = 1 if node.phase in ONCE_A_STEP else step.microbatches
            shares = (time.arithmetic_s, time.traffic_s, time.launch_s)
            bound = BOUNDS[max(range(3), key=lambda i: shares[i])]
            found.append(Piece(node.op, layer_of(node.id), times, time.seconds * times, bound))
    return tuple(found)


def pieces_of_time(found: StepTime) -> tuple[Piece, ...]:
    """By this machine's table."""
    return tuple(Piece(p.kernel, layer_of(p.place), p.calls, p.seconds, p.bound) for p in found.parts)


def to_json(found: Duration) -> dict[str, Any]:
    """All sums, exactly."""
    return {
        "name": found.name,
        "seconds": found.seconds,
        "mfu": found.mfu,
        "tokens_per_second": found.tokens / found.seconds if found.seconds else 0.0,
        "bounds": {bound: _sum(found, lambda piece: piece.bound).get(bound, 0.0) for bound in BOUNDS},
        "operators": [_row(name, pieces) for name, pieces in _grouped(found.pieces, lambda p: p.operator)],
        "layers": [_row(name, pieces) for name, pieces in _grouped(found.pieces, lambda p: p.layer)],
    }


def _row(name: str, pieces: list[Piece]) -> dict[str, Any]:
    return {"name": name, "calls": sum(p.calls for p in pieces), "seconds": sum(p.seconds for p in pieces)} | {
        bound: sum(p.seconds for p in pieces if p.bound == bound) for bound in BOUNDS
    }


def _sum(found: Duration, key: Callable[[Piece], str]) -> dict[str, float]:
    sums: Counter[str] = Counter()
    for piece in found.pieces:
        sums[key(piece)] += piece.seconds  # pyright: ignore[reportArgumentType]
    return dict(sums)


def _grouped(pieces: Iterable[Piece], key: Callable[[Piece], str]) -> list[tuple[str, list[Piece]]]:
    """The longest first."""
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        groups.setdefault(key(piece), []).append(piece)
    return sorted(groups.items(), key=lambda item: (-sum(p.seconds for p in item[1]), item[0]))


def print_duration(found: Duration, source: str, console: Console) -> None:
    """The step in two lines, then its operators and its layers."""
    rate = compact(found.tokens / found.seconds) if found.seconds else "?"
    console.print(
        f"[bold]{found.name}[/bold]  {seconds_text(found.seconds)} a step, {rate} tokens/s, "
        f"MFU {f'{100 * found.mfu:.1f}%' if found.model_flops else 'unknown'}  ({source})",
        soft_wrap=True,
    )
    for title, key in (("operator", _operator), ("layer", _layer)):
        console.print(_table(title, _grouped(found.pieces, key), found.seconds))


def _operator(piece: Piece) -> str:
    return piece.operator


def _layer(piece: Piece) -> str:
    return piece.layer


def _table(title: str, groups: list[tuple[str, list[Piece]]], whole: float) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, no_wrap=True)
    for name in ("calls", "time", "share", *(f"by {bound}" for bound in BOUNDS)):
        table.add_column(name, justify="right", no_wrap=True)
    rest = [piece for _, pieces in groups[ROWS:] for piece in pieces]
    shown = [*groups[:ROWS], *([(f"{len(groups) - ROWS} others", rest)] if rest else [])]
    for name, pieces in shown:
        seconds = sum(piece.seconds for piece in pieces)
        bound = [sum(p.seconds for p in pieces if p.bound == kind) for kind in BOUNDS]
        shares = [f"{100 * part / seconds:.0f}%" if part else "" for part in bound]
        calls = sum(piece.calls for piece in pieces)
        table.add_row(name, str(calls), seconds_text(seconds), f"{100 * seconds / whole:.1f}%", *shares)
    return table
