"""Several updates in a record: what each says itself, what it takes from the record, what is refused."""

from __future__ import annotations

import pytest
from partita.compiler.base.diagnostic import SpecError, render_all
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.recipe import Recipe
from partita.compiler.elaborate.recipes import load_recipe
from samples.spec_texts import text_spec

HEAD = """use std
model M : x[I], z[batch, Z] -> a[batch], b[batch] {
  dim I = 4, Z = 3, One = 1
  f : Linear[I, One]
  g : Linear[Z, One]
  return f(x)[One = 0], g(z)[One = 0]
}
train t {
  model = M
"""
DATA = '  data { x = tensors("x.npy"), z = noise(Z) }\n'
REST = "  batch = 4\n  steps = 10\n"
TWO = """  optimizer = sgd(momentum = 0.5)
  lr = 0.1
  update first { params = ["f.*"], loss = mean(a ^ 2), repeat = 3 }
  update second { params = ["g.*"], loss = mean(b), lr = 0.2, optimizer { "*.w" = adam(), "*" = sgd() } }
"""


def recipe(body: str, data: str = DATA) -> Recipe:
    return load_recipe(text_spec(HEAD + data + REST + body + "}\n"), "t")


def test_an_update_takes_what_it_lacks_from_the_record() -> None:
    found = recipe(TWO)
    first, second = found.turns
    assert (first.program, second.program) == ("step.first", "step.second")
    assert [(turn.repeat, turn.schedule.peak) for turn in found.turns] == [(3, 0.1), (1, 0.2)]
    assert [group.function for group in first.optimizer] == ["sgd"]
    assert [group.function for group in second.optimizer] == ["adam", "sgd"]
    assert found.tokens_per_step == 16 and first.turns == (first,)


def test_a_record_without_updates_is_a_single_turn() -> None:
    found = recipe("  loss = mean(a) + mean(b)\n  optimizer = adam(lr = 0.1)\n")
    assert found.turns == (found,) and found.program == "step" and found.schedule.peak == 0.1


@pytest.mark.parametrize(
    ("body", "data", "code", "words"),
    [
        ("  update u { loss = mean(a) }\n", DATA, "E0404", "`update` lacks `optimizer`"),
        ("  update u { optimizer = adam(lr = 1) }\n", DATA, "E0404", "`update` lacks `loss`"),
        ("  update u { loss = mean(a), optimizer = adam() }\n", DATA, "E0404", "`update` lacks `lr`"),
        ("  loss = mean(a)\n  optimizer = adam()\n", DATA, "E0404", "`train` lacks `lr`"),
        (TWO.replace("second", "first"), DATA, "E0405", "`update` is given twice"),
        (TWO.replace("repeat = 3", "repeat = 0"), DATA, "E0412", "at least 1"),
        (TWO.replace('"f.*"', '"h.*"'), DATA, "E0418", "`h.*`"),
        (TWO + '  plan { recompute = ["h*"] }\n', DATA, "E0421", "`h*`"),
        (TWO, DATA.replace("noise(Z)", "noise(I)"), "E0419", "the model reads `z` as"),
        (TWO, DATA.replace("noise(Z)", "noise(Q)"), "E0201", "no dim Q"),
        (TWO, DATA.replace("{ ", '{ read = text("a"), rows = chunk(4), '), "E0402", "`x` has rows of its own"),
        (TWO, DATA.replace(")", ', below = Q), y = tensors("y.npy", below = Q)', 1), "E0201", "no dim Q"),
        (TWO + '  eval { data = text("a") }\n', DATA, "E0402", "`data` is for a stream of ids"),
        (TWO + '  params = ["*"]\n', "", "E0404", "`train` lacks `data`"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(body: str, data: str, code: str, words: str) -> None:
    found = check_text(HEAD + data + REST + body + "}\n", "t.partita")
    assert code in {item.code for item in found}, render_all(found)
    assert words in render_all(found)


def test_tokens_are_no_measure_of_rows_without_any() -> None:
    with pytest.raises(SpecError) as caught:
        load_recipe(text_spec(HEAD + DATA + REST + TWO + "}\n"), "t", ["batch=8 tokens"])
    assert [item.code for item in caught.value.diagnostics] == ["E0403"]
