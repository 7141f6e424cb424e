"""Communication beside computation: what is sent early, together, and waited for late.

In: a listing, or instructions in order. Out: the same work in another order. Within a layer collectives go as early as
what they send is there, those of a lone microbatch's gradients too; neighbours of a kind share a bucket; a gather of
something that was there before (a sharded parameter) begins one layer ahead of its reader. Waits stand as late as the
first use; only what is scattered is taken in when the next is sent, for until then the whole that it was made from is
kept, and where nothing is computed beside them no more than two gathers are on their way, for each has a pack.
The order depends on nothing that differs among the devices of a collective, so all of them begin theirs in one order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from ...runtime.program import (
    Allocate,
    Check,
    Collective,
    Fetch,
    Free,
    Instruction,
    Offload,
    Receive,
    Rows,
    Run,
    Send,
    Shard,
    Wait,
)
from ..cost.cluster import BUCKET_BYTES, GLOO_BUCKET_BYTES
from ..ir.layout import PIPE
from ..ir.levels import SEND
from ..ir.types import DType, Node, Phase
from .listing import PHASES, Key, Listing, of_stages
from .segment import stands_alone

REDUCING = frozenset({"all_reduce", "reduce_scatter"})
GATHERS_WITHOUT_WORK = 2  # on their way where nothing is computed beside them: one comes while another is unpacked


# ---- nodes


def issue_early(found: Listing, axes: Sequence[str]) -> Listing:
    """Within a layer, or what runs between layers: collectives as soon as what they send is there, their readers late.

    A node's level is the number of collectives that it must wait for, one after another. Computation that only later
    levels read goes to those, so that as few modules as may be are cut. What writes over a memory stands behind the
    readers of what was there.
    """
    if not any(_is_waited_for(node, axes) for node in found.nodes):
        return found
    found = _taken_in_late(_reduced_where_made(found, axes), axes)
    levels, writers = _levels(found.nodes, axes)
    users, asked = found.users(), found.asked()
    nodes: list[Node] = []
    for _, run in groupby(found.nodes, lambda node: (node.phase, node.layer, found.part(node))):
        here = list(run)
        order = {node.id: 2 * levels[node.id] - _is_waited_for(node, axes) for node in here}
        for node in reversed(here):
            keys = [(node.id, i) for i in range(len(node.outs))]
            readers = [reader for key in keys for reader in users.get(key, ())]
            stays = not keys or _is_waited_for(node, axes) or not asked.isdisjoint(keys)
            if not stays and readers and all(reader.id in order for reader in readers):
                behind = [*readers, *(w for use in node.uses for w in writers.get(use.value, ()) if w.id in order)]
                latest = min(order[one.id] - _is_waited_for(one, axes) for one in behind)
                order[node.id] = max(order[node.id], latest)
        nodes += sorted(here, key=lambda node: order[node.id])
    return replace(found, nodes=tuple(nodes))


def _reduced_where_made(found: Listing, axes: Sequence[str]) -> Listing:
    """What the update alone would join over devices is joined in the layer that made it, where there is one microbatch.

    So gradients leave in buckets while the backward goes on. Of several microbatches the update joins the sums, once.
    """
    if found.microbatches > 1 or found.parts:
        return found
    index = found.index()
    behind: dict[str, list[Node]] = {}
    for node in found.nodes:
        sources = {use.node for use in node.uses}
        if node.phase is Phase.UPDATE and node.op in REDUCING and stands_alone(node, axes) and len(sources) == 1:
            source = index[sources.pop()]
            if source.phase in (Phase.FORWARD, Phase.BACKWARD):
                index[node.id] = replace(node, phase=source.phase, layer=source.layer)
                behind.setdefault(source.id, []).append(index[node.id])
    moved = {node.id for nodes in behind.values() for node in nodes}

    def placed(node: Node) -> Iterator[Node]:
        yield node
        for other in behind.get(node.id, ()):
            yield from placed(other)

    kept = [node for node in found.nodes if node.id not in moved]
    return replace(found, nodes=tuple(one for node in kept for one in placed(node)))


def _taken_in_late(found: Listing, axes: Sequence[str]) -> Listing:
    """What is made of collectives' results and leaves alone, for the update alone, is made there, of a lone microbatch.

    So no device waits amid its backward for the loss of all, or for what a gradient is made from.
    """
    if found.microbatches > 1 or found.parts or all(node.phase is not Phase.UPDATE for node in found.nodes):
        return found
    index, users = found.index(), found.users()
    readers = {n.id: {r.id for i in range(len(n.outs)) for r in users.get((n.id, i), ())} for n in found.nodes}
    update = {node.id for node in found.nodes if node.phase is Phase.UPDATE}
    moved = {n.id for n in found.nodes if n.outs and n.uses and not _is_waited_for(n, axes)} - update

    def goes(node: Node) -> bool:
        sources = [index[use.node] for use in node.uses]
        waited = [source for source in sources if source.id in moved or _is_waited_for(source, axes)]
        others = all(source in waited or (not source.uses and source.op != "state") for source in sources)
        return others and all(readers[one.id] <= update | moved for one in (node, *waited))

    while gone := {name for name in moved if not goes(index[name])}:
        moved -= gone
    nodes = [replace(node, phase=Phase.UPDATE, layer=None) if node.id in moved else node for node in found.nodes]
    return replace(found, nodes=tuple(sorted(nodes, key=lambda node: PHASES.index(node.phase))))


def _levels(nodes: Sequence[Node], axes: Sequence[str]) -> tuple[dict[str, int], dict[Key, list[Node]]]:
    """The level of each node (of a collective: of its readers), and who writes over each value."""
    levels: dict[str, int] = {}
    read: dict[Key, int] = {}
    writers: dict[Key, list[Node]] = {}
    phases = {node.id: node.phase for node in nodes}
    together = 0  # of the latest collective of all stages
    for node in nodes:
        before = [levels.get(use.node, 0) for use in node.uses]
        if not node.outs and node.op != SEND:
            before += [read.get(use.value, 0) for use in node.uses]
            for use in node.uses:
                writers.setdefault(use.value, []).append(node)
        levels[node.id] = max(before, default=0) + _is_waited_for(node, axes)
        if node.op == "fetch" and phases.get(node.uses[0].node, node.phase) is not node.phase:
            levels[node.id] = 0  # it went down long ago, and comes up ahead of time
        if of_stages(node):
            together = levels[node.id] = max(levels[node.id], together)
        for use in node.uses:
            read[use.value] = max(read.get(use.value, 0), levels[node.id])
    return levels, writers


def _is_waited_for(node: Node, axes: Sequence[str]) -> bool:
    """Whether a node begins something that its readers wait for."""
    return node.op != SEND and stands_alone(node, axes)


# ---- instructions


def overlapped(
    lists: Sequence[Sequence[Instruction]], gloo: bool, last: Instruction | None = None
) -> list[tuple[Instruction, ...]]:
    """Instructions of a step's phases with buckets, gathers one layer ahead, and scatters one at a time. What stands
    first and last, prepare and update, computes nothing beside its gathers.

    gloo: whether it carries the collectives, or NCCL
    last: of the forward, before which no gather for the backward begins: there, at the loss, memory is at its highest
    """
    limit = GLOO_BUCKET_BYTES if gloo else BUCKET_BYTES
    found: list[tuple[Instruction, ...]] = []
    landed: set[str] = set()
    for place, instructions in enumerate(lists):
        idle = len(lists) > 1 and place in (0, len(lists) - 1)
        flying = {"reduce_scatter": 1, **({"all_gather": GATHERS_WITHOUT_WORK} if idle else {})}
        found.append(tuple(_in_turn(ahead(bucketed(instructions, limit), last), landed, flying)))
    return found


def bucketed(instructions: Sequence[Instruction], limit: int) -> list[Instruction]:
    """Collectives that nothing waits for yet join the next of their kind, up to so many bytes.

    Gathers and scatters join their neighbours alone: a gathered layer is not kept before its time, nor are the whole
    gradients of one.
    """
    found: list[Instruction] = []
    open_: dict[tuple[object, ...], Collective] = {}
    made = _made(instructions)
    for instruction in instructions:
        touched = _touched(instruction)
        if isinstance(instruction, Collective) and instruction.kind != "all_to_all" and instruction.axis != PIPE:
            early = _goes_ahead(instruction, made)
            into = bool(instruction.into)
            key = (instruction.kind, instruction.axis, instruction.reduction, instruction.dtype, early, into)
            open_ = {k: one for k, one in open_.items() if k == key or not touched & _names(one)}
            before = open_.get(key)
            if before is not None and _bytes(before) + _bytes(instruction) <= limit:
                at = next(i for i, one in enumerate(found) if one is before)
                del found[at]
                open_[key] = _joined(before, instruction)
            else:
                open_[key] = instruction
            found.append(open_[key])
            continue
        runs = isinstance(instruction, Run)
        open_ = {
            key: one
            for key, one in open_.items()
            if not touched & _names(one) and not (runs and one.kind != "all_reduce")
        }
        found.append(instruction)
    return found


def _names(collective: Collective) -> set[str]:
    return {*collective.inputs, *collective.outputs, *collective.into}


def _made(instructions: Iterable[Instruction]) -> frozenset[str]:
    """The buffers that instructions make."""
    several = [i.outputs for i in instructions if isinstance(i, Run | Collective)]
    single = [(i.output,) for i in instructions if isinstance(i, Shard | Rows | Offload | Fetch)]
    return frozenset(name for names in (*several, *single) for name in names)


def _goes_ahead(collective: Collective, made: frozenset[str]) -> bool:
    """Whether it gathers what was there before, and will be there after."""
    return collective.kind == "all_gather" and not collective.frees and not made & {*collective.inputs}


def _in_turn(instructions: Iterable[Instruction], landed: set[str], most: Mapping[str, int]) -> Iterator[Instruction]:
    """Of some kinds so many at most are on their way along an axis: before the next begins the oldest is waited for.
    `landed`: what was so."""
    flying: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    for instruction in instructions:
        if isinstance(instruction, Wait):
            left = tuple(name for name in instruction.buffers if name not in landed)
            there = {*left}
            flying = {way: [names for names in sent if not {*names} & there] for way, sent in flying.items()}
            if left:
                yield replace(instruction, buffers=left)
            continue
        if isinstance(instruction, Collective) and instruction.kind in most:
            sent = flying.setdefault((instruction.kind, instruction.axis), [])
            if len(sent) == most[instruction.kind]:
                oldest = sent.pop(0)
                landed.update(oldest)
                yield Wait(oldest)
            sent.append(instruction.outputs)
        yield instruction


def _touched(instruction: Instruction) -> set[str]:
    """The buffers that an instruction reads, frees or waits for."""
    match instruction:
        case Run():
            return {*instruction.inputs}
        case Collective():
            return {*instruction.inputs, *instruction.into}
        case Shard() | Send() | Offload() | Fetch():
            return {instruction.input}
        case Receive():
            return {instruction.output}
        case Rows():
            return {instruction.input, instruction.ids}
        case Wait() | Free() | Check():
            return {*instruction.buffers}
        case Allocate():
            return set()


def _bytes(collective: Collective) -> int:
    return sum(map(math.prod, collective.shapes)) * DType(collective.dtype).itemsize_bytes


def _joined(one: Collective, other: Collective) -> Collective:
    return replace(
        other,
        inputs=(*one.inputs, *other.inputs),
        outputs=(*one.outputs, *other.outputs),
        shapes=(*one.shapes, *other.shapes),
        frees=(*one.frees, *other.frees),
        in_place=(*one.in_place, *other.in_place),
        into=(*one.into, *other.into),
        dims=(*one.dims, *other.dims),
        sizes=(*one.sizes, *other.sizes),
    )


def ahead(instructions: Sequence[Instruction], last: Instruction | None = None) -> list[Instruction]:
    """Each gather of what no instruction here makes begins before the layer in front of its reader's, behind `last`."""
    found = list(instructions)
    made = _made(instructions)
    for position, gather in enumerate(instructions):
        if not isinstance(gather, Collective) or not _goes_ahead(gather, made):
            continue
        reader = _reader(instructions[position:], gather.outputs)
        if reader is not None and reader.layer:
            here = next(i for i, one in enumerate(found) if one is gather)
            del found[here]
            at = _before_a_layer(found, here, reader.layer, last)
            coming = tuple(name for name in gather.inputs if name in _waited_for(found[at:here]))
            found[at:at] = [Wait(coming), gather] if coming else [gather]  # a wait for what is there is none
    return found


def _waited_for(instructions: Iterable[Instruction]) -> frozenset[str]:
    return frozenset(name for one in instructions if isinstance(one, Wait) for name in one.buffers)


def _reader(instructions: Sequence[Instruction], buffers: Sequence[str]) -> Run | None:
    return next((i for i in instructions if isinstance(i, Run) and {*i.inputs} & {*buffers}), None)


def _before_a_layer(instructions: Sequence[Instruction], position: int, layer: str, last: Instruction | None) -> int:
    """Where the layer that runs before `layer`, or what runs between layers, begins."""
    passed: str | None = None
    while position > 0 and instructions[position - 1] is not last:
        before = instructions[position - 1]
        if isinstance(before, Run) and (before.layer != layer or passed is not None):
            if passed is not None and before.layer != passed:
                break
            passed = before.layer
        position -= 1
    return position
