"""The table of timed kernels: it gives back what was timed, in between it stays in between, and no file can hurt it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.cost.cluster import Message
from partita.compiler.cost.roofline import Machine
from partita.compiler.cost.table import MOST_BYTES, Table, TableError, from_json, roofline_s, to_json
from partita.compiler.ir.types import DType
from partita.runtime.call import Call, Timed

MACHINE = Machine({DType.F32: 1e11, DType.BF16: 2e11}, 1e10, 1e10, 1e-6)


def product(m: int, n: int, k: int, dtype: str = "f32") -> Call:
    return Call("matmul", dtype, (1, m, n, k), 2 * m * n * k, 4 * (m * k + k * n + m * n))


def table(*points: Timed) -> Table:
    return Table("cpu: none", "2", 1, 1 << 30, MACHINE, points)


SIDES = (16, 64, 256, 1024)
POINTS = tuple(
    Timed(product(m, n, k), roofline_s(product(m, n, k), MACHINE)[0] * (1.5 if k < 100 else 1.2))
    for m in SIDES
    for n in SIDES
    for k in SIDES
)


def test_what_was_timed_is_given_back() -> None:
    found = table(*POINTS)
    for point in POINTS:
        assert found.seconds(point.call) == pytest.approx(point.seconds, rel=0.02)


@given(*(st.integers(1, 8192) for _ in "mnk"))
def test_between_points_the_ratio_lies_between_theirs(m: int, n: int, k: int) -> None:
    assert 1.2 <= table(*POINTS).ratio(product(m, n, k)) <= 1.5


def test_a_kernel_that_nobody_timed_is_like_an_addition_or_the_roofline() -> None:
    strange = Call("erfinv", "bf16", (1 << 20,), 1 << 20, 4 << 20)
    added = Call("add", "bf16", (1 << 18,), 1 << 18, 6 << 18)
    assert table().seconds(strange) == roofline_s(strange, MACHINE)[0]
    found = table(Timed(added, 3 * roofline_s(added, MACHINE)[0]))
    assert found.ratio(strange) == pytest.approx(3)
    assert found.ratio(Call("erfinv_", "bf16", (8,), 8, 16)) == 1.0  # in place nothing was timed


def test_what_bounds_a_call() -> None:
    assert roofline_s(product(4, 4, 4), MACHINE)[1] == "launch"
    assert roofline_s(product(1024, 1024, 1024), MACHINE)[1] == "arithmetic"
    assert roofline_s(Call("clone", "f32", (1 << 20,), 1, 8 << 20), MACHINE)[1] == "bandwidth"
    assert roofline_s(product(512, 512, 512, "bf16"), MACHINE)[0] < roofline_s(product(512, 512, 512), MACHINE)[0]


def test_a_table_is_read_as_it_was_written() -> None:
    found = replace(table(*POINTS, Timed(Call("view", "", (), 0, 0), 1e-6)), processes=4, cores=2, probes=3)
    assert from_json(to_json(found)) == found
    assert found != replace(found, probes=2)


def test_processes_that_outnumber_the_cores_share_them() -> None:
    """What four take at once on two cores takes two of them half as long, and two by themselves as long as measured."""
    messages = (Message("all_reduce", 2, 1 << 20, 1e-3), Message("all_reduce", 4, 1 << 18, 3e-3))
    found = replace(table(), messages=messages, processes=4, cores=2).cluster()
    assert [found.share(count) for count in (1, 2, 4)] == [1, 1, 2]
    assert [message.seconds for message in found.messages] == [1e-3, 1.5e-3]
    assert (found.devices, found.memory_bytes) == (4, (1 << 30) // 4)
    assert replace(table(), messages=messages[:1], processes=2, cores=2).cluster().abreast is None


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(to_json(table(*POINTS[:2]))), **fields})


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", "1e999", "[" * 100_000, "x" * (MOST_BYTES + 1),
        changed(format=99), changed(points=[[1, 2]]), changed(points=None), changed(processes=0),
        changed(launch_s=float("nan")),
        changed(launch_s=-1), changed(bandwidth_bytes_per_s="fast"), changed(flops_per_s={}),
        changed(flops_per_s={"f32": 0}), changed(flops_per_s={"f33": 1e9}), changed(threads=True),
        changed(points=[["matmul", "f32", [1, 1, 1, 1], 1, 1, 1e99]]),
        changed(points=[["matmul", "f32", [1] * 9, 1, 1, 1e-3]]),
        changed(points=[["matmul", "f32", [-1], 1, 1, 1e-3]]),
        changed(points=[["matmul", "f32", [1], 1, 1, 1e-3]] * 20_001),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(text: str) -> None:
    with pytest.raises(TableError):
        from_json(text)
