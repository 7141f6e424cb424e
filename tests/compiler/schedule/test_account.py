"""What is said of each stage before anything is lowered is what its program then holds and sends."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
from partita.compiler.cost.cluster import H100_NODES
from partita.compiler.cost.host import Host
from partita.compiler.elaborate.recipe import Plan
from partita.compiler.ir.layout import Mesh
from partita.compiler.pipeline import compile_recipe, step_graph
from partita.compiler.schedule.account import stage_accounts
from partita.compiler.schedule.placing import Pipeline
from partita.runtime.program import Build, Instruction, Receive, Send
from samples.recipes import recipe_over

SUMS, SUM_BYTES = 2, 2 * 8  # the loss and the norm are all-reduced


def stored_bytes(build: Build, rank: int, kind: str) -> int:
    items = build.parameters if kind == "parameters" else build.states
    return sum(8 * prod(build.part_of(item, rank)[1]) for item in items if build.has(item, rank))


def sent_bytes(build: Build, rank: int) -> tuple[int, int]:
    """Bytes and messages; the size of a message is what its receiver says."""
    sizes = {
        one.tag: 8 * prod(one.shape)
        for other in range(build.mesh.size)
        for one in build.programs_of(other)["step"].instructions()
        if isinstance(one, Receive)
    }
    program = build.programs_of(rank)["step"]
    run: list[Instruction] = [one for _, _, part in program.turns() for one in part]
    sent = [one for one in (*run, *program.update) if isinstance(one, Send)]
    return sum(sizes[one.tag] for one in sent), len(sent)


@pytest.mark.parametrize(("schedule", "count"), [("1f1b", 3), ("zero_bubble_v", 2)])
def test_a_stages_account_is_what_its_program_holds_and_sends(schedule: str, count: int) -> None:
    mesh = (("pipe", count),)
    spec, recipe = recipe_over("gpt2", "GPT2", batch=4, microbatches=2, optimizer="sgd(momentum = 0.9)")
    found = stage_accounts(step_graph(spec, recipe), Mesh(mesh), Pipeline(schedule, (), H100_NODES))
    build = compile_recipe(spec, replace(recipe, plan=Plan(mesh, schedule=schedule)), None)
    for rank, one in enumerate(found):
        assert one.parameter_bytes == one.gradient_bytes == stored_bytes(build, rank, "parameters")
        assert one.state_bytes == stored_bytes(build, rank, "states")
        sent, messages = sent_bytes(build, rank)
        assert messages == one.messages["pipe"] - SUMS
        assert sent == one.sent_bytes["pipe"] - SUMS * (SUM_BYTES * (count - 1) // count)


def test_what_lies_on_the_host_is_not_on_the_device() -> None:
    """In GPipe all microbatches' saved values are there, as much as the program foretells."""
    mesh, both = (("pipe", 2),), ("optimizer", "activations")
    cluster = replace(H100_NODES, host=Host(1e18))
    spec, recipe = recipe_over("gpt2", "GPT2", batch=8, microbatches=4, optimizer="sgd(momentum = 0.9)")
    step = step_graph(spec, recipe)
    plain = stage_accounts(step, Mesh(mesh), Pipeline("gpipe", (), cluster))
    found = stage_accounts(step, Mesh(mesh), Pipeline("gpipe", (), cluster, None, both))
    build = compile_recipe(
        spec, replace(recipe, plan=Plan(mesh, schedule="gpipe", offload=both)), None, cluster=cluster
    )
    for one, other in zip(found, plain, strict=True):
        assert one.state_bytes == 0 < other.state_bytes
        assert one.parameter_bytes == other.parameter_bytes  # float64 computes with themselves: they come up
    activations = found[0].host_bytes - plain[0].state_bytes - plain[0].parameter_bytes
    assert activations > plain[0].activation_bytes / 2
    assert found[0].activation_bytes < plain[0].activation_bytes
    assert max(one.host_bytes for one in found) == pytest.approx(build.predictions["host_bytes"], rel=0.2)
