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


def test_nothing_is_lost_in_float64() -> None:
    assert all(one.here == one.total == 0 for one in audit(rounded_graph(*recipe_over("llama3", "Llama3", "f64"))))
