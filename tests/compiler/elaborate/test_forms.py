"""The forms of primitives that hints and the reference show are forms that the checker takes."""

from __future__ import annotations

import pytest
from partita.compiler.base.diagnostic import render_all
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.forms import FORMS
from partita.compiler.elaborate.primitives import PRIMITIVES

PORTS = "x[T, D, E, Y], w[D], c[T] in bool, y[T]"
INITIALISERS = {"normal", "uniform", "kaiming", "constant"}
OWN_SIZES = {"split", "concat", "stack", "unstack", "unwindow"}  # they want dims that fit each other


def test_each_primitive_has_one():
    assert FORMS.keys() == PRIMITIVES.keys()


@pytest.mark.parametrize("name", sorted(FORMS.keys() - OWN_SIZES))
def test_it_is_taken(name: str):
    form = FORMS[name][0]
    line = f"param own[Q] ~ {form}" if name in INITIALISERS else f"r = {form}"
    text = f"block B[Q] : {PORTS} -> [Q] {{\n  dim P = 3\n  {line}\n  return zeros[Q]\n}}\n"
    found = check_text(text, "form.partita")
    assert not found, render_all(found)
