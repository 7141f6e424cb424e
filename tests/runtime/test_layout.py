"""The chunk rule is torch's and DTensor's; ranks and coordinates are one another's inverse."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st
from partita.runtime.layout import Mesh, chunk, part

AXES = st.lists(st.integers(1, 4), max_size=3).map(lambda sizes: Mesh(tuple(zip("abc", sizes, strict=False))))


@given(st.integers(0, 40), st.integers(1, 9))
def test_chunks_are_those_of_torch(size: int, parts: int) -> None:
    wanted = [c.numel() for c in torch.arange(size).chunk(parts)] if size else []
    found = [chunk(size, parts, i) for i in range(parts)]
    assert [n for _, n in found if n] == wanted
    assert all(begin + n == following for (begin, n), (following, _) in pairwise(found))


@given(AXES)
def test_ranks_are_coordinates(mesh: Mesh) -> None:
    assert [mesh.rank(mesh.coordinate(rank)) for rank in range(mesh.size)] == list(range(mesh.size))
    for rank in range(mesh.size):
        for axis in mesh.names:
            at, peers = mesh.along(rank, axis)
            assert peers[at] == rank


@given(AXES, st.lists(st.integers(0, 9), min_size=1, max_size=3), st.data())
def test_parts_cover_a_tensor_once(mesh: Mesh, shape: list[int], data: st.DataObject) -> None:
    places = st.sampled_from(["replicate", *(f"shard:{i}" for i in range(len(shape)))])
    layout = tuple(data.draw(places) for _ in mesh.names)
    copies = math.prod(n for n, cut in zip(mesh.sizes, layout, strict=True) if cut == "replicate")
    seen = torch.zeros(shape, dtype=torch.int64)
    for rank in range(mesh.size):
        view = seen
        for at, (offset, size) in enumerate(zip(*part(shape, layout, mesh, rank), strict=True)):
            view = view.narrow(at, offset, size)
        view += 1
    assert bool((seen == copies).all())
