"""What an editor is told, asked of the functions that answer: hover, definition, completion; and of half-typed text."""

from __future__ import annotations

import random

import pytest
from generators.hostile import corpus, mutated
from partita.compiler.base.span import Source
from partita.tools.lsp.analysis import Analysis, analyse
from partita.tools.lsp.completion import completion, opening, sections
from partita.tools.lsp.definition import definition, path_of
from partita.tools.lsp.hover import hover
from samples.spec_texts import ROOT

TEXT = """use std

## Adds what it attends to.
block Layer[D, H] : x[T, D] -> [T, D] {
  ln   : LayerNorm[D]
  attn : Attention[D, H](mask = causal)
  mlp  : MLP[D, 4 * D]
  h = x + attn(ln(x))
  return h + mlp(h)
}

model Small : tokens[T] in V -> logits[T, V] {
  sizes {
          L  D   H  V
    tiny  2  64  4  256
  }
  embed  : Embedding[V, D]
  layers : chain L of Layer[D, H]
  y = layers(embed(tokens))
  return dot[D](y, embed.table)
}

train small {
  model = Small.tiny
  dims  = [T = 32]
  data { read = text("a.txt"), rows = chunk(T), target = next(tokens) }
  loss      = mean(cross_entropy[V](logits, target))
  batch     = 16
  steps     = 200
  optimizer = adamw(decay = 0.1)
  lr        = 3e-3
}
"""


def analysed(text: str = TEXT) -> Analysis:
    return analyse(Source("small.partita", text))


def place(mark: str, text: str = TEXT) -> int:
    """The offset of the `|` in a piece of the text."""
    before, after = mark.split("|")
    assert text.count(before + after) == 1, mark
    return text.index(before + after) + len(before)


def said(mark: str) -> str:
    found = hover(analysed(), place(mark))
    assert found is not None, mark
    return found[0]


def proposed(text: str) -> list[str]:
    """What is proposed at the `|` of a text."""
    at = text.index("|")
    return [one.text for one in completion(analysed(text.replace("|", "", 1)), at)]


def test_the_sample_is_clean():
    assert analysed().diagnostics == ()


def test_hover_tells_dims_and_sizes():
    assert "h : [batch = 16, T = 32, D = 64]" in said("  |h = x + attn")
    assert "carried through, cannot be named here:* batch" in said("  |h = x + attn")
    assert "tokens : i64 [batch = 16, T = 32]" in said("embed(tok|ens)")
    assert "dim D = 64" in said("chain L of Layer[|D, H]")
    assert "dim T = 32" in said("block Layer[D, H] : x[|T, D]")


def test_hover_tells_parameters():
    assert "attn : Attention[D = 64, H = 4, G = 4, K = 16, R = 1]" in said("x + at|tn(ln(x))")
    assert "16,384 parameters" in said("x + at|tn(ln(x))"), "4 square matrices of 64"
    assert "a layer" in said("  lay|ers : chain")
    assert "chain L = 2 of Layer[D = 64, H = 4]" in said("  lay|ers : chain")


def test_hover_tells_flops():
    """Two for each multiply-add: 16 * 32 tokens, 256 words, 64 wide."""
    assert f"{2 * 16 * 32 * 256 * 64 / 1e6:.3g} MFLOP forward" in said("return dot[D](y, embed.table)|")


def test_hover_says_which_sizes_it_assumes():
    text = TEXT[: TEXT.index("train small")]
    found = hover(analysed(text), place("return dot[D](y, embed.table)|", text))
    assert found is not None
    assert "at batch = 1, T = 1,024" in found[0]
    found = hover(analysed(text), place("  |h = x + attn", text))
    assert found is not None
    assert "h : [batch, T, D = 64]" in found[0], "what nobody said is not shown as if somebody had"


def test_hover_shows_declarations_with_their_comments():
    assert "block LayerNorm[D](" in said("  ln   : Layer|Norm[D]")
    assert "fn causal[T, S]" in said("mask = cau|sal")
    assert "Adds what it attends to." in said("chain L of Lay|er[D, H]")


def test_hover_explains_the_keys_of_records():
    assert "**batch**" in said("  bat|ch     = 16")
    assert "required" in said("  bat|ch     = 16")
    assert "how they are cut into rows" in said(", ro|ws = chunk")


@pytest.mark.parametrize(
    "mark, declared, file",
    [
        ("x + at|tn(ln(x))", "attn", "small.partita"),
        ("ln   : Layer|Norm[D]", "LayerNorm", "norm.partita"),
        ("Attention[D, H](ma|sk = causal)", "mask", "attention.partita"),
        ("Attention[D, H](mask = caus|al)", "causal", "attention.partita"),
        ("y, embed.tab|le)", "table", "linear.partita"),
        ("chain L of Lay|er[D, H]", "Layer", "small.partita"),
        ("chain |L of Layer", "L", "small.partita"),
        ("Small.ti|ny", "", ""),
        ("model = Sma|ll.tiny", "Small", "small.partita"),
        ("return h + mlp(|h)", "h", "small.partita"),
        ("cross_ent|ropy[V](logits", "cross_entropy", "losses.partita"),
        ("use s|td", "", "specs/std"),
    ],
)
def test_definition(mark: str, declared: str, file: str):
    found = definition(analysed(), place(mark))
    if not file:
        assert found is None
        return
    assert found is not None
    assert found.text == declared
    assert file in found.source.path
    assert file.endswith("small.partita") or path_of(found.source).is_file()


def test_completion_knows_where_it_is():
    head = TEXT[: TEXT.index("  mlp  :")]
    assert {"Linear", "Layer", "chain"} <= set(proposed(head + "  f : |\n}\n"))
    assert "T" in proposed(head + "  y = x[|\n}\n")
    assert "D" in proposed(head + "  f : Linear[D, |\n}\n")
    assert {"mask = ", "bias = ", "causal", "attn"} <= set(proposed(head + "  f : Attention[D, H](|\n}\n"))
    assert {"attn", "x", "gelu", "dot", "return"} <= set(proposed(head + "  |\n}\n"))
    assert "I = " in proposed(head + "  f : Linear[|\n}\n")
    assert {"use", "model", "train"} <= set(proposed(TEXT + "|"))
    assert "std" in proposed("use |")
    assert proposed(head + "  # a comment |\n}\n") == []


def test_completion_knows_records():
    open_record = TEXT[: TEXT.index("  batch     =")]
    keys = proposed(open_record + "  |\n}\n")
    assert {"batch", "steps", "optimizer", "checkpoint"} <= set(keys)
    assert "return" not in keys
    assert {"every", "keep"} <= set(proposed(open_record + "  checkpoint {\n    |\n  }\n}\n"))
    assert {"warmup(", "cosine("} <= set(proposed(open_record + "  lr = |\n}\n"))
    assert {"adamw"} <= set(proposed(open_record + "  optimizer = |\n}\n"))
    assert {"bf16", "mixed("} <= set(proposed(open_record + "  precision = |\n}\n"))


def test_completion_while_the_rest_is_broken():
    broken = TEXT.replace("  y = layers(embed(tokens))", "  y = layers(embed(|")
    assert {"layers", "tokens"} <= set(proposed(broken))


def test_where_a_place_is():
    assert opening("  y : Attention[D, H](mask = causal, ") == ("(", "Attention")
    assert opening("  y = f(g(x), h[") == ("[", "h")
    assert opening("  y = f(x)") == ("", "")
    assert opening("  y = f(\n    a,\n    ") == ("(", "f")
    assert sections("train a {\n  data { read = 1 ") == ["train", "data"]
    assert sections("train a {\n  data { read = 1 }\n") == ["train"]
    assert sections("train a {\n}\nmodel M : x[D]") == []


@pytest.mark.parametrize("seed", range(4))
def test_half_typed_text_is_answered(seed: int):
    """Whatever is being typed, and wherever the hand is: answers or none, never a fault."""
    rng = random.Random(seed)
    for _ in range(12):
        text = mutated(rng, rng.choice((TEXT, *corpus())))
        text = text[: rng.randrange(len(text) + 1)] if rng.random() < 0.5 else text
        analysis = analysed(text)
        for _ in range(12):
            at = rng.randrange(len(text) + 1)
            hover(analysis, at)
            definition(analysis, at)
            completion(analysis, at)


def test_every_prefix_is_answered():
    for at in range(0, len(TEXT), 9):
        analysis = analysed(TEXT[:at])
        completion(analysis, at)
        hover(analysis, at - 1)
        definition(analysis, at - 1)


def test_everything_in_a_model_can_be_asked():
    for name in ("unet", "t5", "mixtral", "vit"):
        text = (ROOT / f"specs/models/{name}.partita").read_text("utf-8").split("\nweights ")[0]
        analysis = analysed(text)
        told = sum(hover(analysis, at) is not None for at in range(0, len(text), 7))
        assert told > len(text) / 7 / 5, "there is something to say of most of it"
