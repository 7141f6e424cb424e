"""A pipeline computes what one device computes, whatever its schedule and the mesh inside its stages."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracles.pipelines import Piped, assert_same_piped
from partita.compiler.base.diagnostic import SpecError
from partita.runtime.program import Send

PIPE, WIDE = (("pipe", 2),), (("data", 2), ("pipe", 2), ("tensor", 2))


@pytest.mark.parametrize(
    "what",
    [
        Piped("gpt2", "GPT2", PIPE, "gpipe", 3),
        Piped("gpt2", "GPT2", (("pipe", 4),), "1f1b", 3, (1, 2, 1, 2)),
        Piped("gpt2", "GPT2", (("pipe", 3),), "zero_bubble", 4),
        Piped("gpt2", "GPT2", PIPE, "interleaved(2)", 3),
        Piped("gpt2", "GPT2", PIPE, "zero_bubble_v", 3),
        Piped("gpt2", "GPT2", WIDE, "1f1b", 2),
        Piped("gpt2", "GPT2", PIPE, "1f1b", 1),
    ],
    ids=lambda what: f"{what.schedule}-{what.microbatches}-{'x'.join(str(size) for _, size in what.mesh)}",
)
def test_a_pipeline_computes_what_one_device_computes(what: Piped, tmp_path: Path) -> None:
    built = assert_same_piped(what, tmp_path).build
    assert any(isinstance(i, Send) for i in built.programs["step"].instructions())


def test_a_tied_table_is_on_both_ends_and_nowhere_else(tmp_path: Path) -> None:
    """Its gradients are exchanged once a step, not once a microbatch; the layers' parameters are on one stage each."""
    built = assert_same_piped(Piped("gpt2", "GPT2", (("pipe", 3),), balance=(2, 2, 2)), tmp_path).build
    lying = {item.name: item.layout for item in built.parameters}
    assert lying.pop("wte.table") == ("at:0,2",)
    assert set(lying.values()) == {("at:0",), ("at:1",), ("at:2",)}
    sent = [i.input for i in built.programs["step"].update if isinstance(i, Send)]
    assert len(sent) == 1 and "wte.table" in sent[0]


@pytest.mark.parametrize(
    ("schedule", "balance", "said"),
    [("1f1b", (1, 1), "does not cut 6 blocks"), ("interleaved(4)", (), "6 blocks cannot be 8 chunks")],
)
def test_what_cannot_be_cut_is_refused(schedule: str, balance: tuple[int, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="E0946") as caught:
        Piped("gpt2", "GPT2", PIPE, schedule, balance=balance).compiled(tmp_path)
    assert said in str(caught.value)
