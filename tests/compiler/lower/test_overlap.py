"""Communication beside computation, by structure: what begins early, what shares a bucket, what is waited for late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.cost.cluster import BUCKET_BYTES
from partita.compiler.devices import partitioned
from partita.compiler.ir import layout as ir
from partita.compiler.ir.types import Phase
from partita.compiler.lower.build import compile_graphs
from partita.compiler.lower.overlap import GLOO_BUCKET_BYTES, bucketed, overlapped
from partita.compiler.lower.spread import spread as spread_out
from partita.compiler.partition.choices import Wishes
from partita.runtime.layout import Mesh
from partita.runtime.program import Check, Collective, CollectiveKind, Instruction, Program, Run, Shard, Wait
from samples.small_models import GROUPED, small_step
from samples.spread_mlp import SpreadMLP

DATA, TENSOR, BOTH = Mesh((("data", 2),)), Mesh((("tensor", 2),)), Mesh((("data", 2), ("tensor", 2)))


def program(mesh: Mesh, **sizes: int) -> Program:
    graph, spread = SpreadMLP(mesh, batch=4, width=4, hidden=8, **sizes).spread()
    return compile_graphs({"step": graph}, {}, {}, spread=spread)[0].programs["step"]


def instructions(found: Program) -> list[Instruction]:
    return [*found.prepare, *found.microbatch, *found.update]


def kinds(found: Program) -> list[str]:
    return [i.kind for i in instructions(found) if isinstance(i, Collective)]


def read(instruction: Instruction) -> set[str]:
    if isinstance(instruction, Shard):
        return {instruction.input}
    if isinstance(instruction, Check):
        return {*instruction.buffers}
    return {*instruction.inputs} if isinstance(instruction, Run | Collective) else set()


def scatters(instruction: Instruction) -> bool:
    return isinstance(instruction, Collective) and instruction.kind == "reduce_scatter"


@given(st.sampled_from([DATA, TENSOR, BOTH]), st.sampled_from([0, 1, 3]), st.integers(1, 3), st.sampled_from([1, 2]))
def test_every_wait_stands_right_before_the_first_use_or_the_next_scatter(
    mesh: Mesh, zero: int, layers: int, microbatches: int
) -> None:
    found = program(mesh, zero=zero, layers=layers, microbatches=microbatches)
    begun: set[str] = set()
    for listed in (found.prepare, found.microbatch, found.update):
        for position, instruction in enumerate(listed):
            assert not read(instruction) & begun, "read before it was waited for"
            if isinstance(instruction, Collective):
                begun |= {*instruction.outputs}
            if isinstance(instruction, Wait):
                assert {*instruction.buffers} <= begun
                begun -= {*instruction.buffers}
                following = listed[position + 1 :]
                used = following and read(following[0]) & {*instruction.buffers}
                sends = following and isinstance(following[0], Collective) and following[0].kind == "all_gather"
                turn = following and (scatters(following[0]) or (sends and listed is not found.microbatch))
                assert not following or used or turn or microbatches > 1
    assert not begun, "never waited for"


def test_gradients_are_summed_in_one_bucket_while_the_backward_goes_on() -> None:
    found = program(DATA, layers=3)
    reductions = [i for i in instructions(found) if isinstance(i, Collective) and i.kind == "all_reduce"]
    assert [len(i.inputs) for i in reductions] == [7], "the loss and six gradients"
    assert {*reductions[0].inputs} == {*reductions[0].in_place}


def test_what_only_the_update_joins_leaves_while_the_backward_goes_on() -> None:
    mesh = ir.Mesh((("data", 2),))
    step = partitioned([small_step(GROUPED.format(heads=4, groups=2))], mesh, Wishes()).graph
    reductions = [node for node in step.nodes("all_reduce") if "grad" in node.id]
    assert any(node.phase is Phase.UPDATE for node in reductions), "of sums"
    local, spread = spread_out({"step": step}, mesh)
    found = compile_graphs(local, {}, {}, spread=spread)[0].programs["step"]
    assert not any(isinstance(i, Collective) for i in found.update)
    assert not any(isinstance(i, Wait) for i in found.microbatch)
    sent = [name for i in found.microbatch if isinstance(i, Collective) for name in i.outputs]
    assert {node.id for node in reductions} <= {*sent}


def test_no_device_waits_for_the_loss_amid_its_backward() -> None:
    found = program(DATA, layers=3)
    assert not any(isinstance(i, Wait) for i in found.microbatch)
    assert any(isinstance(i, Run) for i in found.update)


def test_nothing_is_gathered_for_the_backward_before_the_loss() -> None:
    found = program(DATA, zero=3, layers=3).microbatch
    gathers = [at for at, i in enumerate(found) if isinstance(i, Collective) and i.kind == "all_gather"]
    ends = max(at for at, i in enumerate(found) if isinstance(i, Run) and "forward" in i.module)
    assert sum(at > ends for at in gathers) == 3, "a gather for each layer's backward"


def test_a_full_bucket_leaves_while_the_backward_goes_on() -> None:
    size = int((GLOO_BUCKET_BYTES / 8) ** 0.5)  # of a square whose elements just fit
    graph, spread = SpreadMLP(DATA, batch=2, width=size, hidden=size, layers=2).spread()
    found = compile_graphs({"step": graph}, {}, {}, spread=spread)[0].programs["step"]
    backward = [i for i in found.microbatch if isinstance(i, Run) and i.module.startswith("blocks_backward")]
    last = found.microbatch.index(backward[-1])
    early = [i for i in found.microbatch[:last] if isinstance(i, Collective) and len(i.outputs) == 1]
    assert any(i.outputs[0].startswith("grad/blocks.1") for i in early)


def test_a_sharded_parameter_is_gathered_one_layer_ahead() -> None:
    found = program(DATA, zero=3, layers=4).microbatch
    runs = [i for i, one in enumerate(found) if isinstance(one, Run) and one.module == "blocks_forward"]
    gathers = [i for i, one in enumerate(found) if isinstance(one, Collective) and "blocks.2.up" in one.inputs]
    assert runs[0] < gathers[0] < runs[1], "the third layer's gather begins before the second layer runs"


def test_layers_share_their_modules() -> None:
    found = program(BOTH, zero=3, layers=4)
    assert len({i.module for i in found.microbatch if isinstance(i, Run) and i.module.startswith("blocks")}) <= 5


@pytest.mark.parametrize(
    ("zero", "expected"), [(0, {"all_reduce"}), (1, {"all_reduce", "reduce_scatter", "all_gather"})]
)
def test_collectives_are_those_of_the_graph(zero: int, expected: set[str]) -> None:
    assert set(kinds(program(DATA, zero=zero))) == expected


def test_a_layer_is_gathered_and_scattered_in_one_bucket() -> None:
    found = program(DATA, zero=3, layers=3).microbatch
    gathers = [i for i in found if isinstance(i, Collective) and i.kind == "all_gather"]
    scatters_ = [i for i in found if isinstance(i, Collective) and i.kind == "reduce_scatter"]
    assert {len(i.inputs) for i in (*gathers[:3], *scatters_)} == {2}, "up and down"
    assert all(len(i.dims) == len(i.sizes) == len(i.shapes) == len(i.inputs) for i in (*gathers, *scatters_))


def test_an_update_has_two_gathers_on_their_way_at_most() -> None:
    gathers = [collective(number, "all_gather", BUCKET_BYTES // 4) for number in range(5)]
    _, _, update = overlapped([[], [], [*gathers, Wait(tuple(f"y{number}" for number in range(5)))]], gloo=False)
    kinds_ = ["g" if isinstance(one, Collective) else "w" for one in update]
    assert "".join(kinds_) == "ggwgwgwgw"
    assert [name for one in update if isinstance(one, Wait) for name in one.buffers] == [f"y{n}" for n in range(5)]


def test_what_is_scattered_is_taken_in_before_the_next_begins() -> None:
    flying: set[str] = set()
    for instruction in instructions(program(DATA, zero=3, layers=4)):
        if isinstance(instruction, Wait):
            flying -= {*instruction.buffers}
        if isinstance(instruction, Collective) and instruction.kind == "reduce_scatter":
            assert not flying, "the whole gradients of one layer at a time"
            flying |= {*instruction.outputs}


def collective(number: int, kind: CollectiveKind, size: int) -> Collective:
    cut = () if kind == "all_reduce" else (0,)
    return Collective(kind, "data", (f"x{number}",), (f"y{number}",), ((size,),), "f32", dims=cut, sizes=cut)


KINDS: list[CollectiveKind] = ["all_reduce", "all_gather", "reduce_scatter"]


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 12)), max_size=12), st.integers(1, 100))
def test_buckets_are_bounded_and_lose_nothing(sent: list[tuple[CollectiveKind, int]], limit: int) -> None:
    given_ = [collective(number, kind, size) for number, (kind, size) in enumerate(sent)]
    found = [one for one in bucketed(given_, limit) if isinstance(one, Collective)]
    assert sorted(name for one in found for name in one.inputs) == sorted(name for one in given_ for name in one.inputs)
    for one in found:
        assert len(one.inputs) == len(one.outputs) == len(one.shapes)
        assert len(one.inputs) == 1 or 4 * sum(size for (size,) in one.shapes) <= limit
        by_name = {name: kind for kind, name in ((kind, f"x{number}") for number, (kind, _) in enumerate(sent))}
        assert {by_name[name] for name in one.inputs} == {one.kind}


def test_a_cut_update_writes_into_the_parameter_which_is_gathered_in_its_place() -> None:
    found = program(DATA, zero=1, layers=2)
    views = [i for i in found.update if isinstance(i, Shard) and i.view]
    assert sorted(i.input for i in views) == ["blocks.0.up", "blocks.1.up"], "whose parts lie one behind another"
    gathers = [i for i in found.update if isinstance(i, Collective) and i.into]
    into = {name: whole for i in gathers for name, whole in zip(i.inputs, i.into, strict=True)}
    assert into == {view.output: view.input for view in views}
    written = max(
        p for p, i in enumerate(found.update) if isinstance(i, Run) and {*i.inputs} & {v.output for v in views}
    )
    assert found.update.index(gathers[0]) > written
