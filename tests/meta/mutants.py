"""Deliberately broken gradient rules, rewrites and passes, as data: each must be caught by the properties of passes.

A mutant says which attribute of which module it replaces, and by what. Most wrap the true rule and spoil one thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, Node, Phase, Use
from partita.compiler.ops.definition import Build
from partita.compiler.ops.derive import fit, one
from partita.compiler.ops.registry import REGISTRY
from partita.compiler.passes import differentiate, inline, microbatch, offsets, rematerialize, rules, simplify

Cotangents = Sequence[Use | None]


@dataclass(frozen=True)
class Mutant:
    """name: what is broken. where, attribute: what is replaced. broken: by what. needs: the operator concerned."""

    name: str
    where: ModuleType | type
    attribute: str
    broken: Any
    needs: str = ""


# ---- gradient rules


def _rule(op: str, name: str, broken: Callable[[Build, Node, Cotangents, Sequence[bool]], Cotangents]) -> Mutant:
    table = {**REGISTRY, op: replace(REGISTRY[op], gradient=broken)}
    return Mutant(f"{op}: {name}", differentiate, "REGISTRY", table, needs=op)


def _true(op: str, b: Build, node: Node, g: Cotangents, wanted: Sequence[bool]) -> list[Use | None]:
    rule: Any = REGISTRY[op].gradient
    return list(rule(b, node, g, wanted))


def _spoiled(op: str, name: str, spoil: Callable[[Build, Node, list[Use | None]], Cotangents]) -> Mutant:
    """The true rule's cotangents, changed."""
    return _rule(op, name, lambda b, node, g, wanted: spoil(b, node, _true(op, b, node, g, wanted)))


def _on_node(op: str, name: str, change: Callable[[Node], Node]) -> Mutant:
    """The true rule, told something wrong about the node."""
    return _rule(op, name, lambda b, node, g, wanted: _true(op, b, change(node), g, wanted))


def _some(g: Cotangents) -> Use:
    return next(use for use in g if use is not None)


def _negated(place: int) -> Callable[[Build, Node, list[Use | None]], Cotangents]:
    def spoil(b: Build, _node: Node, found: list[Use | None]) -> Cotangents:
        return [one(b, "neg", use) if use is not None and at == place else use for at, use in enumerate(found)]

    return spoil


def _lost(place: int) -> Callable[[Build, Node, list[Use | None]], Cotangents]:
    return lambda _b, _node, found: [None if at == place else use for at, use in enumerate(found)]


def _mul_swapped(b: Build, node: Node, g: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    a, c = node.uses
    return [
        fit(b, one(b, "mul", _some(g), use), use) if want else None for use, want in zip((a, c), wanted, strict=True)
    ]


def _unsummed(b: Build, node: Node, g: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    """The sum over the dims that an operand lacks is forgotten."""
    return [_some(g) if want else None for want in wanted]


def _gradients() -> Iterable[Mutant]:
    yield _rule("mul", "operands swapped", _mul_swapped)
    yield _rule("add", "no sum over a broadcast dim", _unsummed)
    yield _spoiled("add", "a term lost", _lost(1))
    yield _spoiled("sub", "sign of the right operand", _negated(1))
    yield _spoiled("div", "sign of the divisor", _negated(1))
    yield _spoiled("pow", "sign of the exponent", _negated(1))
    yield _spoiled("dot", "sign of the right operand", _negated(1))
    yield _spoiled("dot", "no gradient of the left operand", _lost(0))
    yield _spoiled("gather", "no gradient of the table", _lost(0))
    yield _spoiled("layer_norm", "no gradient of the gain", _lost(1))
    yield _spoiled("attention", "keys and values exchanged", lambda _b, _n, f: [f[0], f[2], f[1], *f[3:]])
    yield _on_node("attention", "mask dropped", lambda n: replace(n, attrs={**n.attrs, "mask": "full"}))
    yield _on_node("rms_norm", "offset dropped", lambda n: replace(n, attrs={**n.attrs, "offset": 0.5}))
    yield _on_node("rotary", "other pairs", lambda n: replace(n, attrs={**n.attrs, "half": not n.attrs["half"]}))
    yield _rule("exp", "g instead of g y", lambda b, n, g, w: [_some(g)])
    yield _rule("stop", "lets gradients through", lambda b, n, g, w: [_some(g)])
    yield _rule("cast", "dropped", lambda b, n, g, w: [_some(g)])
    yield _rule("abs", "sign forgotten", lambda b, n, g, w: [_some(g)])
    yield _rule("tanh", "1 - y", lambda b, n, g, w: [one(b, "sub", _some(g), one(b, "mul", _some(g), n.out()))])
    yield _rule("where", "branches exchanged", _where_exchanged)
    yield _rule("concat", "first part twice", _concat_first_twice)
    yield _rule("merge_dims", "parts in another order", _merge_reversed)


def _where_exchanged(b: Build, node: Node, g: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    condition, x, y = node.uses
    turned = replace(node, uses=(one(b, "logical_not", condition), x, y))
    return _true("where", b, turned, g, wanted)


def _concat_first_twice(b: Build, node: Node, g: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    found = _true("concat", b, node, g, wanted)
    same = node.uses[0].dims == node.uses[1].dims
    return [found[0], found[0]] if same else [found[0], None]


def _merge_reversed(b: Build, node: Node, g: Cotangents, wanted: Sequence[bool]) -> Cotangents:
    parts: Any = node.attrs["dims"]
    return _true("merge_dims", b, replace(node, attrs={**node.attrs, "dims": tuple(reversed(parts))}), g, wanted)


# ---- passes


def _lost_fan_out(self: Any, node: Node, index: int) -> Use | None:
    parts = self.parts.pop((node.id, index), None)
    return None if parts is None else parts[0]


def _merges_random(node: Node) -> object:
    """Equal but for the key."""
    attrs = tuple(sorted((key, repr(value)) for key, value in node.attrs.items() if key != "key"))
    return None if node.op in {"parameter", "input", "assign"} else (node.op, node.uses, node.outs, attrs, node.phase)


def _merges_without_attributes(node: Node) -> object:
    return None if node.op in {"parameter", "input", "assign"} else (node.op, node.uses, node.outs, node.phase)


def _live_without_writes(nodes: Iterable[Node], outputs: Iterable[Use]) -> list[Node]:
    return [node for node in simplify_live(nodes, outputs) if node.op != "assign"]


simplify_live = simplify.live


def _again_with_another_key(self: Any, use: Use) -> Use:
    """Clones of random nodes draw anew."""
    found = _true_again(self, use)
    node = self.builder[found.node]
    if node.op == "random" and node.phase is Phase.BACKWARD and not str(node.attrs["key"]).endswith("!"):
        fresh = replace(node, id=f"{node.id}!", attrs={**node.attrs, "key": f"{node.attrs['key']}!"})
        return replace(found, node=(fresh.id if fresh.id in self.builder else self.builder.add(fresh).id))
    return found


_true_again = rematerialize._Cloning._again  # pyright: ignore[reportPrivateUsage]


def _first_operand_again(self: Any, use: Use) -> Use:
    """A clone that reads its first operand in the place of its second."""
    found = _true_again(self, use)
    node = self.builder[found.node]
    if node.op == "mul" and node.phase is Phase.BACKWARD and node.id.startswith("again/"):
        x, y = node.uses
        if x.type == y.type and x.value != y.value:
            twin = replace(node, id=self.builder.fresh("twin"), uses=(x, x))
            return replace(found, node=self.builder.add(twin).id)
    return found


def _without(rule: str, apply: Callable[..., Any]) -> Any:
    """The rules of simplify with one replaced."""
    return tuple(replace(one_rule, apply=apply) if one_rule.name == rule else one_rule for one_rule in rules.RULES)


def _any_constant_is_one(node: Node, find: Callable[[str], Node]) -> Use | None:
    for keep, other in ((0, 1), (1, 0)):
        if rules.constant_value(node.uses[other], find) is not None and node.uses[keep].type == node.outs[0]:
            return node.uses[keep]
    return None


def _drops_last_term(node: Node, find: Callable[[str], Node]) -> Node | None:
    kept = tuple(use for use in node.uses if rules.constant_value(use, find) != 0)
    return replace(node, uses=kept[:2]) if len(kept) < len(node.uses) and len(kept) > 1 else None


def _once(node: Node, find: Callable[[str], Node]) -> Use | None:
    return node.uses[0] if node.uses[0].type == node.outs[0] else None


def _all_rules(graph: Any) -> dict[str, list[Any]]:
    """`stop` is dropped before anything is differentiated."""
    found: dict[str, list[Any]] = {}
    for rule in rules.RULES + rules.AFTER_GRADIENTS:
        for op in rule.ops:
            found.setdefault(op, []).append(rule)
    return found


def _starts_at_one(self: Any, node: Node) -> Node:
    known = _true_known(self, node)
    return replace(known, attrs={**known.attrs, "value": 1}) if known.op == "constant" and node.op == "start" else known


_true_known = offsets.Offsets._known  # pyright: ignore[reportPrivateUsage]


def _fold_minus(node: Node, find: Callable[[str], Node]) -> Node | None:
    found = _true_fold(node, find)
    return None if found is None else replace(found, attrs={**found.attrs, "value": -float(found.attrs["value"])})  # type: ignore[arg-type]


_true_fold = next(rule.apply for rule in rules.RULES if rule.name == "fold")


def _no_labels(use: Use, inside: Mapping[tuple[str, int], Use]) -> Use:
    """An argument keeps its own labels."""
    return inside[use.value]


def _first_argument(use: Use, inside: Mapping[tuple[str, int], Use]) -> Use:
    found = inside[use.value] if use.node != "a1" else inside.get(("a0", 0), inside[use.value])
    found = found if len(found.dims) == len(use.dims) else inside[use.value]
    return Use(found.node, found.output, use.dims, use.dtype)


def _first_operand(node: Node, _find: Callable[[str], Node]) -> Use:
    return node.uses[0]


def _not_accumulated(_self: Any, _builder: GraphBuilder, _name: str, use: Use) -> Use:
    return use


def _unscaled(_self: Any, _builder: GraphBuilder, node: Node) -> Node:
    return node


def _no_aliases(_graph: Graph, _node: Node, _known: Mapping[Dim, Dim]) -> Iterable[Dim]:
    return ()


def _passes() -> Iterable[Mutant]:
    reverse = differentiate._Reverse  # pyright: ignore[reportPrivateUsage]
    facts = microbatch._Facts  # pyright: ignore[reportPrivateUsage]
    cloning = rematerialize._Cloning  # pyright: ignore[reportPrivateUsage]
    yield Mutant("differentiate: fan-out lost", reverse, "_cotangent", _lost_fan_out)
    yield Mutant("simplify: merges random nodes", simplify, "_expression", _merges_random, needs="random")
    yield Mutant("simplify: merges whatever its attributes", simplify, "_expression", _merges_without_attributes)
    yield Mutant("simplify: an assign dropped", simplify, "live", _live_without_writes)
    yield Mutant("simplify: x · c = x", simplify, "RULES", _without("times one", _any_constant_is_one))
    yield Mutant(
        "simplify: x + y + z + 0 = x + y", simplify, "RULES", _without("plus zero", _drops_last_term), needs="sin"
    )
    yield Mutant("simplify: −x = x", simplify, "RULES", _without("twice", _once))
    yield Mutant("simplify: transpose(x) = x", simplify, "RULES", _without("already so", _first_operand))
    yield Mutant("simplify: folds to the wrong sign", simplify, "RULES", _without("fold", _fold_minus))
    yield Mutant("simplify: stop dropped early", simplify, "_rules_for", _all_rules, needs="stop")
    yield Mutant("microbatch: no accumulate", facts, "_total", _not_accumulated)
    yield Mutant("microbatch: terms count each time", facts, "_scale", _unscaled)
    yield Mutant("microbatch: aliases keep their size", microbatch, "_aliases", _no_aliases, needs="sin")
    yield Mutant("rematerialize: another key", cloning, "_again", _again_with_another_key, needs="random")
    yield Mutant("rematerialize: an operand twice", cloning, "_again", _first_operand_again)
    yield Mutant("offsets: starts at 1", offsets.Offsets, "_known", _starts_at_one, needs="start")
    yield Mutant("inline: labels of the caller lost", inline, "_through", _no_labels, needs="silu")
    yield Mutant("inline: an argument twice", inline, "_through", _first_argument, needs="rms_norm")


MUTANTS = (*_gradients(), *_passes())
