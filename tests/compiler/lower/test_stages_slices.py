"""Token slices in a pipeline: what one device computes with whole rows, each slice a part with messages of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracles.pipelines import Piped, assert_same_piped
from partita.runtime.program import Run, Send

PIPE, WIDE = (("pipe", 2),), (("data", 2), ("pipe", 2), ("tensor", 2))


@pytest.mark.parametrize(
    "what",
    [
        Piped("llama", "Llama", PIPE, "token_slices(3, 1, 2)", 2),
        Piped("gemma2", "Gemma2", (("pipe", 3),), "token_slices(2)", 1),
        Piped("llama", "Llama", WIDE, "token_slices(2)", 1),
        Piped("lstm", "LSTMLanguageModel", PIPE, "token_slices(2, 3)", 1),
    ],
    ids=lambda what: f"{what.model}-{what.schedule}-{'x'.join(str(size) for _, size in what.mesh)}",
)
def test_slices_in_a_pipeline_compute_what_one_device_computes(what: Piped, tmp_path: Path) -> None:
    assert_same_piped(what, tmp_path, steps=1)


def test_every_slice_is_sent_when_it_is_there(tmp_path: Path) -> None:
    _, many = Piped("llama", "Llama", PIPE, "token_slices(3)", 1).compiled(tmp_path)
    step = many.build.programs["step"]
    forward = [f"{word} 0{end}" for end in ("", ".1", ".2") for word in ("forward", "send activation")]
    turns = [turn.part for turn in step.order if not turn.part.startswith("receive")]
    assert turns == [*forward, "backward 0.2", "backward 0.1", "backward 0"]
    for name in forward[1::2]:
        (sent,) = (one for one in step.parts[name] if isinstance(one, Send))
        assert "/slice." in sent.input


@pytest.mark.parametrize("microbatches", [1, 2])
def test_gradients_of_parameters_are_added_up_slice_by_slice(microbatches: int, tmp_path: Path) -> None:
    """Of the last slice's backward only what it owes to earlier keys and values waits, and a gain's few numbers."""
    _, many = Piped("llama", "Llama", PIPE, "token_slices(3)", microbatches).compiled(tmp_path)
    step = many.build.programs["step"]
    runs = {name: [one for one in part if isinstance(one, Run)] for name, part in step.parts.items()}
    made = {name for one in runs["backward 0.2"] for name in one.outputs}
    read = {name for part in ("backward 0.1", "backward 0") for one in runs[part] for name in one.inputs}
    waiting = made & read
    assert len([name for name in waiting if ".split" in name]) == 4
    assert all(".split" in name or "rms_norm_backward" in name for name in waiting)
