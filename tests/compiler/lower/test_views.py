"""Views of a module's tensors: whatever is asked for one after another, the last shows what torch's own would."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.lower.emit import Emitter, Lifetimes, meta
from partita.compiler.lower.views import has_view
from torch import fx, nn

aten = torch.ops.aten
SHAPES = ([24], [1, 24], [4, 6], [2, 3, 4], [4, 2, 3], [1, 2, 1, 12], [2, 12])


def emitter() -> tuple[Emitter, fx.Node]:
    e = Emitter("cpu", functional=False, lifetimes=Lifetimes())
    return e, e.argument("x", [("x", 0)], torch.empty(2, 3, 4, device="meta"), owned=False)


def steps(e: Emitter, node: fx.Node) -> int:
    """Calls between a tensor and the argument that it shows."""
    before = node.args[0] if node.op == "call_function" else None
    return 1 + steps(e, before) if isinstance(before, fx.Node) else 0


@given(st.lists(st.one_of(st.sampled_from(SHAPES), st.randoms(use_true_random=False)), max_size=6))
def test_a_chain_of_views_shows_what_torchs_does(chain: list[object]) -> None:
    e, node = emitter()
    wanted = x = torch.arange(24.0).view(2, 3, 4)
    asked = 0
    for step in chain:
        if isinstance(step, list):
            if has_view(wanted, step):
                node, wanted, asked = e.view(aten.view.default, node, step), wanted.view(step), asked + 1
        else:
            order = list(range(wanted.dim()))
            step.shuffle(order)  # pyright: ignore  # a random.Random
            node, wanted, asked = e.view(aten.permute.default, node, order), wanted.permute(order), asked + 1
        assert meta(node).stride() == wanted.stride()
    assert steps(e, node) <= asked
    e.graph.output(node)
    assert torch.equal(fx.GraphModule(nn.Module(), e.graph)(x), wanted)


def test_what_lay_so_before_is_taken() -> None:
    """There and back is nowhere; rows in another order are one call, not an order and a view."""
    e, x = emitter()
    rows = e.view(aten.view.default, x, [6, 4])
    assert e.view(aten.view.default, rows, [2, 3, 4]) is x
    turned = e.view(aten.permute.default, x, [2, 0, 1])
    assert steps(e, e.view(aten.view.default, turned, [4, 6])) == 2
    assert e.view(aten.view.default, turned, [4, 6]).args[0] is rows
