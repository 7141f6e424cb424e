"""The audit: errors are of the size of their types, arise where a type is low, and nothing is lost in float64."""

from __future__ import annotations

import pytest
from partita.compiler.pipeline import rounded_graph
from partita.tools.audit import audit
from samples.recipes import recipe_over


@pytest.mark.parametrize(("precision", "low"), [("mixed(compute = bf16)", 2.0**-8), ("f32", 2.0**-22)])
def test_errors_are_of_the_size_of_their_types(precision: str, low: float) -> None:
    found = {one.value: one for one in audit(rounded_graph(*recipe_over("llama3", "Llama3", precision)))}
    head = found["head.dot"]
    assert 0 < head.here <= low
    assert head.total > head.here
    assert {one.dtype for one in found.values()} == ({"bf16", "f32"} if precision != "f32" else {"f32"})
    wide = [one.here for one in found.values() if one.dtype == "f32"]
    assert max(wide) < 2.0**-16, "what is float32 is computed in float32"
    assert head.place == "linear.partita:6"


def test_neither_small_gradients_nor_zeros_stand_at_the_top() -> None:
    """The loss is scaled as in training, so nothing vanishes in float16; a key's bias, whose gradient is 0, is none."""
    found = audit(rounded_graph(*recipe_over("gpt2", "GPT2", "mixed(compute = f16)")))
    assert any(one.value.endswith("k.b") and one.value.startswith("grad/") for one in found)
    assert max(one.here for one in found) < 2.0**-10
    assert max(one.total for one in found) < 2.0**-7


def test_nothing_is_lost_in_float64() -> None:
    assert all(one.here == one.total == 0 for one in audit(rounded_graph(*recipe_over("llama3", "Llama3", "f64"))))
