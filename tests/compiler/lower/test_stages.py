"""A pipeline computes what one device computes, whatever its schedule and the mesh inside its stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.pipelines import Piped, PipedMLP, assert_same_as_alone, assert_same_piped
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.lower.timing import Part, StepTime, part_seconds, pipeline_seconds
from partita.compiler.schedule.forms import build as form_schedule
from partita.compiler.schedule.forms import parse_form
from partita.runtime.layout import Mesh
from partita.runtime.program import Allocate, Fetch, Free, Offload, Receive, Run, Send
from samples.spread_mlp import SpreadMLP

PIPE, WIDE = (("pipe", 2),), (("data", 2), ("pipe", 2), ("tensor", 2))


@pytest.mark.parametrize(
    "what",
    [
        Piped("gpt2", "GPT2", WIDE, "1f1b", 2),
        Piped("t5", "T5", (("pipe", 3),), "1f1b", 2),
        Piped("mixtral", "Mixtral", PIPE, "zero_bubble_v", 3),
        Piped("lstm", "LSTMLanguageModel", PIPE, "gpipe", 1),
    ],
    ids=lambda what: f"{what.file}-{what.schedule}",
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


NO_MESH = Mesh(())
SCHEDULES = ("gpipe", "1f1b", "interleaved(2)", "interleaved(3)", "zero_bubble", "zero_bubble_v", "list(1)", "list(2)")
MESHES = st.tuples(st.integers(1, 2), st.integers(1, 2)).map(lambda s: Mesh((("data", s[0]), ("tensor", s[1]))))


PIPED = st.builds(
    PipedMLP,
    what=st.builds(
        SpreadMLP,
        mesh=MESHES,
        zero=st.sampled_from([0, 1, 3]),
        batch=st.integers(1, 3),
        width=st.integers(1, 4),
        hidden=st.integers(1, 5),
        layers=st.integers(1, 8),
        microbatches=st.integers(1, 6),
    ),
    stages=st.integers(1, 4),
    schedule=st.sampled_from(SCHEDULES),
    at=st.integers(0, 2),
)


@settings(max_examples=20, deadline=None)
@given(PIPED)
def test_every_schedule_on_every_mesh(what: PipedMLP) -> None:
    """Or a refusal with the reason, where there are fewer layers than chunks."""
    chunks = len(parse_form(what.schedule).placement(what.stages))
    try:
        assert_same_as_alone(what)
    except SpecError as refused:
        assert chunks > what.what.layers and "blocks cannot be" in str(refused)
    else:
        assert chunks <= what.what.layers


@settings(max_examples=5, deadline=None)
@given(PIPED.filter(lambda p: len(parse_form(p.schedule).placement(p.stages)) <= p.what.layers), st.booleans())
def test_what_lies_on_the_host_changes_no_bit(what: PipedMLP, optimizer: bool) -> None:
    plain = what.ran()
    moved = replace(what, offload=("optimizer", "activations") if optimizer else ("activations",)).ran()
    torch.testing.assert_close(moved, plain, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("schedule", "balance", "said"),
    [("1f1b", (1, 1), "does not cut 6 blocks"), ("interleaved(4)", (), "6 blocks cannot be 8 chunks")],
)
def test_what_cannot_be_cut_is_refused(schedule: str, balance: tuple[int, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="E0946") as caught:
        Piped("gpt2", "GPT2", PIPE, schedule, balance=balance).compiled(tmp_path)
    assert said in str(caught.value)


def test_a_pipelines_time_is_that_of_its_schedule() -> None:
    """1F1B with forward and backward of a second each: (m + p - 1) (F + B), and the update behind it."""
    what = PipedMLP(SpreadMLP(NO_MESH, layers=2, microbatches=3), 2, "1f1b")
    build = what.built().build
    programs = [build.programs_of(rank)["step"] for rank in range(2)]
    parts = [Part("", f"{kind} {chunk}", "", 3, 3.0, "") for chunk in range(2) for kind in ("forward", "backward")]
    time = StepTime(0.0, (*parts, Part("", "update", "", 1, 5.0, "")))
    schedule = form_schedule(parse_form("1f1b"), 2, 3)
    seconds = part_seconds((program, time) for program in programs)
    assert pipeline_seconds(seconds, schedule) == pytest.approx((3 + 1) * 2 + 5)


@pytest.mark.parametrize("offload", [(), ("activations",)])
@pytest.mark.parametrize("schedule", ["zero_bubble_v", "list(2)", "interleaved(2)"])
def test_what_a_microbatch_makes_is_freed_by_its_last_reader(schedule: str, offload: tuple[str, ...]) -> None:
    """Also where microbatches go through the parts in several orders: nothing waits for a microbatch's end."""
    sample = SpreadMLP(NO_MESH, layers=8, batch=16, microbatches=8)
    built = PipedMLP(sample, 2, schedule, offload=offload).built()
    for rank in range(2):
        program = built.build.programs_of(rank)["step"]
        alive: dict[int, set[str]] = {}
        for _, number, instructions in program.turns():
            mine = alive.setdefault(number, set())
            for one in instructions:
                mine -= {*getattr(one, "frees", ()), *(one.buffers if isinstance(one, Free) else ())}
                mine |= {*one.outputs} if isinstance(one, Run) else set()
                mine |= {one.output} if isinstance(one, Receive | Offload | Fetch) else set()
        assert any(isinstance(one, Offload) for one in program.instructions()) == bool(offload)
        kept = {i.buffer for i in program.prepare if isinstance(i, Allocate)}
        assert not any(mine - kept for mine in alive.values())
