"""Weight maps become data: any layout of a parameter is found again, and what is wrong is said with its place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.weight_data import Theirs
from partita.compiler.elaborate.weights import weight_map
from samples.spec_texts import model_spec, text_spec

SIZES = {"A": 2, "B": 3, "C": 4, "E": 5}
HEAD = """use std
block One[A, B, C] : x[A] -> [B, C] {
  param w[A, B, C] ~ zeros
  return dot[A](x, w)
}
model M : x[A] -> [B, C] {
  sizes {
       A  B  C  E
    s  2  3  4  5
  }
"""


def spec_of(body: str, entries: str) -> str:
    return f'{HEAD}{body}}}\nweights M "org/m" {{\n{entries}}}\n'


def put(theirs: Theirs, ours: dict[str, Any]) -> Any:
    """The equation of weight_data, written with numpy."""
    found = np.full(theirs.axes, np.nan)
    for piece in theirs.pieces:
        box = tuple(slice(start, start + length) for start, length in piece.there)
        here = tuple(slice(start, start + length) for start, length in piece.here)
        view = found[box].transpose(piece.order)
        view[...] = ours[piece.parameter][here].reshape(view.shape)
    return found.reshape(theirs.shape)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[str, list[list[str]]]:
    """A layout of A, B, C (and the parts, 2, of a pair) in some order, some of them grouped."""
    axes = draw(st.permutations(["A", "B", "C", "2"]))
    cuts = sorted(draw(st.sets(st.integers(1, 3))))
    items = [axes[i:j] for i, j in zip([0, *cuts], [*cuts, 4], strict=True)]
    return ", ".join(f"({' '.join(item)})" if len(item) > 1 else item[0] for item in items), items


@given(layouts())
def test_pairs_in_any_layout(layout: tuple[str, list[list[str]]]) -> None:
    text, items = layout
    body = "  p : One[A, B, C]\n  q : One[A, B, C]\n  return p(x) + q(x)\n"
    (theirs,) = weight_map(text_spec(spec_of(body, f'  "t"[{text}] = (p.w, q.w)\n'))).tensors
    generator = np.random.default_rng(0)
    ours = {name: generator.standard_normal((2, 3, 4)) for name in ("p.w", "q.w")}
    order = "".join(axis for item in items for axis in item).replace("2", "P")
    wanted = np.einsum("PABC->" + order, np.stack([ours["p.w"], ours["q.w"]]))
    sizes = {**SIZES, "2": 2}
    assert theirs.shape == tuple(math.prod(sizes[axis] for axis in item) for item in items)
    assert np.array_equal(put(theirs, ours), wanted.reshape(theirs.shape))


def test_sums_banks_and_chains() -> None:
    body = """  a : One[A, B, C]
  b : One[A, E, C]
  many : bank E of One[A, B, C]
  row  : chain l in 3 of Linear[A, A](bias = false)
  return a(row(x)) + sum[E](many(x) + 0 * b(x))
"""
    entries = """  "sum"[(B + E), A, C] = (a.w, b.w)
  for e in E { "many.{e}"[C, (A B)] = many[e].w }
  "row"[O, 3, I] = row.w
"""
    text = spec_of(body, entries).replace("3, I]", "L, I]").replace("l in 3", "L")
    text = text.replace("A  B  C  E\n", "A  B  C  E  L\n").replace("2  3  4  5\n", "2  3  4  5  3\n")
    found = {one.name: one for one in weight_map(text_spec(text)).tensors}
    generator = np.random.default_rng(0)
    shapes = {"a.w": (2, 3, 4), "b.w": (2, 5, 4), "many.w": (5, 2, 3, 4), **{f"row.{at}.w": (2, 2) for at in range(3)}}
    ours = {name: generator.standard_normal(shape) for name, shape in shapes.items()}
    cat = np.concatenate([ours["a.w"], ours["b.w"]], 1)
    assert np.array_equal(put(found["sum"], ours), cat.transpose(1, 0, 2))
    for e in range(5):
        assert np.array_equal(put(found[f"many.{e}"], ours), ours["many.w"][e].transpose(2, 0, 1).reshape(4, 6))
    rows = np.stack([ours[f"row.{at}.w"] for at in range(3)])
    assert np.array_equal(put(found["row"], ours), rows.transpose(2, 0, 1))


def test_groups_of_heads_lie_side_by_side() -> None:
    """Falcon's layout: each group's queries, then its key and its value."""
    text = """use std
model M : x[T, D] -> [T, D] {
  sizes {
       D  H  G
    s  6  4  2
  }
  attn : Attention[D, H, G, K = 3](mask = causal)
  return attn(x)
}
weights M "org/m" {
  "qkv"[(G (R + 1 + 1) K), D] = (attn.q.w, attn.k.w, attn.v.w)
  "o"[D, (H K)]               = attn.o.w
}
"""
    found = weight_map(text_spec(text), "M").tensors[0]
    generator = np.random.default_rng(0)
    ours = {f"attn.{one}.w": generator.standard_normal((6, 4 if one == "q" else 2, 3)) for one in "qkv"}
    q = ours["attn.q.w"].reshape(6, 2, 2, 3)
    whole = np.concatenate([q, ours["attn.k.w"][:, :, None], ours["attn.v.w"][:, :, None]], 2)
    assert np.array_equal(put(found, ours), whole.transpose(1, 2, 3, 0).reshape(24, 6))


PLAIN = "  a : One[A, B, C]\n  b : Linear[A, E](bias = false)\n  return a(x) + 0 * sum[E](b(x))\n"
A, B = '  "a"[A, B, C] = a.w\n', '  "b"[E, A] = b.w\n'


@pytest.mark.parametrize(
    ("entries", "code", "word"),
    [
        (A, "E0804", "lacks b.w [2, 5]"),
        (A + B + '  "c"[A, B, C] = a.w\n', "E0803", "a.w is mapped twice"),
        (A + B + '  "a"[A, B, C] = a.w\n', "E0803", "`a` is mapped twice"),
        (B + '  "a"[A, B] = a.w\n', "E0802", "[C = 4] of a.w"),
        (B + '  "a"[A, B, C, E] = a.w\n', "E0802", "E = 5 is no axis"),
        (B + '  "a"[A, B, B, C] = a.w\n', "E0802", "has B of a.w twice"),
        (B + '  "a"[A, B, Q] = a.w\n', "E0802", "no dim `Q`"),
        (B + '  "a"[A, B, batch] = a.w\n', "E0802", "`batch` has no size of its own"),
        (B + '  "a"[A, B, 2 * C] = a.w\n', "E0802", "is no axis of a layout"),
        (B + '  "a"[2, A, B] = (a.w, a.w)\n', "E0802", "[C = 4]"),
        ('  "a"[A, B, C] = (a.w, b.w)\n', "E0802", "where the 2 parameters lie"),
        (A + '  "b"[E, A] = b.v\n', "E0801", "no parameter or state `v`"),
        (A + '  "b"[E, A] = b[0].w\n', "E0801", "only a chain or a bank"),
        (A + '  "b"[E, A] = b[batch].w\n', "E0801", "is no number here"),
        (A + B + '  for l in E { "c"[A] = a.w }\n', "E0802", "[B = 3, C = 4]"),
        (A + B + '  for l in E { "c{m}"[A, B, C] = a.w }\n', "E0201", "no dim `m`"),
        (A + B + '  tied "c"[A, B, C] = a.w when E\n', "E0303", "true or false"),
        (A + B + "  config { a = [1, a.w] }\n", "E0805", "a tensor"),
        (A + B + "  config { a = 1, a = 2 }\n", "E0803", "`a` is set twice"),
        (A + B + "  config { a = inf }\n", "E0805", "cannot hold inf"),
    ],
)
def test_what_is_wrong_is_said(entries: str, code: str, word: str) -> None:
    found = check_text(spec_of(PLAIN, entries), "m.partita")
    assert [item.code for item in found] == [code], [item.title for item in found]
    assert word in f"{found[0].title} {found[0].found}"
    assert found[0].span is not None


def test_extension_changes_and_adds() -> None:
    text = spec_of(PLAIN, A + B + '  config { k = 1, deep { a = 1, b = nothing } }\n  skip "x"\n')
    text += 'model N = M {}\nweights N "org/n" extends M {\n  "b"[A, E] = b.w\n  config { deep { b = E }, k = 2 }\n}\n'
    found = weight_map(text_spec(text), "N")
    assert {one.name: one.shape for one in found.tensors} == {"a": (2, 3, 4), "b": (2, 5)}
    assert found.config == {"k": 2, "deep": {"a": 1, "b": 5}}
    assert found.skips == ("x",)


def test_without_a_map() -> None:
    with pytest.raises(SpecError, match="no weight map of UNet"):
        weight_map(model_spec("unet"))
    text = spec_of(PLAIN, A + B).replace('"org/m"', '"org/m" extends M')
    assert [item.code for item in check_text(text, "m.partita")] == ["E0312"]


def test_every_size_of_a_size() -> None:
    text = spec_of(PLAIN, A + B) + 'weights M.s "org/s" {\n' + A + '  "other"[E, A] = b.w\n}\n'
    assert weight_map(text_spec(text), size="s").source == "org/s"
    again = text + 'weights M.s "org/s" {\n' + A + B + "}\n"
    assert [item.code for item in check_text(again, "m.partita")] == ["E0102"]


BANK = "  many : bank E of One[A, B, C]\n  return sum[E](many(x))\n"


@pytest.mark.parametrize(
    ("entries", "title"),
    [
        ('  for e in E { "m.{e}"[A, B, C] = many[e].w }\n', None),
        ('  for e in 5 { "m.{e}"[A, B, C] = many[e].w }\n', None),
        ('  for e in 4 { "m.{e}"[A, B, C] = many[e].w }\n', "lacks many.w"),
        ('  for e in 6 { "m.{e}"[A, B, C] = many[e].w }\n', "there is no 5 of E = 5"),
        ('  for e in 4 { "m.{e}"[A, B, C] = many[e + 1].w }\n', "lacks many.w"),
        ('  for e in 4 { "m.{e}"[A, B, C] = many[e + 1].w }\n  "m"[A, B, C] = many[0].w\n', None),
        ('  for e in E { "m.{e}"[A, B, C] = many[0].w }\n', "many.w is mapped twice"),
        ('  for e in E { "m"[A, B, C] = many[e].w }\n', "`m` is mapped twice"),
        ('  for e in E { "m.{e}"[A, B, C] = many[e].w when e > 0 }\n', "lacks many.w"),
    ],
)
def test_a_loop_over_a_bank_is_checked_as_if_unrolled(entries: str, title: str | None) -> None:
    found = check_text(spec_of(BANK, entries), "m.partita")
    assert len(found) == (title is not None)
    assert title is None or title in found[0].title


NORMED = """use std
model M : x[batch, C, Y, X] -> [batch, C, Y, X] {
  sizes {
       C  Y  X  L
    s  4  2  2  2
  }
  norms : chain L of BatchNorm[C]
  return norms(x)
}
weights M "org/m" {
  "gain"[L, C] = norms.gain
  "b"[L, C] = norms.b
"""
MEAN = '  for l in 2 { "{l}.running_mean"[C] = norms[l].mu }\n'


def test_states_are_mapped_or_left_out() -> None:
    found = weight_map(text_spec(NORMED + MEAN + "}\n"))
    assert found.states == {"norms.0.mu": (4,), "norms.1.mu": (4,)}
    assert not any(name.endswith((".mu", ".var")) for name in found.parameters)
    assert found.anew == ()
    assert [one.name for one in found.tensors][2:] == ["0.running_mean", "1.running_mean"]
    assert weight_map(text_spec(NORMED + "}\n")).states == {}


@pytest.mark.parametrize(
    ("entries", "code", "word"),
    [
        (MEAN + '  "again"[C] = norms[1].mu\n', "E0803", "norms.1.mu is mapped twice"),
        ('  "a"[C] = norms[0].nu\n', "E0801", "no parameter or state `nu`"),
        ('  "a"[C, C] = norms[0].mu\n', "E0802", "C of norms.0.mu twice"),
    ],
)
def test_what_is_wrong_with_a_state_is_said(entries: str, code: str, word: str) -> None:
    found = check_text(NORMED + entries + "}\n", "m.partita")
    assert [item.code for item in found] == [code], [item.title for item in found]
    assert word in found[0].title


COUNTED = """use std
block Count[A] : x[A] -> [A] {
  state used[A] = 0
  next used = used + 1
  return x + used
}
model M : x[A] -> [A] {
  sizes {
       A  E
    s  2  3
  }
  many : bank E of Count[A]
  return sum[E](many(x))
}
weights M "org/m" {
"""


@pytest.mark.parametrize(("loop", "title"), [("E", None), ("2", "lacks many.used [3, 2]")])
def test_a_state_of_a_bank_is_mapped_whole(loop: str, title: str | None) -> None:
    text = COUNTED + f'  for e in {loop} {{ "used.{{e}}"[A] = many[e].used }}\n}}\n'
    assert [item.title for item in check_text(text, "m.partita")] == (
        [] if title is None else [f"the weight map of M {title}"]
    )
