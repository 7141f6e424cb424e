"""What is folded together before kernels are written, node list to node list.

In: a graph. Out: a `Listing` of the same values, where sums of contractions, the loss on its logits, and all updates of
one kind are single `lower.*` nodes, accumulators are storage, and writes follow the last readers. These are choices
of instruction, not of meaning: no other part of the compiler ever sees a `lower.*` operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import cast

from ..ir.graph import DUMP, Graph
from ..ir.types import Dims, Node, Phase, Use
from .listing import PHASES, Key, Listing, frozen, of_stages
from .own import gather_own_parts, write_own_parts
from .readers import Readers, readers_of
from .sums import gather_sums
from .unroll import unrolled
from .updates import group_updates

NO_PARTS: Mapping[str, int] = MappingProxyType({})


def listing(
    graph: Graph,
    dump: Sequence[str] = (),
    axes: Sequence[str] = (),
    parts: Mapping[str, int] = NO_PARTS,
    ranks: tuple[tuple[int, ...], ...] = (),
) -> Listing:
    """The graph as it is to be emitted, of a device on a mesh with these axes.

    The first result of each node in `dump` is asked for too, as `dump/<id>`.
    """
    asked = {**graph.outputs, **{DUMP + name: graph[name].out() for name in dump}}
    written, outputs = unrolled(graph, asked)
    nodes = sorted(written, key=lambda n: PHASES.index(n.phase))
    found = Listing(tuple(nodes), outputs, graph.microbatches, parts=parts, ranks=ranks)
    steps: tuple[Callable[[Listing], Listing], ...] = (
        drop_trivial_accumulators,
        sums_of_low_values,
        sum_where_made,
        squares_as_products,
        swap_transposed_products,
        one_logits_buffer,
        gather_sums,
        head_into_accumulator,
        partial(write_own_parts, axes=axes),
        group_updates,
        gather_own_parts,
    )
    for step in steps:
        found = step(found)
    return _live(_late_writes(found))


def _late_writes(found: Listing) -> Listing:
    """A model's own state is written in the last part of a microbatch's work, when all have read what it was."""
    late = [n.id for n in found.nodes if n.op == "lower.assign" and n.phase is Phase.BACKWARD and n.id in found.parts]
    return replace(found, parts={**found.parts, **dict.fromkeys(late, max(found.parts.values()))}) if late else found


def _live(found: Listing) -> Listing:
    """Without the nodes that nothing reads any more.

    A node without results is an effect and stays; so does what all stages of a pipeline do together.
    """
    needed = {key[0] for key in found.asked()}
    kept: list[Node] = []
    for node in reversed(found.nodes):
        if node.id in needed or not node.outs or of_stages(node):
            kept.append(node)
            needed.update(use.node for use in node.uses)
    return replace(found, nodes=tuple(reversed(kept)))


def _substitute(found: Listing, alias: Mapping[Key, Use]) -> Listing:
    """Read other values instead of some."""

    def turn(use: Use) -> Use:
        while use.value in alias:
            other = alias[use.value]
            use = Use(other.node, other.output, use.dims, use.dtype)
        return use

    nodes = tuple(replace(n, uses=tuple(turn(u) for u in n.uses)) for n in found.nodes)
    return replace(found, nodes=nodes, outputs={name: turn(use) for name, use in found.outputs.items()})


def drop_trivial_accumulators(found: Listing) -> Listing:
    """With one microbatch an accumulated value is the value, if not several parts of its work (slices) add to it."""
    if found.microbatches > 1:
        return found
    index = found.index()

    def of_parts(node: Node) -> bool:
        source = index[node.uses[0].node]
        return source.op == "add" and any(found.part(index[use.node]) != found.part(node) for use in source.uses)

    gone = {n.id for n in found.nodes if n.op == "accumulate" and not of_parts(n)}
    alias = {(n.id, 0): n.uses[0] for n in found.nodes if n.id in gone}
    kept = tuple(n for n in found.nodes if n.id not in gone)
    return _substitute(replace(found, nodes=kept), alias)


def sums_of_low_values(found: Listing) -> Listing:
    """A sum in float32 of a low value reads the value itself: its kernel widens a few rows at a time."""
    index, firsts = found.index(), readers_of(found).firsts

    def turn(node: Node) -> Node:
        cast_ = index.get(node.uses[0].node) if node.op == "sum" else None
        if cast_ is None or cast_.op != "cast" or firsts[cast_.id].phase is not firsts[node.id].phase:
            return node
        source = cast_.uses[0]
        if not source.dtype.is_float or source.dtype.itemsize_bytes >= node.uses[0].dtype.itemsize_bytes:
            return node
        names = dict(zip(cast_.outs[0].dims, source.dims, strict=True))
        assert all(old == new for old, new in names.items()), f"{cast_.id} renames what it casts"
        return replace(node, uses=(Use(source.node, source.output, node.uses[0].dims, source.dtype),))

    return replace(found, nodes=tuple(turn(n) for n in found.nodes))


def sum_where_made(found: Listing) -> Listing:
    """A sum of cotangents runs in the layer that made them all, not in the layer of the value that they belong to.

    So every layer's backward takes one cotangent and gives one, the first and the last like all others.
    """
    firsts = readers_of(found).firsts

    def turn(node: Node) -> Node:
        if node.op != "add" or node.phase is not Phase.BACKWARD or firsts[node.id] is not node:
            return node
        layers = {(firsts[use.node].phase, firsts[use.node].layer) for use in node.uses}
        if len(layers) != 1:
            return node
        phase, layer = layers.pop()
        return node if phase is not Phase.BACKWARD or layer is None else replace(node, layer=layer)

    return replace(found, nodes=tuple(turn(n) for n in found.nodes))


def squares_as_products(found: Listing) -> Listing:
    """Σ x · x over all dims is one inner product, without the squares as a tensor (global norms)."""
    index, readers = found.index(), readers_of(found)

    def turn(node: Node) -> Node:
        if node.op != "sum" or node.outs[0].dims:
            return node
        product = index.get(node.uses[0].node)
        if product is None or product.op != "mul" or not readers.alone((product.id, 0)):
            return node
        a, b = product.uses
        once = readers.firsts[product.id].phase is readers.firsts[node.id].phase
        if set(a.dims) != set(b.dims) or not a.dims or not a.dtype.is_float or not once:
            return node
        return replace(node, op="dot", uses=(a, b), attrs=frozen(over=a.dims))

    return replace(found, nodes=tuple(turn(n) for n in found.nodes))


def swap_transposed_products(found: Listing) -> Listing:
    """transpose(dot(a, b)) is dot(b, a) where that gives the order wanted: the product is born in place."""
    index, readers = found.index(), readers_of(found)

    def turn(node: Node) -> Node:
        if node.op != "transpose":
            return node
        use = node.uses[0]
        product = index.get(use.node)
        if product is None or product.op != "dot" or not readers.alone(use.value) or use.dims != product.outs[0].dims:
            return node
        a, b = product.uses
        over = cast(Dims, product.attrs["over"])
        swapped = (*(d for d in b.dims if d not in over), *(d for d in a.dims if d not in over and d not in b.dims))
        here, there = readers.firsts[product.id], readers.firsts[node.id]
        if swapped != node.outs[0].dims or (here.phase, here.layer) != (there.phase, there.layer):
            return node
        return replace(node, op="dot", uses=(b, a), attrs=product.attrs)

    return replace(found, nodes=tuple(turn(n) for n in found.nodes))


def one_logits_buffer(found: Listing) -> Listing:
    """Where only a cross-entropy and its backward read the logits, log-probabilities take their place in memory.

    Of logits that are made again the backward makes log-probabilities again, so that they round as if they were kept.
    """
    index, readers = found.index(), readers_of(found)
    instead: dict[str, Node] = {}
    for node in found.nodes:
        loss = index[node.uses[3].node] if node.op == "cross_entropy_backward" else node
        if loss.op != "cross_entropy" or loss is node or not _feeds_alone(readers, loss, node):
            continue
        dloss, logits, target, _ = node.uses
        kept = loss.uses[0].value == logits.value
        if kept:
            outs, attrs = (loss.outs[0], loss.uses[0].type), frozen(V=node.attrs["V"])
            instead[loss.id] = replace(loss, op="lower.log_softmax_loss", outs=outs, attrs=attrs, body=None)
            logits = Use(loss.id, 1, logits.dims, logits.dtype)
        uses, attrs = (dloss, logits, target), frozen(V=node.attrs["V"], again=not kept)
        instead[node.id] = replace(node, op="lower.log_softmax_loss_backward", uses=uses, attrs=attrs, body=None)
    return replace(found, nodes=tuple(instead.get(node.id, node) for node in found.nodes))


def _feeds_alone(readers: Readers, loss: Node, backward: Node) -> bool:
    """Whether the two alone read the logits, and the second alone what the first keeps for it."""
    logits, kept = (readers.values[backward.uses[at].value] for at in (1, 3))
    if backward.uses[1].dtype.itemsize_bytes < 4:
        return False  # log-probabilities are too coarse in a low type; the kernel keeps the logits instead
    both = {(readers.firsts[loss.id].id, 0), (backward.id, 1)}
    alone = readers.operands[logits] == both and readers.operands[kept] == {(backward.id, 3)}
    return alone and not {logits, kept} & readers.asked


def head_into_accumulator(found: Listing) -> Listing:
    """Where an accumulator alone takes in the head's gradient, the head adds into it: no second tensor of that size."""
    index, users, asked = found.index(), found.users(), found.asked()
    totals: dict[str, Use] = {}
    gone: set[str] = set()
    for node in found.nodes:
        if node.op != "lower.sum" or not node.attrs["accumulates"] or node.attrs["parts"] != (("plain", ()),):
            continue
        part, total = node.uses
        head = index[part.node]
        alone = part.output == 2 and len(users[part.value]) == 1 and part.value not in asked
        if head.op == "linear_cross_entropy" and alone and part.dims == total.dims == head.outs[2].dims:
            totals[head.id] = total
            gone.add(node.id)

    def turn(node: Node) -> Node:
        if node.id not in totals:
            return node
        return replace(node, op="lower.linear_cross_entropy", uses=(*node.uses, totals[node.id]), outs=node.outs[:2])

    return replace(found, nodes=tuple(turn(n) for n in found.nodes if n.id not in gone))
