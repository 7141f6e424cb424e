"""A plan's pipeline: its schedule, microbatches and balance as they are written, and what does not fit."""

from __future__ import annotations

import pytest
from partita.compiler.elaborate.recipe import Plan
from partita.compiler.elaborate.schema_forms import PIPELINE_FORMS
from partita.compiler.schedule.forms import FORMS, parse_form
from records_support import faults, recipe

MESH = "plan.mesh=[pipe = 2]"
WRITTEN = {
    '"1f1b"': "1f1b",
    "gpipe": "gpipe",
    "interleaved": "interleaved",
    "interleaved(3)": "interleaved(3)",
    "zero_bubble": "zero_bubble",
    "zero_bubble_v": "zero_bubble_v",
    "list(2)": "list(2)",
    "token_slices(4)": "token_slices(4)",
    "token_slices(64, 48, 16)": "token_slices(64, 48, 16)",
    "token_slices([64, 48, 16])": "token_slices(64, 48, 16)",
}


def plan(*sets: str) -> Plan:
    found = recipe("", "base", *sets).plan
    assert found is not None
    return found


@pytest.mark.parametrize("text", WRITTEN)
def test_every_schedule_is_read(text: str) -> None:
    found = plan(MESH, f"plan.schedule={text}").schedule
    assert found == WRITTEN[text]
    assert parse_form(found).name == found.partition("(")[0]


def test_the_language_knows_the_schedules_that_are_there() -> None:
    assert {form.name for form in PIPELINE_FORMS.forms} | {"1f1b"} == set(FORMS)


def test_what_is_not_written_has_a_default() -> None:
    assert (plan(MESH).schedule, plan(MESH).balance) == ("1f1b", ())
    assert recipe("", "base").plan is None


def test_the_balance_counts_the_chunks() -> None:
    assert plan(MESH, "plan.balance=[1, 2]").balance == (1, 2)
    assert plan(MESH, "plan.balance=[1, 2, 1, 2]", "plan.schedule=interleaved").balance == (1, 2, 1, 2)
    assert plan("plan.schedule=gpipe", "plan.balance=[1]").mesh == ()  # the command line brings the mesh


def test_the_plans_microbatches_come_before_the_recipes() -> None:
    assert recipe("", "base", "microbatches=2").microbatches == 2
    assert recipe("", "base", "microbatches=2", "plan.microbatches=4").microbatches == 4
    ((code, text),) = faults("plan.microbatches=5")
    assert code == "E0408"
    assert "in 5 microbatches" in text


@pytest.mark.parametrize(
    ("sets", "code", "said"),
    [
        (["plan.schedule=gpip"], "E0411", "did you mean `gpipe`?"),
        (['plan.schedule="gpipe"'], "E0402", 'only "1f1b" is a string'),
        (["plan.schedule=gpipe(2)"], "E0402", "takes 0 arguments"),
        (["plan.zero=4"], "E0412", "from 0 to 3"),
        (["plan.schedule=interleaved(0)"], "E0412", "at least 1"),
        (["plan.schedule=token_slices"], "E0404", "token_slices(4)"),
        (["plan.schedule=token_slices(64, 63)"], "E0420", "slices of 127 tokens, but a row has 128"),
        (["plan.schedule=token_slices(129)"], "E0420", "129 slices of a row of 128 tokens"),
        (["plan.balance=[1, 0]"], "E0412", "at least 1"),
        ([MESH, "plan.balance=[1, 1, 1]"], "E0420", "3 numbers of blocks for the 2 chunks of `1f1b`"),
        (["plan.mesh=[data = 2]", "plan.schedule=gpipe"], "E0420", "no axis `pipe`"),
    ],
)
def test_what_does_not_fit_is_said(sets: list[str], code: str, said: str) -> None:
    ((found, text),) = faults(*sets)
    assert found == code
    assert said in text
