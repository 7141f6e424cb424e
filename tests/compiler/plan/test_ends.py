"""What a step's end takes along a pipeline: gradients of what several stages read, the loss, the gradients' norm."""

from __future__ import annotations

import pytest
from partita.compiler.cost.cluster import Cluster, Level, Link
from partita.compiler.cost.roofline import Machine
from partita.compiler.ir.types import DType
from partita.compiler.plan.ends import tied_s, told_s
from partita.compiler.plan.parts import Part, Weights
from partita.compiler.plan.space import Choice, Unit

LINK = Link(1e9, 1e-3)
CLUSTER = Cluster(Machine({DType.F32: 1e12}, 1e12, 1e11, 1e-6), 1 << 30, (Level(4, LINK),))
SIZE = 4_000_000
ONE_WAY_S = 1e-3 + 4e-3


def part(name: str, *tied: tuple[str, int]) -> Part:
    """A block that takes nothing."""
    return Part(name, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0, 0, Weights(), Weights(), messages=1, tied=tied)


def choice(pipe: int, schedule: str = "1f1b", data: int = 1, zero: int = 0) -> Choice:
    """A plan of four rows."""
    return Choice(Unit((), "none", 1), data, pipe, 4 // data, zero, schedule)


def test_a_head_that_reads_the_embedding_tells_it_of_its_gradient() -> None:
    parts = [part("embed"), part("layer"), part("layer"), part("head", ("embed", SIZE))]
    found = tied_s(choice(4), parts, [(0, 1), (1, 2), (2, 3), (3, 4)], CLUSTER)
    assert found == pytest.approx([ONE_WAY_S, 0.0, 0.0, ONE_WAY_S])
    assert tied_s(choice(2), parts[:3], [(0, 1), (1, 3)], CLUSTER) == [0.0, 0.0]


def test_one_device_has_one_sum_whatever_chunks_it_has() -> None:
    parts = [part("a"), part("b"), part("b"), part("c", ("a", SIZE))]
    cuts = [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert tied_s(choice(2, "zero_bubble_v"), parts, cuts, CLUSTER) == [0.0] * 4  # a and c lie on one device
    layers = [part("a"), part("b", ("a", SIZE)), part("b", ("a", SIZE))]
    assert tied_s(choice(2), layers, [(0, 1), (1, 3)], CLUSTER) == pytest.approx([ONE_WAY_S, ONE_WAY_S])


def test_scalars_are_joined_where_there_are_terms_of_them() -> None:
    assert told_s(choice(1, data=2), CLUSTER) == 0.0  # the loss goes along with the gradients
    with_zero, piped = told_s(choice(1, data=2, zero=1), CLUSTER), told_s(choice(2), CLUSTER)
    assert piped == pytest.approx(2 * with_zero) and with_zero > 2e-3
