"""What newcomers write, and what they are told: the message alone must say how it is mended."""

from __future__ import annotations

import pytest
from partita.compiler.base.diagnostic import render_all
from partita.compiler.elaborate.check import check_text

SPEC = """use std

block Block[D, H, F](drop = 0.1) : x[T, D] -> [T, D] {
  ln1  : LayerNorm[D]
  attn : Attention[D, H](mask = causal, bias = true)
  ln2  : LayerNorm[D]
  mlp  : MLP[D, F](act = gelu_tanh)

  h = x + dropout(attn(ln1(x)), drop)
  return h + dropout(mlp(ln2(h)), drop)
}

model Small(drop = 0.1) : tokens[T] in V -> logits[T, V] {
  sizes {
          L  D   H  F    V    N
    tiny  2  64  4  256  256  128
  }
  wte    : Embedding[V, D]
  wpe    : Embedding[N, D]
  blocks : chain L of Block[D, H, F](drop)
  ln_f   : LayerNorm[D]
  x = wte(tokens) + wpe(index[T])
  return dot[D](ln_f(blocks(x)), wte.table)
}

train t {
  model = Small.tiny
  dims  = [T = 64]
  data { read = text("a.txt"), rows = chunk(T), target = next(tokens) }
  loss      = mean(cross_entropy[V](logits, target))
  batch     = 32
  steps     = 100
  optimizer = adamw(decay = 0.1)
  lr        = warmup(6e-4, 20 steps) |> cosine(to = 6e-5)
}
"""

# what was written, what somebody makes of it, and what the message says
MISTAKES = {
    "another language's import": ("use std", "import std", "no declaration begins with `import`", "use std"),
    "another language's function": ("block Block", "def Block", "no declaration begins with `def`", "a block"),
    "a call of a method": (
        "dropout(attn(ln1(x)), drop)",
        "attn(ln1(x)).dropout(drop)",
        "has no parts",
        "dropout(x, …)",
    ),
    "without std": ("use std\n", "", "there is no block `LayerNorm`", "`use std` at the top"),
    "a module of torch": ("ln1  : LayerNorm", "ln1  : nn.LayerNorm", "there is no block", "write LayerNorm"),
    "True": ("bias = true", "bias = True", "there is no `True`", "did you mean `true`?"),
    "None": ("bias = true", "rope = None", "there is no `None`", "did you mean `none`?"),
    "dims in parentheses": (
        "Block[D, H, F](drop)",
        "Block(D, H, F)",
        "needs its dims",
        "dims stand in brackets: Block[",
    ),
    "a size for positions": ("wpe(index[T])", "wpe(T)", "takes ids, this is the size", "index[T]"),
    "@": ("return dot[D](ln_f(blocks(x)), wte.table)", "return ln_f(x) @ wte.table", "`@`", "dot[D](x, w)"),
    "a comment of C": ("wpe(index[T])", "wpe(index[T])  // positions", "found `/`", "a comment begins with #"),
    "no return": ("return h +", "h +", "found `+`", "or return it"),
    "a colon for a value": ("h = x +", "h : x +", "found `+`", "a value is computed with `=`"),
    "an equals sign for an instance": (
        "ln1  : Layer",
        "ln1  = Layer",
        "is a block, not a value",
        "make an instance of it",
    ),
    "no arrow": ("in V -> logits", "in V : logits", "found `:`", "stands behind `->`"),
    "a dict": ("[T = 64]", "{ T = 64 }", "found `{`", "in a list are [T = 128]"),
    "torch's name of an option": (
        "decay = 0.1",
        "weight_decay = 0.1",
        "no option `weight_decay`",
        "did you mean `decay`?",
    ),
    "a unit that is none": ("20 steps", "20 iterations", "found `iterations`", "steps, epochs, tokens"),
    "a size misspelt": ("Small.tiny", "Small.tinny", "Small has no size `tinny`", "did you mean `tiny`?"),
    "British spelling": ("  optimizer", "  optimiser", "no key `optimiser`", "did you mean `optimizer`?"),
    "an instance not applied": (
        "h + dropout(mlp(ln2(h)), drop)",
        "h + mlp",
        "is an instance of MLP",
        "apply it: mlp(x)",
    ),
    "Python's power": ("h + dropout(mlp(ln2(h)), drop)", "h ** 2", "expected an expression", "a power is x ^ 2"),
    "a chain as a call": ("chain L of Block[D, H, F](drop)", "chain(L, Block[D, H, F])", "found `,`", "chain L of"),
    "a shape": ("mlp(ln2(h))", "mlp(ln2(h)) * h.shape", "has no parts", "the name of its dim"),
    "time forgotten": (": x[T, D] -> [T, D]", ": x[D] -> [D]", "mixes T", "add T to the signature"),
}


# The same of a model of sounds, by what its message must say.
HEARD = """use std

model Heard : audio[A, M], tokens[T] in V -> logits[T, V] {
  dim V = 5, M = 3, A = 8, D = 4, P = 1, Q = 3
  conv  : Conv1[M, D]
  embed : Embedding[V, D]
  head  : Linear[D, V]
  a, b = split[D -> P + Q](conv[T = A](audio))
  best = top[M](audio, 2)
  return head(embed(tokens) + mean[A](concat[Q + P -> D](b, a)) + mean[A, M](where(best, audio, 0)))
}
"""
UNHEARD = {
    "an axis by another name": ("conv[T = A](audio)", "conv(audio)", "needs the axis T", "conv[T = A](…)"),
    "a product without its sign": ("split[D ->", "split[2 D ->", "found `D`", "a product of sizes is 2 * D"),
    "an option that is an argument": ("(audio, 2)", "(audio, k = 2)", "no option `k`", "top[E](x, 2)"),
    "an argument too few": ("top[M](audio, 2)", "top[M](audio)", "takes 2 arguments", "top[E](x, 2)"),
    "parts that are not said": ("split[D -> P + Q]", "split[D]", "what becomes of the axis", "split[K -> N + M](x)"),
}


@pytest.mark.parametrize("name", UNHEARD)
def test_the_message_tells_the_form(name: str):
    right, wrong, title, hint = UNHEARD[name]
    assert right in HEARD
    assert check_text(HEARD, "heard.partita") == ()
    found = check_text(HEARD.replace(right, wrong, 1), "heard.partita")
    assert any(title in item.title and hint in (item.hint or "") for item in found), render_all(found)


def test_a_parameter_that_begins_nowhere():
    (found, *_) = check_text("block B[D] : x[D] -> [D] {\n  param w[D]\n  return x * w\n}\n", "spec.partita")
    assert "~ normal(0.02)" in (found.hint or "")


def test_an_axis_that_came_in_before_a_chain_is_shown_there():
    text = HEARD.replace("  best =", "  also = audio + zeros[Q]\n  deep = layers(mean[A, M](audio), also)\n  best =")
    text = text.replace("  head  :", "  layers : chain P of Deep[M]\n  head  :") + (
        "\nblock Deep[M] : x, y[M] -> [] {\n  return x + mean[M](y)\n}\n"
    )
    assert "layers" in text and "Deep" in text
    found = check_text(text, "heard.partita")
    assert any("met" in label.text for item in found for label in item.labels), render_all(found)


def test_the_spec_is_right():
    assert check_text(SPEC, "spec.partita") == ()


@pytest.mark.parametrize("name", MISTAKES)
def test_the_message_says_how_it_is_mended(name: str):
    right, wrong, title, hint = MISTAKES[name]
    assert right in SPEC
    found = check_text(SPEC.replace(right, wrong, 1), "spec.partita")
    assert any(title in item.title and hint in (item.hint or "") for item in found), render_all(found)


def test_a_size_is_pointed_at_where_it_is_asked_for():
    (found,) = check_text(SPEC.replace("Small.tiny", "Small.tinny"), "spec.partita")
    assert found.span is not None
    assert found.span.text == "Small.tinny"
