"""The gradient of a scan: a scan the other way, whose body is the differentiated body.

With the body (c, x, w) -> (c', y) and the cotangents dc' (of the next carries) and dy of a step, reverse mode over the
body gives dc, dx, dw. So the scan from the last step to the first
    carries   dc, and dw as far as it is summed up
    reads     c before each step (saved), x, dy
    emits     dx
and the forward values that it needs are computed again, step by step (their ids begin with `again/`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..ir.graph import Graph, GraphBuilder
from ..ir.types import Attr, Node, Phase, TensorType, Use
from .definition import Build
from .scan import emits_attr, operands, whole

# (graph, cotangents of its values, targets) -> the graph with its backward, and the gradient of each target
Reverse = Callable[[Graph, Mapping[tuple[str, int], list[Use]], Sequence[str]], tuple[Graph, dict[str, Use]]]


@dataclass(frozen=True)
class ScanGradient:
    """What the reverse scan of one node is made of.

    carries  the carries that have cotangents, by number;  steps, outer: the operands whose gradient is wanted, by place
    seeded   the emitted values that have cotangents, by number
    """

    node: Node
    body: Graph
    carries: tuple[int, ...]
    steps: tuple[int, ...]
    outer: tuple[int, ...]
    seeded: tuple[int, ...]

    @property
    def inputs(self) -> list[Node]:
        return self.body.nodes("input")

    def apply(self, b: Build, cotangents: Sequence[Use | None], key: str) -> list[Use | None]:
        """Writes the reverse scan; the cotangent of each operand, None where it is not wanted."""
        carries, steps, outer = operands(self.node)
        first = len(carries)
        starts = [self._start(b, cotangents[at], carries[at].type) for at in self.carries]
        sums = [self._start(b, None, self.node.uses[at].type) for at in self.outer]
        saved = [self.node.out(len(self.node.outs) - first + at) for at in range(first)]
        seeds = [use for at in self.seeded if (use := cotangents[first + at]) is not None]
        results = [self.inputs[at].outs[0] for at in self.steps]
        attrs: dict[str, Attr] = {
            **self.node.attrs, "reverse": not self.node.attrs["reverse"], "carries": len(starts) + len(sums),
            "steps": len(saved) + len(steps) + len(seeds), "saves": False, "emits": emits_attr(results),
        }  # fmt: skip
        found = b("scan", *starts, *sums, *saved, *steps, *seeds, *outer, hint="scan", body=key, **attrs)
        places = [*self.carries, *self.outer, *self.steps]
        by_place = dict(zip(places, found, strict=True))
        return [self._fit(b, by_place[at], use) if at in by_place else None for at, use in enumerate(self.node.uses)]

    def _start(self, b: Build, cotangent: Use | None, like: TensorType) -> Use:
        if cotangent is not None:
            return cotangent
        return b("constant", value=0.0, dims=like.dims, dtype=like.dtype)[0]

    def _fit(self, b: Build, found: Use, operand: Use) -> Use:
        """What is emitted has the scan's dim in front."""
        return found if found.dims == operand.dims else b("transpose", found, dims=operand.dims)[0]

    # ---- the body

    def reverse_body(self, key: str, reverse: Reverse) -> Graph:
        """(dc', Σdw, c, x, dy, w) -> (dc, Σdw, dx) of one step."""
        first = len(operands(self.node)[0])
        last = first + len(operands(self.node)[1])
        inner = self.inputs
        again = _renamed(self.body)
        nexts = [self._input(f"next/{inner[at].id}", inner[at].outs[0]) for at in self.carries]
        sums = [self._input(f"sum/{inner[at].id}", inner[at].outs[0]) for at in self.outer]
        emitted = [again.outputs[str(first + at)] for at in self.seeded]
        given = [self._input(f"grad/emit.{at}", use.type) for at, use in zip(self.seeded, emitted, strict=True)]
        seeds: dict[tuple[str, int], list[Use]] = {}
        for use, seed in zip([again.outputs[str(at)] for at in self.carries] + emitted, nexts + given, strict=True):
            names = dict(zip(use.dims, again[use.node].outs[use.output].dims, strict=True))
            seeds.setdefault(use.value, []).append(seed.out().relabel(names))
        targets = [inner[at].id for at in (*self.carries, *self.outer, *self.steps)]
        builder = GraphBuilder(key)
        builder.extend([*nexts, *sums, *inner[:last], *given, *inner[last:]])
        builder.extend(node for node in again if node.op != "input")
        for name, nested in self.body.bodies.items():
            builder.body(name, nested)
        return self._finish(key, *reverse(builder.finish(), seeds, targets), sums)

    def _input(self, name: str, type_: TensorType) -> Node:
        attrs: dict[str, Attr] = {"name": name, "below": None, "dims": type_.dims, "dtype": type_.dtype}
        return Node(name, "input", (), (type_,), attrs)

    def _finish(self, key: str, found: Graph, gradients: Mapping[str, Use], sums: Sequence[Node]) -> Graph:
        builder = GraphBuilder(key)
        builder.extend(replace(node, phase=Phase.FORWARD) for node in found)
        for name, nested in found.bodies.items():
            builder.body(name, nested)
        inner = self.inputs
        for number, at in enumerate(self.carries):
            builder.output(str(number), gradients[inner[at].id])
        for number, (at, total) in enumerate(zip(self.outer, sums, strict=True), len(self.carries)):
            share = gradients[inner[at].id]
            name = builder.fresh(f"{total.id}.add")
            added = builder.add(Node(name, "add", (total.out(), share), (total.outs[0],)))
            builder.output(str(number), added.out())
        for number, at in enumerate(self.steps, len(self.carries) + len(self.outer)):
            builder.output(str(number), gradients[inner[at].id])
        return builder.finish()


def scan_gradient(node: Node, body: Graph, cotangents: Sequence[Use | None], wanted: Sequence[bool]) -> ScanGradient:
    """What a scan's gradient takes, from what is known at the node."""
    count = whole(node.attrs, "carries")
    steps = count + whole(node.attrs, "steps")
    carries = tuple(at for at in range(count) if node.uses[at].dtype.is_float)
    places = [at for at in range(count, len(node.uses)) if wanted[at]]
    emits = len(body.outputs) - count
    assert all(cotangent is None for cotangent in cotangents[count + emits :]), "saved carries have no cotangent"
    seeded = tuple(at for at in range(emits) if cotangents[count + at] is not None)
    return ScanGradient(
        node, body, carries, tuple(at for at in places if at < steps), tuple(at for at in places if at >= steps), seeded
    )


def _renamed(body: Graph) -> Graph:
    """The body with every computed node called `again/…`: what is computed again counts apart."""

    def turn(use: Use) -> Use:
        return use if body[use.node].op == "input" else replace(use, node=f"again/{use.node}")

    builder = GraphBuilder(body.name)
    for node in body:
        uses = tuple(turn(use) for use in node.uses)
        builder.add(node if node.op == "input" else replace(node, id=f"again/{node.id}", uses=uses))
    for name, use in body.outputs.items():
        builder.output(name, turn(use))
    return builder.finish()
