"""Activations on the host: what a chain's layers move, whichever thin layer stands for them, and what a device has
then."""

from __future__ import annotations

from oracles.plans import ready
from partita.compiler.plan.aloft import aloft
from partita.compiler.plan.space import Unit


def test_each_layer_but_the_first_and_the_last_moves_what_it_was_given() -> None:
    layouts = ready("gpt2", "dgx_a100", 2, 2).layouts
    unit = Unit((), "full", 2)
    parts, moved = layouts.parts(unit), layouts.moved(unit)
    layers = [size for part, size in zip(parts.parts, moved, strict=True) if part.name.startswith("blocks.")]
    assert layers == [0, *[2 * 512 * 256 * 4] * 2, 0]  # with `full` a layer keeps its input alone, [rows T D]
    assert sum(moved) == sum(layers)
    link = 1e9
    there = aloft(parts, moved, link)
    for before, after, size in zip(parts.parts, there.parts, moved, strict=True):
        assert after.kept == before.kept - size
        assert after.forward_s == max(before.forward_s, size / link)
        assert after.input_s + after.weight_s >= max(before.input_s + before.weight_s, size / link) - 1e-12
