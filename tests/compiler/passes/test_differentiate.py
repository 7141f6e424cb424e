"""Gradients against PyTorch's autograd and finite differences, and the shape of the backward."""

from __future__ import annotations

from generators.graphs import graphs
from generators.models import deep_stack
from hypothesis import given, settings
from oracles.properties import at_level, matches_autograd, matches_differences
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.levels import GRADIENT
from partita.compiler.ir.types import Layer, Phase


@settings(max_examples=150)
@given(graphs())
def test_gradients_are_autograds(graph: Graph) -> None:
    matches_autograd(graph)


@settings(max_examples=80)
@given(graphs())
def test_gradients_are_those_of_differences(graph: Graph) -> None:
    matches_differences(graph)


def test_fan_out_makes_one_sum() -> None:
    """x + f(x) + g(x): the cotangent of x is one sum of three terms."""
    backward = at_level(deep_stack(layers=1, parallel=True), GRADIENT)
    sums = [node for node in backward.nodes("add") if node.phase is Phase.BACKWARD and len(node.uses) == 3]
    assert [node.id for node in sums] == ["grad/x"]


def test_the_backward_keeps_whose_it_is() -> None:
    backward = at_level(deep_stack(layers=3), GRADIENT)
    for node in backward.nodes(where=lambda node: node.phase is Phase.BACKWARD and node.op == "dot"):
        assert node.layer is not None and node.path == f"blocks.{node.layer.index}"
        assert node.origin[0].file == "stack.partita"
    assert {node.layer for node in backward.nodes("tanh")} == {Layer("blocks", at) for at in range(3)}


def test_a_weights_gradient_stands_before_the_inputs() -> None:
    """So what a layer keeps is free as soon as its cotangent is there."""
    backward = at_level(deep_stack(layers=4), GRADIENT)
    order = [node.id for node in backward]
    for at in range(1, 4):
        assert order.index(f"grad/blocks.{at}.w") < order.index(f"grad/blocks.{at}.f.dot")
        assert order.index(f"grad/blocks.{at}.w") == order.index(f"grad/blocks.{at}.f") + 1


def test_only_what_parameters_need_is_written() -> None:
    """The input's cotangent is nobody's."""
    backward = at_level(deep_stack(layers=1), GRADIENT)
    assert "grad/x" not in backward


def test_a_tied_parameter_has_one_gradient() -> None:
    backward = at_level(deep_stack(layers=3, tied=True), GRADIENT)
    (total,) = (node for node in backward.nodes("add") if node.id == "grad/w")
    assert len(total.uses) == 3
    assert backward.outputs["grad/w"].node == "grad/w"
