"""Blocks and functions that nothing makes: what sizes and options will decide is no fault, what they cannot is."""

from __future__ import annotations

from pathlib import Path

import pytest
from partita.compiler.elaborate.check import check_spec, check_text
from partita.compiler.elaborate.load import load
from partita.compiler.language.parse import read_source

SPECS = Path(__file__).parents[3] / "specs"

OPEN = {
    "a start from a size": "block A[C] : x[C] -> [C] {\n  param w[C] ~ uniform(1 / sqrt(C))\n  return x * w\n}\n",
    "a start from an option": "block A[C](k) : x[C] -> [C] {\n  param w[C] ~ normal(k)\n  return x * w\n}\n",
    "a number from a size": "block A[C] : x[C] -> [C] {\n  param w[C] ~ 1 / C\n  return x * w\n}\n",
    "a dim from an option": "block A[C](part) : x[C] -> [C] {\n  dim N = part, M = C / part\n"
    "  a : Linear[C, N]\n  b : Linear[N, C]\n  return b(a(x)) / M\n}\n",
    "a whole number from a size": "block A[D, F, E] : x[D] -> [D] {\n  moe : MoE[D, F, E](k = E / 2)\n"
    "  return moe(x)\n}\n",
    "an axis renamed in what is unknown": "fn f[N, Z](a, b) {\n  s = dot[Z](a, b[N -> M])\n"
    "  return sum[M](s * index[M])\n}\n",
}


@pytest.mark.parametrize("text", OPEN.values(), ids=OPEN)
def test_what_is_not_known_yet_is_no_fault(text: str):
    assert check_text("use std\n\n" + text, "spec.partita") == ()


@pytest.mark.parametrize("path", sorted((SPECS / "std").glob("*.partita")), ids=lambda path: path.stem)
def test_a_file_of_std_sees_its_siblings(path: Path):
    spec, found = load(read_source(path))
    assert spec is not None and not found
    assert check_spec(spec) == ()


def test_a_faulty_arrow_is_reported_once():
    text = "use std\n\nmodel M : x[T, D] -> [T, D] {\n  sizes {\n       D\n    s  4\n  }\n"
    text += "  a = nothing[T -> S]\n  return x + sum[S](index[S])\n}\n"
    assert [item.code for item in check_text(text, "spec.partita")] == ["E0101"]


@pytest.mark.parametrize("name", ["B", "bsz"])
def test_the_batch_is_not_written(name: str):
    text = f"model M : x[{name}, T], y[{name}, T] -> [{name}, T] {{\n  return x + y\n}}\n"
    (found,) = check_text(text, "spec.partita")
    assert found.code == "E0202" and found.hint == f"leave {name} out of the inputs and outputs: x[T]"


def test_a_dim_of_that_name_may_mean_something():
    assert check_text("model M : x[B, T] -> [B, T] {\n  return x - max[B](x)\n}\n", "spec.partita") == ()
