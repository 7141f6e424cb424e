"""Records: `--set`, and every way in which a record may be wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partita.compiler.base.diagnostic import SpecError, render_all
from partita.compiler.elaborate.merge import parse_set
from partita.compiler.elaborate.recipe import Evaluation
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.elaborate.records import find
from records_support import faults, recipe, spec_of

# ---- --set


def test_set_reaches_sections_lists_forms_and_patterns():
    found = recipe(
        "", "base", "dims.T=64", "steps=20", "eval.every=5", "optimizer.decay=0.2", "batch=512 tokens", "clip=none"
    )
    assert found.rows is not None
    assert (found.dims, found.rows.length, found.steps, found.batch) == ({"T": 64}, 64, 20, 8)
    assert found.evaluate == Evaluation(5)
    assert found.optimizer[-1].options["decay"] == 0.2
    assert found.clip is None
    found = recipe('train o extends base { optimizer { "*" = sgd() } }', "o", 'optimizer."*.b"=adam(lr = 0.1)')
    assert [item.pattern for item in found.optimizer] == ["*.b", "*"]


def test_set_points_into_its_own_text():
    ((code, text),) = faults("eval.evry=5")
    assert code == "E0401"
    assert "--> --set:1:6" in text
    assert "eval.evry=5\n" in text
    assert "did you mean `every`?" in text


@pytest.mark.parametrize("text", ["", "batch", "=3", "batch==3", "a..b=3", "9=3", 'o."x".y=1'])
def test_settings_that_are_none(text: str):
    with pytest.raises(SpecError, match="E0410"):
        parse_set(text)


@pytest.mark.parametrize(
    "text", ["batch=", "batch=(", "batch=3 }", "batch=3\nsteps=4", "batch=3 } train x {", "batch=#"]
)
def test_values_that_are_none(text: str):
    with pytest.raises(SpecError) as caught:
        parse_set(text)
    assert all(item.span is None or item.span.source.text == text for item in caught.value.diagnostics)
    assert render_all(caught.value.diagnostics)


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_setting_gives_an_entry_or_diagnostics(text: str):
    try:
        parse_set(text)
    except SpecError as error:
        assert render_all(error.diagnostics)


@given(st.text(alphabet='abT.=()[]{}"*, 019\n|>-+^', max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_value_gives_a_recipe_or_diagnostics(text: str):
    try:
        load_recipe(SPEC, "base", [f"lr={text}"])
    except SpecError as error:
        assert render_all(error.diagnostics)


SPEC = spec_of()


# ---- what is wrong


@pytest.mark.parametrize(
    ("setting", "code", "parts"),
    [
        ("stps=3", "E0401", ["no key `stps`", "did you mean `steps`?"]),
        ("log.tensorboard=3", "E0401", ["`log` has no key"]),
        ('"*.w"=3', "E0401", ["no key `*.w`"]),
        ("optimizer=adamw(decya = 0.1)", "E0401", ["`adamw` has no option `decya`", "did you mean `decay`?"]),
        ("clip=true", "E0402", ["a number above 0 or `none`", "found: `true`"]),
        ("data=3", "E0402", ["`data` is a section"]),
        ("steps.x=3", "E0402", ["`steps` is not a section"]),
        ("steps=2.5", "E0402", ["a whole number"]),
        ("precision=f33", "E0411", ["did you mean `f32`?"]),
        ("dims=[64]", "E0402", ["a list of names such as [T = 128]"]),
        ("model=1 + 2", "E0402", ["a model such as `GPT2`"]),
        ("model=Bigrm", "E0411", ["no model `Bigrm`", "did you mean `Bigram`?"]),
        ("lr=cosine(1, to = 2) |> warmup(1, 2)", "E0402", ["`warmup` cannot follow `cosine`"]),
        ("data.read=tokens(3)", "E0402", ["a string"]),
        ("data.read=tokens(dtype = uint7)", "E0402", ["did you mean `uint8`?"]),
        ("lr=constant(1, 2, 3)", "E0402", ["`constant` takes 2 arguments"]),
        ("eval.share=0.5 GiB", "E0403", ["in bytes"]),
        ("steps=3 seconds", "E0403", ["a count such as `1000 steps`", "in seconds"]),
        ("clip=1 steps", "E0403", ["a number above 0"]),
        ("lr=warmup(1)", "E0404", ["`warmup` lacks `over`"]),
        ("lr=warmup(1, 2, peak = 3)", "E0405", ["`peak` is given twice"]),
        ("optimizer=adamw(beta1 = 0.1, betas = (0.1, 0.2))", "E0405", ["`betas` has it"]),
        ("dims=[T = 4, T = 8]", "E0405", ["bound twice"]),
        ("batch=1000 tokens", "E0408", ["896 tokens (`batch = 7`) or 1,024 tokens (`batch = 8`)"]),
        ("microbatches=5", "E0408", ["10 rows or 15 rows"]),
        ("optimizer=gelu()", "E0411", ["no optimizer `gelu`"]),
        ("data.rows=chnk(T)", "E0411", ["did you mean `chunk`?"]),
        ("eval.share=1.2", "E0412", ["at most 0.9"]),
        ("lr=-1", "E0412", ["at least 0"]),
        ("microbatches=0", "E0412", ["at least 1"]),
        ("data.rows=chunk(S)", "E0415", ["`dims` does not bind `S`"]),
        ("trace.at=1000000000", "E0402", ["there is no step 1,000,000,000 in a training of"]),
        ('export.format="gguf"', "E0402", ["`format` cannot be this"]),
        ("precision=fp8()", "E0416", ["`fp8` is not built yet"]),
    ],
)
def test_each_fault_has_its_message(setting: str, code: str, parts: list[str]):
    found = faults(setting)
    assert [item for item, _ in found] == [code]
    for part in parts:
        assert part in found[0][1]


def test_several_faults_come_in_one_run():
    codes = [code for code, _ in faults("stps=3", "clip=true", "batch=13 GiB")]
    assert codes == ["E0402", "E0403", "E0401"] or sorted(codes) == ["E0401", "E0402", "E0403"]


def test_which_record():
    assert load_recipe(spec_of()).name == "base"
    for text, name, part in (
        ("train a extends base { seed = 1 }", None, "there are 2"),
        ("", "bse", "did you mean `base`?"),
    ):
        with pytest.raises(SpecError, match=r"E0409") as caught:
            load_recipe(spec_of(text), name)
        assert part in str(caught.value).replace("\n", " ")
    with pytest.raises(SpecError, match="no cluster record"):
        find(spec_of().records, "cluster", "x")
