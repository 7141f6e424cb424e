"""All updates of one kind as one node, and writes into parameters right behind the last reader of the old values.

In: a listing. Out: the same with `lower.adamw` for all parameters that share their hyperparameters (their common clip
factor inside it), and `lower.assign` for every other write. A write so early lets the emitter compute the new value in
the old one's memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from ..ir.types import DType, Node, Phase, Use
from .listing import Key, Listing, frozen


def group_updates(found: Listing) -> Listing:
    """All adamw nodes of one kind become one; each other write follows its value and the readers of the old one."""
    found, guards = _guards(found)
    index, users, asked = found.index(), found.users(), found.asked()
    writes = [n for n in found.nodes if n.op == "assign"]
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in found.nodes:
        if node.op == "adamw" and _in_place(node, users, asked):
            key = (*_group_key(node, index, users, asked), guards.get(node.id))
            groups.setdefault(key, []).append(node)
    grouped = {n.id for members in groups.values() for n in members}
    fused = [
        _fused(members, index, cast(Key | None, key[-2]), cast(Use | None, key[-1])) for key, members in groups.items()
    ]
    assigns = [_assign(n, index) for n in writes if n.uses[0].node not in grouped]
    gone = grouped | {n.id for n in writes}
    nodes = [n for n in found.nodes if n.id not in gone]
    # A model's own state: written when the backward too has read what it was.
    early = [replace(n, phase=Phase.BACKWARD, layer=None) for n in assigns if n.phase is not Phase.UPDATE]
    before = [n for n in nodes if n.phase is not Phase.UPDATE]
    after = [n for n in nodes if n.phase is Phase.UPDATE]
    late = [n for n in assigns if n.phase is Phase.UPDATE]
    return replace(found, nodes=(*before, *early, *_placed([*after, *fused], late)))


def _guards(found: Listing) -> tuple[Listing, dict[str, Use]]:
    """Updates that are written only where a condition holds: the conditions by node, and the writes without them.

    The fused kernel leaves everything as it is where it is told so, which `where` would do in passes of its own.
    """
    index, users, asked = found.index(), found.users(), found.asked()
    guards: dict[str, Use] = {}
    gone: set[str] = set()
    for node in found.nodes:
        if node.op != "adamw":
            continue
        readers = [users.get((node.id, output), []) for output in range(3)]
        if any(
            len(each) != 1 or each[0].op != "where" or (node.id, output) in asked for output, each in enumerate(readers)
        ):
            continue
        choices = [each[0] for each in readers]
        conditions = {choice.uses[0] for choice in choices}
        written = [users.get((choice.id, 0), []) for choice in choices]
        olds = [node.uses[place].value for place in (0, 2, 3)]
        fits = all(
            choice.uses[2].value == old and len(each) == 1 and each[0].attrs.get("target") == old[0]
            for choice, old, each in zip(choices, olds, written, strict=True)
        )
        if len(conditions) == 1 and fits and not any((choice.id, 0) in asked for choice in choices):
            guards[node.id] = conditions.pop()
            gone.update(choice.id for choice in choices)

    def turn(node: Node) -> Node:
        choice = index.get(node.uses[0].node) if node.op == "assign" else None
        if choice is None or choice.op != "where" or choice.uses[1].node not in guards:
            return node
        value = choice.uses[1]
        return replace(node, uses=(replace(value, dims=node.uses[0].dims),))

    return replace(found, nodes=tuple(turn(node) for node in found.nodes if node.id not in gone)), guards


def _placed(nodes: Sequence[Node], writes: Sequence[Node]) -> list[Node]:
    """Each write as early as may be, so that no second copy of all parameters lives."""
    made = {node.id: position for position, node in enumerate(nodes)}
    read = {use.node: position for position, node in enumerate(nodes) for use in node.uses}
    behind: dict[int, list[Node]] = {}
    for write in writes:
        target, value = write.uses
        behind.setdefault(max(made.get(value.node, -1), read.get(target.node, -1)), []).append(write)
    rest = [one for position, node in enumerate(nodes) for one in (node, *behind.get(position, ()))]
    return [*behind.get(-1, ()), *rest]


def _in_place(node: Node, users: Mapping[Key, list[Node]], asked: frozenset[Key]) -> bool:
    """Whether the new values go nowhere but over the old ones."""
    for output, operand in ((0, 0), (1, 2), (2, 3)):
        readers = users.get((node.id, output), [])
        targets = [r.attrs.get("target") for r in readers if r.op == "assign"]
        if (node.id, output) in asked or len(readers) != 1 or targets != [node.uses[operand].node]:
            return False
    return True


def _clip_factor(
    node: Node, index: Mapping[str, Node], users: Mapping[Key, list[Node]], asked: frozenset[Key]
) -> Use | None:
    """The scalar that the gradient was multiplied by for this node alone, if any."""
    use = node.uses[1]
    product = index.get(use.node)
    if product is None or product.op != "mul" or product.phase is not Phase.UPDATE or use.dtype is DType.F64:
        return None
    if len(users[use.value]) > 1 or use.value in asked or len(product.uses) != 2:
        return None
    factor = next((u for u in product.uses if not u.dims), None)
    return factor if factor is not None and use.dims == product.outs[0].dims and use.dims else None


def _group_key(
    node: Node, index: Mapping[str, Node], users: Mapping[Key, list[Node]], asked: frozenset[Key]
) -> tuple[object, ...]:
    factor = _clip_factor(node, index, users, asked)
    gradient = node.uses[1].value if factor is None else _other(index[node.uses[1].node], factor).value
    if factor is not None and (gradient in asked or any(r.op in ("adamw", "assign") for r in users[gradient])):
        factor = None
    hyper = tuple(node.attrs[name] for name in ("beta1", "beta2", "eps", "decay"))
    layer = node.layer if node.host else None  # one layer is updated while the gradients of others still come down
    return (*hyper, layer, node.uses[4].value, node.uses[5].value, node.uses[0].dtype, factor.value if factor else None)


def _other(product: Node, factor: Use) -> Use:
    return next(u for u in product.uses if u is not factor)


def _fused(members: Sequence[Node], index: Mapping[str, Node], factor: Key | None, guard: Use | None) -> Node:
    uses: list[Use] = []
    scale: Use | None = None
    for node in members:
        gradient = node.uses[1]
        if factor is not None:
            product = index[gradient.node]
            scale = next(u for u in product.uses if u.value == factor)
            inner = _other(product, scale)
            gradient = replace(inner, dims=gradient.dims if inner.dims == product.outs[0].dims else inner.dims)
        uses.extend((node.uses[0], gradient, node.uses[2], node.uses[3]))
    tail = (*(() if scale is None else (scale,)), *(() if guard is None else (guard,)))
    first = members[0]
    attrs = {name: first.attrs[name] for name in ("beta1", "beta2", "eps", "decay")}
    return replace(
        first,
        id=f"{first.id}.all",
        op="lower.adamw",
        uses=(*uses, *tail, *first.uses[4:6]),
        outs=(),
        attrs=frozen(**attrs, scaled=scale is not None, guarded=guard is not None),
        body=None,
    )


def _assign(node: Node, index: Mapping[str, Node]) -> Node:
    target = index[cast(str, node.attrs["target"])]
    return replace(node, op="lower.assign", uses=(target.out(), node.uses[0]), outs=(), attrs=frozen())
