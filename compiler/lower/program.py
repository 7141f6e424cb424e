"""From a graph to a program: segments in order, modules shared, buffers named and freed, instructions listed.

One walk over the segments: a segment that is a call runs a module of the library, one that is alone is an instruction
of its own. What is begun (collectives, messages, copies) is waited for by whoever reads it first. Which inputs a module
may write over, and what is freed when, `buffers.py` tells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import torch

from ...runtime.host import strides_of
from ...runtime.program import (
    Allocate,
    Check,
    Collective,
    CollectiveKind,
    Fetch,
    Instruction,
    Offload,
    Program,
    Receive,
    Reduction,
    Rows,
    Run,
    Send,
    Shard,
    Turn,
    Wait,
)
from ..ir.graph import Graph
from ..ir.levels import MOVES, RECEIVE, SEND
from ..ir.types import Node, Phase, Use
from ..schedule.actions import RECEIVES, Kind
from ..schedule.stages import Part, Stage, part_name
from .buffers import Buffers, written
from .checks import checked_first, states_written_early
from .cuts import groups_of, position_of
from .emit import TORCH_DTYPES, Key, shape, storage
from .fuse import listing
from .library import Library, results_of
from .listing import COPY, NO_PART, Listing
from .modules import Argument
from .outside import NO_WHOLES, Wholes, inputs_of
from .overlap import issue_early, overlapped
from .own import GATHER
from .segment import Segment, cut, literals


def lower_graph(
    graph: Graph,
    library: Library,
    dump: Sequence[str] = (),
    axes: Sequence[str] = (),
    wholes: Wholes = NO_WHOLES,
) -> Program:
    """The program of one device's graph, whose dims are all bound.

    `dump` names values (node ids) to add to the outputs; `axes` are those of the mesh that it is a device of, and
    `wholes` says of what its leaves are parts.
    """
    for name in dump:
        assert name in graph, f"no value is called {name}"
    return _Walk(checked_first(issue_early(listing(graph, dump, axes), axes)), library, axes, wholes).program()


def lower_stage(stage: Stage, library: Library, axes: Sequence[str], wholes: Wholes) -> Program:
    """The program of one stage of a pipeline. Every stage is given all that the data brings."""
    found = issue_early(listing(stage.graph, axes=axes, parts=stage.part, ranks=stage.ranks), axes)
    found = checked_first(found) if stage.whole.nodes("assign") else found
    walk = _Walk(found, library, axes, wholes, len(stage.parts))
    made, gloo = walk.program(), library.device == "cpu"
    names = tuple(map(part_name, stage.parts))
    rows = [item for item in inputs_of(listing(stage.whole), wholes) if item.source == "data"]
    return replace(
        made,
        inputs=(*rows, *(item for item in made.inputs if item.source != "data")),
        parts={name: overlapped([part], gloo)[0] for name, part in zip(names, walk.parts, strict=True)},
        order=early(stage.parts, tuple(Turn(names[part], number) for part, number in stage.order)),
    )


def early(parts: Sequence[Part], order: Sequence[Turn]) -> tuple[Turn, ...]:
    """Each receive as soon as the one before it of its way has been waited for: where that receive stood at first."""
    kinds = {part_name(part): part for part in parts}
    found: list[Turn] = []
    places: dict[tuple[Kind, int], int] = {}
    for turn in order:
        kind, chunk, _ = kinds[turn.part]
        if kind in RECEIVES:
            at = places.get((kind, chunk), 0)
            found.insert(at, turn)
            places = {other: place + (place >= at) for other, place in places.items()}
            places[kind, chunk] = len(found)
        else:
            found.append(turn)
    return tuple(found)


class _Walk:
    """One pass over the segments."""

    def __init__(self, found: Listing, library: Library, axes: Sequence[str], wholes: Wholes, parts: int = 0) -> None:
        self.listing = found
        self.library = library
        self.axes, self.wholes = axes, wholes
        self.readers = Counter(use.value for node in found.nodes for use in node.uses)
        self.segments = cut(found, axes)
        self.buffers = Buffers(found, self.segments)
        self.live = self.buffers.live
        self.flying: dict[Key, torch.Tensor] = {}  # what collectives under way will give, and what they read
        self.lists: dict[Phase, list[Instruction]] = {phase: [] for phase in Phase}
        self.parts: list[list[Instruction]] = [[] for _ in range(parts)]
        self.here = self.lists[Phase.PREPARE]  # where instructions go
        self.leaving: list[torch.Tensor] = []  # what is sent: nobody knows when it has left, so nobody writes over it
        self.awaited: set[Key] = set()  # messages and copies: whoever reads one first waits for it

    def program(self) -> Program:
        """The instructions and what they need from outside."""
        for key, kind in self.listing.accumulators.items():
            self.here.append(Allocate(self.buffers.name(key), tuple(shape(kind.dims)), kind.dtype.value))
        phase, part = Phase.PREPARE, NO_PART
        checked = not self.listing.checks
        for position, segment in enumerate(self.segments):
            if segment.phase is not phase:
                self._enter(phase, segment.phase)
                phase = segment.phase
            if segment.part != part:
                self._land([key for key in self.flying if key not in self.awaited])
                part = segment.part
            self.here = self.lists[phase] if part == NO_PART else self.parts[part]
            if phase is Phase.UPDATE and not checked and written(segment):
                self._check()
                checked = True
            self._land(key for key in segment.inputs if key in self.flying)
            if segment.alone is None:
                self._call(position, segment)
            else:
                self._instruct(position, segment, segment.alone)
            self.buffers.made(segment)
        self._land(list(self.flying))
        if not checked and self.parts:  # a stage without a parameter of its own
            self._check()
        forward, backward = self.lists[Phase.FORWARD], self.lists[Phase.BACKWARD]
        prepare, microbatch, update = overlapped(
            (self.lists[Phase.PREPARE], (*forward, *backward), self.lists[Phase.UPDATE]),
            gloo=self.library.device == "cpu",
            last=next((one for one in reversed(forward) if isinstance(one, Run)), None),
        )
        return Program(
            inputs=tuple(inputs_of(self.listing, self.wholes)),
            prepare=prepare,
            microbatch=microbatch,
            update=update,
            outputs={name: self.buffers.name(use.value) for name, use in self.listing.outputs.items()},
            microbatches=self.listing.microbatches,
        )

    def _enter(self, old: Phase, new: Phase) -> None:
        if self.listing.microbatches > 1 and (old is Phase.PREPARE or new is Phase.UPDATE):
            self._land(list(self.flying))  # once for all microbatches, or in each
        self.buffers.enter(old, new)

    def _call(self, position: int, segment: Segment) -> None:
        frees = [key for key in segment.inputs if self.buffers.ends(key, position)]
        staying = self._staying(frees, position)
        over = {storage(self.live[key]) for key in written(segment)}
        self._land([key for key, read in self.flying.items() if storage(read) in over])
        arguments = [
            Argument(self.live[k], k in frees and storage(self.live[k]) not in staying) for k in segment.inputs
        ]
        module = self.library.get(segment, arguments)
        self.here.append(
            Run(
                module=module.name,
                inputs=tuple(self.buffers.name(key) for key in segment.inputs),
                outputs=tuple(self.buffers.name(key) for key in segment.outputs),
                frees=tuple(self.buffers.name(key) for key in frees),
                literals=literals(segment),
                layer="" if segment.layer is None else f"{segment.layer.chain}.{segment.layer.index}",
                host=segment.host,
            )
        )
        results = results_of(module, arguments)
        for key in frees:
            del self.live[key]
        self.live.update(zip(segment.outputs, results, strict=True))
        for key in filter(lambda key: self.buffers.outlives(key, position), segment.outputs):
            self._copy(key, segment)

    def _copy(self, key: Key, segment: Segment) -> None:
        """A value that a segment has seen somewhere else, in memory of its own."""
        seen, old = self.buffers.nodes[key[0]].outs[key[1]], self.buffers.name(key)
        name = self.buffers.copied(key)
        use = Use(*key, seen.dims, seen.dtype)
        node = Node(name, COPY, (use,), (seen,), phase=segment.phase, host=segment.host)
        alone = Segment(segment.phase, None, [node], (key,), ((name, 0),), part=segment.part, host=segment.host)
        argument = Argument(self.live[key], owned=False)
        module = self.library.get(alone, [argument])
        self.here.append(Run(module.name, (old,), (name,), frees=(old,), host=segment.host))
        (self.live[key],) = results_of(module, [argument])

    def _staying(self, frees: Sequence[Key], position: int) -> set[int]:
        """The memories that nobody may write over while these buffers are freed."""
        under_way = {storage(tensor) for tensor in (*self.flying.values(), *self.leaving)}
        return self.buffers.staying(frees, position) | under_way

    def _instruct(self, position: int, segment: Segment, node: Node) -> None:
        """A node that is an instruction of its own. Collectives are begun here and waited for by `_land`."""
        if node.op == RECEIVE:
            self._receive(node)
            return
        if node.op == SEND:
            (key,) = segment.inputs
            self._send(node, key, self.buffers.ends(key, position))
            return
        if node.op == GATHER:
            self._gather_own(position, node)
            return
        if node.op in MOVES:
            self._move(node, self.buffers.ends(node.uses[0].value, position))
            return
        keys, use, out = [use.value for use in node.uses], node.uses[0], node.outs[0]
        frees = [key for key in dict.fromkeys(keys) if self.buffers.ends(key, position)]
        key = keys[0]
        tensor, sizes = self.live[key], tuple(shape(out.dims))
        same = node.op == "all_reduce" and dense(tensor)
        in_place = same and bool(frees) and storage(tensor) not in self._staying(frees, position)
        given, freed = tuple(map(self.buffers.name, keys)), tuple(map(self.buffers.name, frees))
        target, axis, dtype = self.buffers.name((node.id, 0)), str(node.attrs["axis"]), out.dtype.value
        at, size = position_of(node, "split" if node.op == "all_to_all" else "dim")
        view = bool(node.attrs.get("view"))
        if len(keys) > 1 and node.op != "all_to_all":
            groups = groups_of(node)
            made: Instruction = Rows(axis, given[0], given[1], target, sizes, dtype, groups, node.op == "spread", freed)
        elif node.op == "shard":
            made = Shard(axis, given[0], target, sizes, dtype, at, size, freed, view)
        else:
            join, join_size = position_of(node, "join")
            cuts = node.op != "all_reduce"
            reduction = cast(Reduction, node.attrs.get("reduction", "sum"))
            made = Collective(
                cast(CollectiveKind, node.op), axis, given, (target,), (sizes,), dtype,
                reduction, (at,) if cuts else (), (size,) if cuts else (), join, join_size, groups_of(node), freed,
                given if in_place else (),
            )  # fmt: skip
            self.flying[node.id, 0] = tensor
        if in_place:
            result = tensor
        elif view:  # where it begins differs among devices, and no module asks
            result = tensor.narrow(at, 0, sizes[at])
        elif same:
            result = torch.empty_strided(sizes, tensor.stride(), dtype=tensor.dtype, device="meta")
        else:
            result = torch.empty(sizes, dtype=tensor.dtype, device="meta")
        assert use.dtype is out.dtype, f"{node.id} changes the type of what it sends"
        self.here.append(made)
        for freed_key in frees:
            del self.live[freed_key]
        self.live[node.id, 0] = result

    def _move(self, node: Node, frees: bool) -> None:
        """Down to the host or up from it: begun here, waited for by whoever reads it first."""
        key, target = node.uses[0].value, (node.id, 0)
        tensor, given = self.live[key], self.buffers.name(key)
        made = Offload if node.op == "offload" else Fetch
        sizes, dtype = tuple(tensor.shape), node.outs[0].dtype.value
        self.here.append(made(given, self.buffers.name(target), sizes, dtype, (given,) if frees else ()))
        copy = torch.empty_strided(sizes, strides_of(tensor), dtype=tensor.dtype, device="meta")
        self.live[target], self.flying[target] = copy, tensor
        if self.listing.part(node) != NO_PART and (node.op == "fetch" or self.readers[target] == 1):
            self.awaited.add(target)  # in another part
        if frees:
            del self.live[key]

    def _gather_own(self, position: int, node: Node) -> None:
        """A parameter, of which every device has written its own part, is whole again."""
        own, whole = node.uses
        given, into = (self.buffers.name(own.value),), (self.buffers.name(whole.value),)
        at, size = position_of(node, "dim")
        frees = given if self.buffers.ends(own.value, position) else ()
        made = Collective(
            "all_gather", str(node.attrs["axis"]), given, (node.id,), (tuple(shape(whole.dims)),), whole.dtype.value,
            dims=(at,), sizes=(size,), frees=frees, into=into,
        )  # fmt: skip
        self.here.append(made)
        self.flying[node.id, 0] = self.live[own.value]
        if frees:
            del self.live[own.value]

    def _check(self) -> None:
        """From here on parameters and states are written."""
        checks = self.listing.checks
        self._land([key for key in checks if key in self.flying])
        self.here.append(Check(tuple(self.buffers.name(key) for key in checks), states_written_early(self.listing)))

    def _send(self, node: Node, key: Key, frees: bool) -> None:
        axis, to, tag, ahead = (node.attrs[name] for name in ("axis", "peer", "tag", "ahead"))
        name = self.buffers.name(key)
        freed = (name,) if frees else ()
        self.here.append(Send(str(axis), cast(int, to), name, cast(int, tag), freed, cast(int, ahead)))
        self.leaving.append(self.live[key])
        if frees:
            del self.live[key]

    def _receive(self, node: Node) -> None:
        """Begun here, waited for by whoever reads it first, maybe in another part."""
        axis, source, tag = (node.attrs[name] for name in ("axis", "peer", "tag"))
        key, sizes, kind = (node.id, 0), tuple(shape(node.outs[0].dims)), node.outs[0].dtype
        made = Receive(str(axis), cast(int, source), self.buffers.name(key), sizes, kind.value, cast(int, tag))
        self.here.append(made)
        self.live[key] = self.flying[key] = torch.empty(sizes, dtype=TORCH_DTYPES[kind], device="meta")
        self.awaited.add(key)

    def _land(self, keys: Iterable[Key]) -> None:
        """Wait for collectives and messages."""
        found = list(keys)
        if found:
            self.here.append(Wait(tuple(self.buffers.name(key) for key in found)))
        for key in found:
            del self.flying[key]
            self.awaited.discard(key)


def dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill a stretch of memory without gaps, in whatever order."""
    return bool(torch.ops.aten.is_non_overlapping_and_dense(tensor))
