"""`partita audit`: where the error of a recipe's precision arises, node by node.

In: a recipe. The loss and its gradients (scaled, where the recipe scales the loss) run in the recipe's types and in
float64, on the same initial weights and the same random rows. Of every value: the error that has accumulated there, and
the error of its operator alone, given operands that are exact up to their own types; the largest of both are printed
with their spec lines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

import torch

from ..compiler.ir.graph import Graph, GraphBuilder
from ..compiler.ir.types import Attr, Dim, DType, Node, Phase, TensorType, Use
from ..compiler.lower.build import compile_graphs
from ..compiler.pipeline import rounded_graph
from ..runtime.execute import DTYPES
from ..runtime.folder import executable
from ..runtime.state import initial_store
from .arguments import add_spec, add_which, sets_of
from .fault import CommandFault
from .specs import bind

EXAMPLE = "partita audit specs/recipes/docs_demo.partita --set 'precision=mixed(compute = bf16)'"
CANCELLED = 2.0**-20  # of its terms: a sum that is smaller is zero but for the rounding of float32 terms
UNITS = MappingProxyType({"bf16": 2.0**-8, "f16": 2.0**-11, "f32": 2.0**-24})
_GIVEN = frozenset({"parameter", "state", "input", "start", "step", "seed"})
_WRITTEN = frozenset({"constant", "extent"})
Values = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Error:
    """Of one value, relative errors in norm: `here`, of its operator alone; `total`, with all that came before."""

    value: str
    op: str
    dtype: str
    place: str
    here: float
    total: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    add_which(parser)
    parser.add_argument("--top", type=int, default=8, metavar="N", help="how many values of each list (default 8)")
    parser.add_argument("--json", action="store_true", help="every value, as JSON")


def run(options: argparse.Namespace) -> int:
    """Prints the largest errors, or all of them as JSON."""
    bound = bind(options.spec, sets_of(options), options.size, options.model, options.recipe)
    if bound.recipe is None:
        raise CommandFault(f"{options.spec} has no recipe, whose precision could be audited")
    found = audit(rounded_graph(bound.spec, bound.recipe))
    if options.json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return 0
    low = [f"{name} rounds to {UNITS[name]:.1e}" for name in UNITS if any(one.dtype == name for one in found)]
    print(f"relative errors against float64, by norm; {', '.join(low)}")
    for title, key in (("where it arises", "here"), ("where it has accumulated", "total")):
        print(f"{title}:")
        for one in sorted(found, key=lambda one: -getattr(one, key))[: options.top]:
            print(f"  {getattr(one, key):8.1e}  {one.dtype:4}  {one.op:24} {one.place} {one.value}")
    return 0


def audit(graph: Graph) -> list[Error]:
    """The errors of every value that is computed, in the order of the graph; loss and gradients are its last."""
    given = _leaves(graph)
    low, exact = (_run(_asking(one), given) for one in (graph, doubled(graph)))
    known = {**exact, **{name: value.double() if value.is_floating_point() else value for name, value in given.items()}}
    floats = [n for n in graph if n.id in exact and n.outs[0].dtype.is_float and n.op not in ("random", "gaussian")]
    return [_error(node, graph, low[node.id], exact[node.id], known) for node in floats]


def _error(
    node: Node, graph: Graph, low: torch.Tensor, exact: torch.Tensor, known: Mapping[str, torch.Tensor]
) -> Error:
    place = f"{node.origin[0].file.rpartition('/')[2]}:{node.origin[0].line}" if node.origin else ""
    read = [known[key] for key in (_key(use.node, use.output) for use in node.uses) if key in known]
    terms = max((float(value.norm()) for value in read if value.is_floating_point()), default=0.0)
    here = _local(node, graph, known, terms)
    return Error(node.id, node.op, node.outs[0].dtype.value, place, here, _distance(low, exact, terms))


def _distance(found: torch.Tensor, wanted: torch.Tensor, terms: float) -> float:
    """‖found − wanted‖ / ‖wanted‖; of terms that cancel, over the terms.

    The gradient of a key's bias is such a value: softmax does not see what all scores have in common.
    """
    size = float(wanted.norm())
    if size <= CANCELLED * terms:
        size = terms  # no more than what their own types leave of them
    return float((found.double() - wanted).norm()) / size if size else float(found.double().norm())


def _local(node: Node, graph: Graph, known: Mapping[str, torch.Tensor], terms: float) -> float:
    """The node alone, in its types and in float64, on operands that their types can hold."""
    alone = GraphBuilder("alone")
    uses: list[Use] = []
    given: Values = {}
    for place, use in enumerate(node.uses):
        source, key = graph[use.node], _key(use.node, use.output)
        if source.op in _WRITTEN:
            written = alone.add(replace(source, id=alone.fresh(source.id), phase=Phase.FORWARD, layer=None)).out()
            uses.append(replace(written, dims=use.dims))
            continue
        name = f"operand.{place}"
        attrs: dict[str, Attr] = {"name": name, "below": None, "dims": use.dims, "dtype": use.dtype}
        uses.append(alone.add(Node(name, "input", (), (use.type,), attrs)).out())
        given[name] = known[key].to(DTYPES[use.dtype.value])
    alone.add(replace(node, uses=tuple(uses), phase=Phase.FORWARD, layer=None))
    if node.body is not None:
        alone.body(node.body, graph.bodies[node.body])
    alone.output(node.id, replace(node.out(), node=node.id))
    one = alone.finish()
    return _distance(_run(one, given)[node.id], _run(doubled(one), given)[node.id], terms)


# ---- running


def _key(node: str, output: int) -> str:
    return f"{node}:{output}" if output else node


def _asking(graph: Graph) -> Graph:
    """The graph with every value that it computes as an output."""
    builder = GraphBuilder(graph.name)
    builder.extend(graph)
    for node in graph.nodes(where=lambda one: one.op not in _GIVEN | _WRITTEN):
        for index in range(len(node.outs)):
            builder.output(_key(node.id, index), node.out(index))
    for key, body in graph.bodies.items():
        builder.body(key, body)
    return builder.finish()


def _leaves(graph: Graph) -> Values:
    """Initial weights and random rows, the same for both runs."""
    build, _ = compile_graphs({"step": graph}, {}, {})
    found: Values = dict(initial_store(build, 0))
    generator = torch.Generator().manual_seed(0)
    for node in graph.nodes("input"):
        shape = [dim.size or 1 for dim in node.outs[0].dims]
        below = node.attrs["below"]
        if node.outs[0].dtype.is_float:
            found[node.id] = torch.randn(shape, generator=generator)
        else:
            found[node.id] = torch.randint(below.size or 1 if isinstance(below, Dim) else 2, shape, generator=generator)
    return found


def _run(graph: Graph, given: Mapping[str, torch.Tensor]) -> Values:
    build, sources = compile_graphs({"step": graph}, {}, {})
    store = {p.name: given[p.name].to(DTYPES[p.dtype]).clone() for p in (*build.parameters, *build.states)}
    names = {str(node.attrs["name"]): node.id for node in graph.nodes("input")}
    inputs = [i for i in build.programs["step"].inputs if i.source == "data"]
    data = {i.name: given[names[i.name]].to(DTYPES[i.dtype]) for i in inputs}
    return executable(build, sources).run("step", store, [data])


# ---- the same in float64


def doubled(graph: Graph) -> Graph:
    """The graph with float64 for every float."""
    builder = GraphBuilder.rewriting(graph)
    builder.extend(_doubled_node(node) for node in graph)
    for name, use in graph.outputs.items():
        builder.output(name, replace(use, dtype=_double(use.dtype)))
    for key, body in graph.bodies.items():
        builder.body(key, doubled(body))
    return builder.finish()


def _double(dtype: DType) -> DType:
    return DType.F64 if dtype.is_float else dtype


def _doubled_attr(value: Attr) -> Attr:
    if isinstance(value, tuple):
        return tuple(map(_doubled_attr, value))
    return _double(value) if isinstance(value, DType) else value


def _doubled_node(node: Node) -> Node:
    uses: Sequence[Use] = [replace(use, dtype=_double(use.dtype)) for use in node.uses]
    outs = tuple(TensorType(out.dims, _double(out.dtype)) for out in node.outs)
    return replace(node, uses=tuple(uses), outs=outs, attrs={k: _doubled_attr(v) for k, v in node.attrs.items()})
