"""What real processes are asked for: small terms of a sum share a message, and its memory."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from partita.runtime.collectives import Processes
from partita.runtime.layout import Mesh
from partita.runtime.parcels import SMALL_BYTES, SMALL_SUM_BYTES, parcels
from partita.runtime.process import process_group
from partita.runtime.program import Collective, CollectiveKind


@pytest.fixture
def alone() -> Generator[Processes]:
    """An axis of one process."""
    with process_group(torch.device("cpu")):
        group = dist.group.WORLD
        assert group is not None
        yield Processes(Mesh((("data", 1),)), 0, {"data": group})


def summed(shapes: list[tuple[int, ...]], in_place: bool = True) -> Collective:
    names = tuple(f"x{at}" for at in range(len(shapes)))
    outputs = tuple(f"y{at}" for at in range(len(shapes)))
    kept = names if in_place else ()
    return Collective("all_reduce", "data", names, outputs, tuple(shapes), "f32", frees=kept, in_place=kept)


SHAPES = st.lists(st.integers(2, 4), max_size=3).map(tuple)


def drawn(shape: tuple[int, ...], turned: bool) -> torch.Tensor:
    """Dense, its elements in the order of its axes or in the opposite one."""
    axes = [*reversed(range(len(shape)))] if turned else [*range(len(shape))]
    return torch.randn([shape[axis] for axis in axes]).permute(axes)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SHAPES, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_terms_come_back_as_they_lay(
    alone: Processes, shapes: list[tuple[int, ...]], in_place: bool, turned: bool
) -> None:
    terms = [drawn(shape, turned) for shape in shapes]
    wanted = [(term.clone(), term.stride()) for term in terms]
    results = alone.begin(summed([tuple(term.shape) for term in terms], in_place), terms).results()
    for (value, stride), result in zip(wanted, results, strict=True):
        assert torch.equal(result, value) and result.stride() == stride
    if len(terms) > 1:
        assert len({result.untyped_storage().data_ptr() for result in results}) == 1, "nothing is copied back"


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter"])
def test_a_line_through_other_memory_is_sent_in_one_piece(alone: Processes, kind: CollectiveKind) -> None:
    """gloo and NCCL refuse what `reshape` leaves as it lies: every second element, a column, one element for all."""
    lines = [torch.arange(8.0)[::2], torch.arange(8.0).view(4, 2)[:, 1:], torch.ones(1).expand(4)]
    for line in lines:
        sent = Collective(kind, "data", ("x",), ("y",), (tuple(line.shape),), "f32", dims=(0,), sizes=(4,))
        begun = alone.begin(sent, [line])
        assert all(one.is_contiguous() for _, message, _ in begun.messages for one in message.kept)
        assert torch.equal(begun.results()[0], line)


def test_large_terms_are_summed_where_they_lie(alone: Processes) -> None:
    small, large = torch.ones(3), torch.ones(SMALL_SUM_BYTES // 4 + 1)
    sent = summed([(3,), tuple(large.shape)])
    found = alone.begin(sent, [small, large]).results()
    assert found[1].data_ptr() == large.data_ptr()


@pytest.mark.parametrize(("kind", "limit"), [("all_reduce", SMALL_SUM_BYTES), ("all_gather", SMALL_BYTES)])
def test_members_up_to_a_limit_share_a_message(kind: CollectiveKind, limit: int) -> None:
    cut = () if kind == "all_reduce" else (0, 0, 0)
    shapes = ((limit // 4,), (limit // 4 + 1,), (1,))
    sent = Collective(kind, "data", ("a", "b", "c"), ("x", "y", "z"), shapes, "f32", dims=cut, sizes=cut)
    assert parcels(sent, 4, gloo=True) == ((0, 2), (1,))
    assert parcels(sent, 4, gloo=False) == ((0, 1, 2),)
