"""Meshes of a few devices: one to three axes, sizes that are no powers of two, an axis in factors."""

from __future__ import annotations

from hypothesis import strategies as st
from partita.compiler.ir.layout import Mesh

_PLAIN = ((1,), (2,), (3,), (5,), (1, 1), (2, 1), (2, 2), (2, 3), (3, 2), (2, 2, 2))
_FACTORED = (
    (("tensor.1", 2), ("tensor.2", 2)),
    (("tensor.1", 2), ("tensor.2", 3)),
    (("data", 2), ("tensor.1", 2), ("tensor.2", 2)),
)
MESHES = (*(tuple(zip(("data", "tensor", "context"), sizes, strict=False)) for sizes in _PLAIN), *_FACTORED)

meshes = st.sampled_from(MESHES).map(Mesh)
several_devices = meshes.filter(lambda mesh: mesh.devices > 1)
