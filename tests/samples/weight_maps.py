"""The weight maps of specs/models in tiny sizes, and random parameters for them."""

from __future__ import annotations

import torch
from partita.compiler.elaborate.weights import weight_map
from partita.compiler.language import syntax as s
from partita.runtime.weights import WeightMap, from_plain

from .spec_texts import model_spec
from .zoo import DIMS

#: Every map of specs/models: (file, model, the size that it is of).
MAPPED = tuple(
    (file, model, decl.size.text if decl.size else None)
    for file, model in DIMS
    for decl in model_spec(file).main.file.declarations
    if isinstance(decl, s.Weights) and decl.model.text == model
)


def map_of(file: str, model: str, size: str | None = None, **dims: int) -> WeightMap:
    """A model's map in its tiny size, changed by `dims`; its options are those of `size`."""
    found = weight_map(model_spec(file), model, size=size, dims={**DIMS[file, model], **dims})
    return from_plain(found.plain())


def drawn(weights: WeightMap, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Random parameters, and the states that the map names."""
    generator = torch.Generator().manual_seed(5)
    shapes = {name: shape for name, shape in weights.shapes.items() if name not in weights.anew}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
