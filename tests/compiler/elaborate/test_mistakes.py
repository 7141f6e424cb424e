"""The typical mistakes: each is caught, in words that say what to do, where it is and where it was called."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from partita.compiler.base.diagnostic import Diagnostic, render
from partita.compiler.elaborate.check import check_text

LAYER = """use std

block Layer[D, H, F] : x[T, D] -> [T, D] {{
  ln   : LayerNorm[D]
  attn : Attention[D, H{groups}](mask = causal)
  up   : Linear[D, F]({options})
  down : Linear[F, D]

  h = x + {attend}
  return {result}
}}

model M : tokens[T] in V -> logits[T, V] {{
  sizes {{
       L  D   H  F   V
    s  2  16  4  64  50
  }}
  embed  : Embedding{embedding}
  layers : chain L of Layer[D, H, F]
  head   : Linear[D, V](bias = false)
  return head(layers(embed(tokens)))
}}
"""
RIGHT = {
    "groups": "",
    "options": "",
    "attend": "attn(ln(x))",
    "result": "h + down(gelu(up(h)))",
    "embedding": "[V, D]",
}


def layer(**changes: str) -> Sequence[Diagnostic]:
    return check_text(LAYER.format(**{**RIGHT, **changes}), "spec.partita")


def only(found: Sequence[Diagnostic], code: str) -> str:
    assert [item.code for item in found] == [code], [item.title for item in found]
    return render(found[0])


def test_the_text_without_a_mistake():
    assert layer() == ()


def test_embedding_the_wrong_way_round():
    text = only(layer(embedding="[D, V]"), "E0209")
    assert "ids in [V = 50] do not fit Embedding with V = 16" in text
    assert "are the dims in the right order?" in text


def test_option_given_to_a_call():
    text = only(layer(attend="attn(ln(x), mask = causal)"), "E0313")
    assert "`attn` has no input `mask`" in text
    assert "options go where it is made: `Attention[…](mask = causal)`" in text


def test_if_on_a_tensor():
    text = only(layer(result="if h > 0 then h else x"), "E0307")
    assert "`if` chooses while compiling; this is a tensor" in text
    assert "where(" in text


def test_mixing_an_axis_that_is_only_carried():
    spec = """use std
block Layer[D, H] : x[D] -> [D] {
  attn : Attention[D, H](mask = causal)
  return x + attn(x)
}
model M : x[T, D] -> [T, D] {
  sizes {
       D  H
    s  8  2
  }
  layer : Layer[D, H]
  return layer(x)
}
"""
    found = check_text(spec, "spec.partita")
    text = only(found, "E0202")
    assert "`attn` mixes T, which is only carried through block Layer" in text
    assert "add T to the signature of block Layer" in text
    assert len(found[0].labels) == 3


def test_instance_that_is_not_applied():
    text = only(layer(attend="attn"), "E0105")
    assert "`attn` is an instance of Attention, not a tensor" in text
    assert "attn(x)" in text


def test_sum_of_two_widths():
    found = layer(result="h + up(h)")
    text = only(found, "E0212")
    assert "here [T, D = 16] met [T, F = 64]: the result has every axis of both" in text
    assert found[0].labels[0].span.text == "+"


def test_keys_without_a_name_of_their_own():
    spec = """use std
block Own[D, H] : x[T, D] -> [T, D] {
  dim K = D / H, R = 1
  q : Linear[D, (H K)]
  k : Linear[D, (H K)]
  o : Linear[(H K), D]
  y = attention[T, S, K, H, R](q(x)[H -> (H R)], k(x), k(x), mask = causal)
  return o(y[(H R) -> H])
}
model M : x[T, D] -> [T, D] {
  sizes {
       D  H
    s  8  2
  }
  own : Own[D, H]
  return own(x)
}
"""
    found = check_text(spec, "spec.partita")
    assert found[0].code == "E0201"
    assert "S is T under another name: write `k(x)[T -> S]`" in render(found[0])


def test_heads_that_do_not_fit():
    text = only(layer(groups=", 3"), "E0211")
    assert "query heads 4 must be a multiple of key-value heads 3" in text
    assert "attn : Attention[D, H, 3]" in text


def test_misspelt_option():
    text = only(layer(options="bais = false"), "E0301")
    assert "Linear has no option `bais`" in text
    assert "did you mean `bias`?" in text


def test_several_faults_in_one_run():
    found = layer(attend="atn(ln(x))", result="h + down(glu(up(h)))")
    assert [item.code for item in found] == ["E0101", "E0101"]
    assert "did you mean `attn`?" in render(found[0])


def test_a_fault_inside_std_shows_the_caller_too():
    found = layer(result="h + down(gelu(up))")
    assert found[0].code == "E0105"
    assert [label.span.source.path for label in found[0].labels][-1] == "spec.partita"


def test_next_token_without_a_causal_mask():
    recipe = """
train t {
  model = M.s
  dims  = [T = 8]
  data { read = text("x.txt"), rows = chunk(T), target = next(tokens) }
  loss      = mean(cross_entropy[V](logits, target))
  batch     = 4
  steps     = 10
  lr        = 1e-3
  optimizer = adamw(decay = 0)
}
"""
    spec = LAYER.format(**RIGHT) + recipe
    assert check_text(spec, "spec.partita") == ()
    text = only(check_text(spec.replace("(mask = causal)", ""), "spec.partita"), "E0316")
    assert "what the loss predicts at t sees tokens[T = t + 1], which is `target`" in text
    assert "mask = causal" in text


HOSTILE = {
    "a chain without end": "block B[D] : x[D] -> [D] {\n  return x + 1\n}\n"
    "model M : x[D] -> [D] {\n  a : chain 1000000000000 of B[D]\n  return a(x)\n}\n",
    "a long chain of layers": "block B[D] : x[D] -> [D] {\n  return x + 1\n}\n"
    "model M : x[D] -> [D] {\n  a : chain 1999999 of B[D]\n  return a(x)\n}\n",
    "a block that contains itself": "block B[D] : x[D] -> [D] {\n  b : B[D]\n  return b(x)\n}\n"
    "model M : x[D] -> [D] {\n  b : B[4]\n  return x\n}\n",
    "two blocks that contain each other": "block A[D] : x[D] -> [D] {\n  b : B[D]\n  return b(x)\n}\n"
    "block B[D] : x[D] -> [D] {\n  a : A[D]\n  return a(x)\n}\nmodel M : x[D] -> [D] {\n  b : B[4]\n  return x\n}\n",
    "a function of itself": "fn f(x) = f(x) + 1\nmodel M : x[D] -> [D] {\n  return f(x)\n}\n",
    "a tower of functions": "fn f0(x) = x + 1\n"
    + "".join(f"fn f{n}(x) = f{n - 1}(f{n - 1}(x))\n" for n in range(1, 60))
    + "model M : x[D] -> [D] {\n  return f59(x)\n}\n",
    "a tower of numbers": "fn f0(x) = x + 1\n"
    + "".join(f"fn f{n}(x) = f{n - 1}(f{n - 1}(x))\n" for n in range(1, 60))
    + "model M : x[D] -> [D] {\n  return f59(1) * x\n}\n",
    "a lower tower": "fn f0(x) = x + 1\n"
    + "".join(f"fn f{n}(x) = f{n - 1}(f{n - 1}(x))\n" for n in range(1, 25))
    + "model M : x[D] -> [D] {\n  return f24(x)\n}\n",
    "a huge power": "model M : x[D] -> [D] {\n  return 9 ^ 9 ^ 9 ^ 9 * x\n}\n",
    "a huge dim": "model M : x[D] -> [D] {\n  dim A = 99999999999999999999\n  return x\n}\n",
    "a huge parameter": "model M : x[T] -> [T] {\n  dim A = 999999999999, B = 999999999999\n  param w[A, B] ~ zeros\n"
    "  return x\n}\n",
    "chains of chains": "".join(
        f"block B{n}[D] : x[D] -> [D] {{\n  a : chain 100 of B{n - 1}[D]\n  return a(x)\n}}\n" for n in range(1, 9)
    )
    + "block B0[D] : x[D] -> [D] {\n  return x + 1\n}\nmodel M : x[D] -> [D] {\n  b : B8[4]\n  return b(x)\n}\n",
    "wide layers by number": "block B[D](n) : x[D] -> [D] {\n  param w[D] ~ zeros\n  return x + n * w\n}\n"
    "model M : x[D] -> [D] {\n  dim D = 4\n  a : chain i in 500000 of B[D](i)\n  return a(x)\n}\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_specs_end_in_a_diagnostic(text: str):
    found = check_text(text, "hostile.partita")
    assert found
    assert all(item.code.startswith("E0") for item in found)
