"""Specs that mutation once found unanswered: each has its message, and at once."""

from __future__ import annotations

import pytest
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.frame import MAX_NODES

MODEL = "use std\nmodel M : x[T, D] -> y[{out}] {{\n  dim D = 2\n  return x\n}}\n"
LAYERS = "\n".join(
    f"block B{i + 1}[D] : x[D] -> [D] {{\n  a : chain 100 of B{i}[D]\n  return a(x)\n}}" for i in range(4)
)
DEEP = f"""block B0[D] : x[D] -> [D] {{
  param w[D] ~ zeros
  return x + w
}}
{LAYERS}
model M : x[T, D] -> y[T, D] {{
  dim D = 2
  b : bank 7 of B4[D]
  return b(x)
}}
"""
CASES = {
    "an axis twice in a result": (MODEL.format(out="T, T, D"), "E0204", "two axes T"),
    "a zero in a string": (MODEL.format(out="T, D") + '# "\0"', "E0011", "a byte 0"),
    "a function without a body": ("fn f(a)\nfn g(x) = f(x)\n", "E0112", "`f` has no body"),
    "chains in chains": (DEEP, "E0311", f"more than {MAX_NODES:,} operators"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_answered(name: str) -> None:
    text, code, title = CASES[name]
    found = check_text(text, "hostile.partita")
    assert (code, True) in [(item.code, title in item.title) for item in found], [item.title for item in found]
