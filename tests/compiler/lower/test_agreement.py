"""Programs that wait for one another in vain are found before they run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from oracles.pipelines import PipedMLP
from partita.compiler.lower.agreement import disagreements
from partita.runtime.layout import Mesh
from partita.runtime.program import Build, Collective, Instruction, Program, Send
from samples.spread_mlp import SpreadMLP


@pytest.fixture(scope="module")
def build() -> Build:
    what = SpreadMLP(Mesh((("data", 2),)), zero=1, layers=3, microbatches=3)
    return PipedMLP(what, 2, "1f1b").built().build


def changed(build: Build, **parts: object) -> Build:
    """The last stage's program with something else in it."""
    program = replace(build.variants[-1]["step"], **parts)  # pyright: ignore[reportArgumentType]
    return replace(build, variants=(*build.variants[:-1], {"step": program}))


def last(build: Build) -> Program:
    return build.variants[-1]["step"]


def test_a_pipeline_agrees(build: Build) -> None:
    assert disagreements(build, "step") == []


def test_collectives_in_another_order_are_found(build: Build) -> None:
    mine: list[Instruction] = [one for one in last(build).update if isinstance(one, Collective) and one.axis == "pipe"]
    assert len(mine) == 2, "the loss's and the norm's"
    first, second = (last(build).update.index(one) for one in mine)
    update = list(last(build).update)
    update[first] = replace(update[first], reduction="max")  # pyright: ignore[reportCallIssue]
    assert any("begins" in fault for fault in disagreements(changed(build, update=tuple(update)), "step"))
    del update[second]
    del update[first]
    assert any("for ever" in fault for fault in disagreements(changed(build, update=tuple(update)), "step"))


def test_a_message_that_is_not_sent_or_not_taken_is_found(build: Build) -> None:
    parts = {name: tuple(one for one in part if not isinstance(one, Send)) for name, part in last(build).parts.items()}
    found = disagreements(changed(build, parts=parts), "step")
    assert found and "rank 0, in `backward 0` of microbatch 0: waits for ever" in found
    order = tuple(turn for turn in last(build).order if turn.part != "receive activation 1")
    assert any("takes none" in one or "for ever" in one for one in disagreements(changed(build, order=order), "step"))


def test_a_device_that_goes_its_own_way_inside_a_stage_is_found(build: Build) -> None:
    """Its data-parallel twin reduces gradients while it is still going forward."""
    turns = [turn for turn in last(build).order if turn.part.startswith("forward")]
    rest = [turn for turn in last(build).order if not turn.part.startswith("forward")]
    (found,) = disagreements(changed(build, order=(*rest[:2], *turns, *rest[2:])), "step")
    assert "begins" in found and "along data" in found


def test_what_comes_up_before_it_has_gone_down_is_found() -> None:
    what = SpreadMLP(Mesh(()), layers=4, microbatches=3)
    build = PipedMLP(what, 2, "gpipe", offload=("activations",)).built().build
    assert disagreements(build, "step") == []
    order = last(build).order
    turn = next(turn for turn in order if turn.part == "fetch 1")
    assert order.index(turn) > order.index(replace(turn, part="forward 1"))
    early = (turn, *(one for one in order if one != turn))
    (found,) = disagreements(changed(build, order=early), "step")
    assert "in `fetch 1`" in found and "comes up before it has gone down" in found
