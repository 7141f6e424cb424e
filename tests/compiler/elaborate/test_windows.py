"""Windows in specs: std's convolutions against PyTorch's, dims with arithmetic in signatures, misuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles.values import leaf_values, run
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.ir.types import DType
from samples.spec_texts import text_spec

F = torch.nn.functional
IMAGE = "model M : image[C, Y, X] -> out[N, {result}] {{\n  f : {block}\n  return f(image)\n}}\n"
SIZES = {"batch": 2, "C": 3, "N": 4, "Y": 6, "X": 8}


def convolved(block: str, result: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    spec = text_spec("use std\n" + IMAGE.format(block=block, result=result))
    graph, _ = elaborate_model(spec, dims=SIZES, dtype=DType.F64)
    values = leaf_values(graph)
    return torch.tensor(run(graph, values)["out"]), {name: torch.tensor(array) for name, array in values.items()}


@pytest.mark.parametrize(("k", "stride", "pad"), [(3, 1, 1), (1, 1, 0), (4, 2, 1), (5, 1, 2), (2, 2, 0)])
def test_conv(k: int, stride: int, pad: int):
    dims = "Y, X" if stride == 1 else f"Y / {stride}, X / {stride}"
    found, values = convolved(f"Conv[C, N](k = {k}, stride = {stride})", dims)
    kernel = values["f.w"].permute(3, 0, 1, 2)
    wide = F.pad(values["image"], (pad, k - 1 - pad, pad, k - 1 - pad))
    torch.testing.assert_close(found, F.conv2d(wide, kernel, values["f.b"], stride=stride))


@pytest.mark.parametrize(("k", "stride", "pad"), [(4, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_transposed_conv(k: int, stride: int, pad: int):
    found, values = convolved(f"ConvT[C, N](k = {k}, stride = {stride})", f"Y * {stride}, X * {stride}")
    kernel = values["f.w"].permute(0, 3, 1, 2)
    wanted = F.conv_transpose2d(values["image"], kernel, values["f.b"], stride=stride)
    end = [pad + SIZES[name] * stride for name in ("Y", "X")]
    torch.testing.assert_close(found, wanted[:, :, pad : end[0], pad : end[1]])


def test_shift_and_largest_of_three():
    text = (
        "use std\n"
        "model M : x[T], ids[T] in V -> a[T], b[T], c[U] {\n"
        "  dim P = 3\n"
        "  w = window[T -> (U P)](x, stride = 2, before = 1, fill = -inf)\n"
        "  return shift[T](x, fill = 7), shift[T](ids), max[P](w)\n"
        "}\n"
    )
    graph, _ = elaborate_model(text_spec(text), dims={"batch": 1, "T": 6, "V": 9, "U": 3})
    x, ids = np.arange(1.0, 7)[None], np.arange(1, 7)[None]
    found = run(graph, {"x": x, "ids": ids})
    np.testing.assert_array_equal(found["a"], [[7, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(found["b"], [[0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(found["c"], [[2, 4, 6]])


def test_a_length_that_is_free_stays_free():
    sizes = "  sizes {\n       C  N\n    s  3  4\n  }\n"
    text = "use std\nmodel M : x[T, C] -> y[T, N] {\n" + sizes + "  f : Conv1[C, N]\n  return f(x)\n}\n"
    graph, _ = elaborate_model(text_spec(text))
    assert [dim.name for dim in graph.outputs["y"].dims] == ["batch", "T", "N"]


NEST = """use std
block Half[C] : x[C, Y, X] -> [C, Y / 2, X / 2] {
  f : Conv[C, C](k = 2, stride = 2)
  return f(x)
}
block Twice[C] : x[C, Y, X], like[C, Y * 2, X * 2] -> [C, Y * 2, X * 2] {
  f : ConvT[C, C]
  return f(x) + like
}
model M : x[C, Y, X] -> y[C, Y, X] {
  sizes {
       C  Y   X
    s  2  16  8
  }
  a : Half[C]
  b : Half[C]
  c : Twice[C]
  d : Twice[C]
  h = a(x)
  return d(c(b(h), h), x)
}
"""


def test_halves_of_halves_are_quarters():
    graph, _ = elaborate_model(text_spec(NEST), dims={"batch": 1})
    assert [dim.name for dim in graph.outputs["y"].dims] == ["batch", "C", "Y", "X"]
    halves = {node.outs[0].dims for node in graph if node.id.startswith("b.f")}
    assert any("Y/4" in map(str, dims) for dims in halves)


ONE = "model M : x[T] -> [T] {\n  sizes {\n       T\n    s  8\n  }\n  dim P = 3\n  return %s\n}\n"


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("max[P](window[T -> (T P)](x))", "E0216"),
        ("max[P](window[T -> (T P)](x, stride = 0))", "E0216"),
        ("max[P](window[T -> (T P)](x, before = -1))", "E0216"),
        ("max[P](window[T -> (T P)](x, befor = 1))", "E0301"),
        ("max[P](window[T -> (T P)](x, before = 0.5))", "E0303"),
        ("max[P](window[T -> P](x))", "E0305"),
        ("max[P](window(x))", "E0305"),
        ("max[P](window[T -> (T P)](x, x))", "E0302"),
        ("max[P](window[T -> (P P)](x))", "E0216"),
        ("unwindow[(T P) -> T](x)", "E0203"),
        ("unwindow[T -> T](x)", "E0305"),
        ("unwindow[(U P) -> T](window[T -> (U P)](x), stride = 3)", "E0216"),
        ("unwindow[(U P) -> T](window[T -> (U P)](x), fill = 3)", "E0301"),
    ],
)
def test_misuse(written: str, code: str):
    assert [item.code for item in check_text(ONE % written, "a.partita")] == [code]


def test_a_size_that_does_not_halve():
    found = check_text(NEST.replace("16  8", "18  8"), "a.partita")
    assert "E0205" in {item.code for item in found}
