"""Meshes and layouts: parts cover a dim once, in the order of ranks, whatever cuts it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from partita.compiler.ir.layout import Layout, Mesh, Reduction, chunk, has_empty_part, largest_part, local_dim, part
from partita.compiler.ir.types import Dim

meshes = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(
    lambda sizes: Mesh(tuple(zip(("data", "tensor", "expert"), sizes, strict=False)))
)


@given(meshes, st.integers(0, 40))
def test_parts_cover_a_dim_once_in_order(mesh: Mesh, extent: int) -> None:
    parts = [part(extent, mesh.names, mesh, coordinate) for coordinate in mesh.coordinates()]
    assert [place for low, high in parts for place in range(low, high)] == list(range(extent))
    assert max(high - low for low, high in parts) == largest_part(extent, mesh.names, mesh)
    assert any(low == high for low, high in parts) == has_empty_part(extent, mesh.names, mesh)


@given(meshes)
def test_ranks_count_coordinates(mesh: Mesh) -> None:
    assert [mesh.rank(coordinate) for coordinate in mesh.coordinates()] == list(range(mesh.devices))


@given(st.integers(1, 40), st.integers(1, 9))
def test_chunks_are_torch_chunks(extent: int, parts: int) -> None:
    torch = pytest.importorskip("torch")
    wanted = [len(piece) for piece in torch.arange(extent).chunk(parts)]
    found = [high - low for low, high in (chunk(extent, parts, i) for i in range(parts))]
    assert found[: len(wanted)] == wanted
    assert not any(found[len(wanted) :])


def test_a_layout_says_what_each_device_has() -> None:
    mesh = Mesh((("data", 2), ("tensor", 3)))
    dims = (Dim("batch", 5), Dim("V", 7))
    layout = Layout((("data",), ("tensor",)))
    whole = np.arange(35).reshape(5, 7)
    pieces = {c: whole[layout.slices(dims, mesh, c)] for c in mesh.coordinates()}
    assert pieces[1, 2].tolist() == [[27], [34]]
    assert pieces[0, 0].size == layout.elements(dims, mesh) == 9
    assert layout.local_dims(dims, mesh, (1, 2)) == (Dim("batch/data", 2), Dim("V/tensor", 1))
    assert local_dim(dims[0], (), mesh, (0, 0)) is dims[0]


def test_one_axis_is_changed_at_a_time() -> None:
    mesh = Mesh((("data", 2), ("tensor", 3)))
    layout = Layout((("tensor",), ()))
    both = layout.with_axis("data", 0, mesh)
    assert both.shards == (("data", "tensor"), ())
    assert (both.on("data"), both.on("tensor")) == (0, 0)
    owed = both.with_axis("tensor", Reduction.SUM, mesh)
    assert owed.on("tensor") is Reduction.SUM
    assert owed.with_axis("tensor", None, mesh).with_axis("data", None, mesh).is_replicated
