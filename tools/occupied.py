"""What occupies a device, as people ask for it: by owner and by layer at the peak, and instruction by instruction.

In: a step's footprint, which the lowered program has to the byte. Out: rows and a course, as plain data; the table and
the JSON of `partita show --memory`. The picture of it is `timeline.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..compiler.cost.memory import Memory, Owner, kept_for_backward
from ..compiler.ir.graph import Graph
from .numbers import bytes_text

if TYPE_CHECKING:
    from ..compiler.lower.footprint import Footprint

ROWS = 24  # of the table; smaller ones are one row
_PLACE = re.compile(r"^\S+:\d+ ")  # `gpt2.partita:12 blocks.0.h`: the line of the spec before the value's name


@dataclass(frozen=True, slots=True)
class Row:
    """What a layer, or a part of the model outside of all, holds at the peak."""

    name: str
    owners: Mapping[Owner, int]

    @property
    def bytes(self) -> int:
        """Of all owners."""
        return sum(self.owners.values())


def layer_of(path: str) -> str:
    """The layer of a chain (`blocks.0`) that a value, parameter or state belongs to, else its first part."""
    name = _PLACE.sub("", path).rpartition("/")[2]
    parts = name.split(".")
    depth = next((i + 1 for i, part in enumerate(parts) if part.isdecimal() and i), 1)
    return ".".join(parts[:depth])


def rows_of(memory: Memory) -> tuple[Row, ...]:
    """A row a layer, the largest first."""
    found: dict[str, dict[Owner, int]] = {}
    for share in memory.shares:
        owners = found.setdefault(layer_of(share.path), {})
        owners[share.owner] = owners.get(share.owner, 0) + share.bytes
    rows = [Row(name, owners) for name, owners in found.items()]
    return tuple(sorted(rows, key=lambda row: (-row.bytes, row.name)))


def who_owns(memory: Memory) -> str:
    """The owners of a peak in a line, the largest first: `activations 61%, parameters 13%`."""
    sizes = sorted(((memory.of(owner), owner) for owner in Owner), key=lambda pair: (-pair[0], pair[1].value))
    return ", ".join(f"{owner.value} {100 * size / memory.peak_bytes:.0f}%" for size, owner in sizes if size)


def kept_by_layer(step: Graph) -> dict[str, int]:
    """Bytes of activations that each layer of a chain keeps for the backward, one microbatch, as the graph has it."""
    found: dict[str, int] = {}
    for path, size in kept_for_backward(step).items():
        name = layer_of(path)
        if name.rpartition(".")[2].isdecimal():
            found[name] = found.get(name, 0) + size
    return found


def to_json(name: str, found: Footprint, kept: Mapping[str, int]) -> dict[str, Any]:
    """All of it, exactly."""
    memory = found.memory
    return {
        "name": name,
        "peak_bytes": memory.peak_bytes,
        "host_bytes": found.host_bytes,
        "at": memory.at,
        "owners": {owner.value: memory.of(owner) for owner in Owner},
        "layers": [{"layer": row.name, **{o.value: n for o, n in row.owners.items()}} for row in rows_of(memory)],
        "kept_for_backward": dict(kept),
        "shares": [{"owner": s.owner.value, "path": s.path, "bytes": s.bytes} for s in memory.shares],
        "course": [
            {"phase": level.phase, "what": level.what, "layer": level.layer, "peak_bytes": level.peak_bytes}
            for level in found.levels
        ],
    }


def print_occupied(name: str, found: Footprint, kept: Mapping[str, int], console: Console) -> None:
    """The peak in two lines, then who holds what of it."""
    memory = found.memory
    console.print(f"[bold]{name}[/bold]  {bytes_text(memory.peak_bytes)} at the peak of a step: {who_owns(memory)}")
    if memory.at:
        console.print(f"  at {memory.at}", markup=False)
    if found.host_bytes:
        console.print(f"  on the host: {bytes_text(found.host_bytes)}")
    rows = rows_of(memory)
    columns = [owner for owner in Owner if memory.of(owner)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("layer", no_wrap=True)
    for title in (*(owner.value for owner in columns), "total"):
        table.add_column(title, justify="right")
    for row in _shown(rows):
        table.add_row(row.name, *_cells(row, columns))
    table.add_section()
    table.add_row("all", *_cells(Row("", {owner: memory.of(owner) for owner in columns}), columns), style="bold")
    console.print(table)
    chains: dict[str, set[int]] = {}
    for layer, size in kept.items():
        chains.setdefault(layer.rpartition(".")[0], set()).add(size)
    for chain, sizes in chains.items():
        words = " to ".join(bytes_text(size) for size in sorted({min(sizes), max(sizes)}))
        console.print(f"a layer of {chain} keeps {words} of activations for the backward, a microbatch")


def _shown(rows: Sequence[Row]) -> Sequence[Row]:
    """The largest rows, in the order of their names' numbers, and what is left as one."""
    rest = rows[ROWS:]
    if not rest:
        return rows
    owners = {owner: sum(row.owners.get(owner, 0) for row in rest) for owner in Owner}
    return [*rows[:ROWS], Row(f"{len(rest)} others", owners)]


def _cells(row: Row, columns: Sequence[Owner]) -> list[str]:
    sizes = [row.owners.get(owner, 0) for owner in columns]
    return [bytes_text(size) if size else "" for size in (*sizes, row.bytes)]
