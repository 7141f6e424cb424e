"""All devices of a mesh in one process compute what one device computes; what does not fit together is found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.spread import assert_same, built, rows
from partita.runtime.execute import Executable
from partita.runtime.folder import executable
from partita.runtime.layout import Mesh
from partita.runtime.program import Build, Collective, Input, Program, Wait
from partita.runtime.state import initial_store
from partita.runtime.virtual import Cluster, ClusterError
from samples.spread_mlp import SpreadMLP

MESHES = st.tuples(st.integers(1, 3), st.integers(1, 3)).map(lambda s: Mesh((("data", s[0]), ("tensor", s[1]))))


@settings(max_examples=25)
@given(
    st.builds(
        SpreadMLP,
        mesh=MESHES | st.just(Mesh((("tensor", 5),))) | st.just(Mesh((("tensor", 2), ("data", 2)))),
        zero=st.sampled_from([0, 1, 3]),
        batch=st.integers(1, 6),
        width=st.integers(1, 6),
        hidden=st.integers(1, 7),
        layers=st.integers(1, 3),
        microbatches=st.integers(1, 2),
    )
)
def test_a_mesh_computes_what_one_device_computes(what: SpreadMLP) -> None:
    assert_same(what)


def test_devices_with_parts_of_one_size_share_their_programs() -> None:
    even = built(SpreadMLP(Mesh((("data", 2), ("tensor", 2))), batch=4, width=4, hidden=4)).build
    assert even.classes == () and even.variants == ()
    odd = built(SpreadMLP(Mesh((("tensor", 3),)), hidden=4)).build
    assert odd.classes == (0, 0, 1) and len(odd.variants) == 1


def sent(axis: str = "data", kind: str = "all_reduce", output: str = "total") -> Collective:
    return Collective(kind, axis, ("x",), (output,), ((2,),), "f32")  # pyright: ignore[reportArgumentType]


def cluster(*programs: tuple[Collective | Wait, ...]) -> Cluster:
    x = Input("x", (2,), ("batch",), "f32")
    made = [{"step": Program((x,), (), one, (), {}, 1)} for one in programs]
    classes = tuple(range(len(made)))
    build = Build("test", (), (), made[0], mesh=Mesh((("data", 2),)), variants=tuple(made[1:]), classes=classes)
    return Cluster(executable(build, {}))


def test_devices_that_wait_for_one_another_are_found() -> None:
    waiting = cluster((sent(), Wait(("total",))), ())
    with pytest.raises(ClusterError, match=r"devices \[0\] wait"):
        waiting.run("step", [{}, {}], [{"x": torch.ones(2)}])


def test_devices_that_ask_for_different_things_are_found() -> None:
    other = replace(sent(), reduction="max")
    with pytest.raises(ClusterError, match="begins"):
        cluster((sent(), Wait(("total",))), (other, Wait(("total",)))).run("step", [{}, {}], [{"x": torch.ones(2)}])


def test_copies_that_differ_are_found() -> None:
    ours = Cluster(built(SpreadMLP(Mesh((("data", 2),)))))
    stores = ours.split(initial_store(ours.build, 0))
    stores[1]["blocks.0.up"][0, 0] += 1
    with pytest.raises(ClusterError, match=r"another blocks.0.up"):
        ours.join(stores)


def test_what_is_split_joins_again() -> None:
    ours = Cluster(built(SpreadMLP(Mesh((("data", 2), ("tensor", 3))), zero=3)))
    whole = initial_store(ours.build, 0)
    stores = ours.split(whole)
    assert all(torch.equal(whole[name], tensor) for name, tensor in ours.join(stores).items())
    assert sum(store["blocks.0.up"].numel() for store in stores) == whole["blocks.0.up"].numel()


def test_one_device_runs_without_a_cluster() -> None:
    ours: Executable = built(SpreadMLP(Mesh()))
    assert "loss" in ours.run("step", initial_store(ours.build, 0), rows(SpreadMLP(Mesh()), 0))
