"""Each rule of the verifier is broken once, and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from generators.models import deep_stack
from oracles.properties import at_level
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.levels import GRADIENT, LOSS, MODEL, STEP
from partita.compiler.ir.types import Dim, DType, Node, Phase, TensorType
from partita.compiler.ir.verify import verify
from partita.compiler.ops.check import check_node

STEP_GRAPH = at_level(deep_stack(layers=1), STEP)


def changed(graph: Graph, node_id: str, change: Callable[[Node], Node], drop: Sequence[str] = ()) -> Graph:
    """The graph with one node changed and some outputs dropped."""
    builder = GraphBuilder(graph.name)
    builder.extend(change(node) if node.id == node_id else node for node in graph)
    for name, use in graph.outputs.items():
        if name not in drop:
            builder.output(name, use)
    return builder.finish()


def first_use(**changes: object) -> Callable[[Node], Node]:
    return lambda node: replace(node, uses=(replace(node.uses[0], **changes), *node.uses[1:]))  # type: ignore[arg-type]


E = Dim("E", 8)
CASES: dict[str, tuple[str, Callable[[Node], Node]]] = {
    "has 1": ("blocks.0.tanh", first_use(output=1)),
    "reads bf16": ("blocks.0.tanh", first_use(dtype=DType.BF16)),
    "reads \\[batch": ("blocks.0.tanh", first_use(dims=(Dim("batch", 4), Dim("Z", 9)))),
    "labels two axes alike": ("grad/blocks.0.f", first_use(dims=(E, E))),
    "not among the graph's bodies": ("blocks.0.tanh", lambda node: replace(node, body="tanh")),
    "gives \\(f32": ("blocks.0.tanh", lambda node: replace(node, outs=(TensorType(node.outs[0].dims, DType.F64),))),
    "no operator": ("blocks.0.tanh", lambda node: replace(node, op="tan")),
    "lacks its attribute over": ("blocks.0.f", lambda node: replace(node, attrs={})),
    "has no attribute": ("blocks.0.tanh", lambda node: replace(node, attrs={"over": ()})),
    "reads grad": ("assign/blocks.0.w", lambda node: replace(node, phase=Phase.FORWARD)),
    "only accumulate may stand between": ("blocks.0.tanh", lambda node: replace(node, phase=Phase.UPDATE)),
    "runs once": ("total/blocks.0.w", lambda node: replace(node, phase=Phase.UPDATE)),
    "before all microbatches have run": ("change/blocks.0.w", lambda node: replace(node, phase=Phase.BACKWARD)),
    "no parameter or state": ("assign/blocks.0.w", lambda node: replace(node, attrs={"target": "x"})),
    "dim D is": ("blocks.0.w", lambda node: replace(node, attrs={**node.attrs, "dims": (Dim("D", 9), E)})),
}


def test_a_sound_graph_has_no_problems() -> None:
    assert verify(STEP_GRAPH, STEP, check_node) == []


@pytest.mark.parametrize("words", CASES)
def test_a_broken_rule_is_named(words: str) -> None:
    node_id, change = CASES[words]
    if words.startswith("reads grad"):
        words = "runs in forward but reads"
    broken = changed(STEP_GRAPH, node_id, change)
    problems = verify(broken, STEP, check_node)
    assert verify(broken, STEP, check_node, STEP_GRAPH) == problems, "what a sound graph has otherwise is looked at"
    said = "\n".join(map(str, problems))
    assert words.replace("\\", "") in said, said or "no problem found"


def test_levels_say_which_phases_and_outputs_they_allow() -> None:
    gradient = at_level(deep_stack(layers=1), GRADIENT)
    assert verify(gradient, GRADIENT, check_node) == []
    assert any("phase backward has no place" in str(problem) for problem in verify(gradient, LOSS))
    assert any("wants an output grad/" in str(problem) for problem in verify(deep_stack(layers=1), GRADIENT))
    assert any("wants an output loss" in str(one) for one in verify(changed(gradient, "", lambda n: n, ["loss"]), STEP))
    assert verify(deep_stack(layers=1), MODEL, check_node) == []
