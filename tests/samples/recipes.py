"""Recipes over the models of specs/models in their tiny sizes."""

from __future__ import annotations

from partita.compiler.base.span import Source
from partita.compiler.elaborate.load import Spec
from partita.compiler.elaborate.recipe import Recipe
from partita.compiler.elaborate.recipes import load_recipe

from .spec_texts import ROOT, opened
from .zoo import DIMS


def recipe_over(file: str, model: str, dtype: str = "f64", /, **keys: object) -> tuple[Spec, Recipe]:
    """A train record for a language model, on the cross-entropy of the next token. `keys` are further keys as text."""
    dims = dict(DIMS[file, model])
    batch = keys.pop("batch", dims.pop("batch"))
    given = {"model": model, "batch": batch, "precision": dtype, "steps": 4, "optimizer": "adamw()", "lr": 0.01, **keys}
    bound = ", ".join(f"{name} = {size}" for name, size in dims.items() if name != "T")
    lines = "\n".join(f"  {key} = {value}" for key, value in given.items())
    text = f"""use std
use {file}
train tiny {{
  dims = [T = {dims["T"]}, {bound}]
  data {{ read = text("none.txt"), rows = chunk(T), target = next(tokens) }}
  loss = mean(cross_entropy[V](logits, target))
{lines}
}}
"""
    spec = opened(Source(str(ROOT / "specs/models/tiny.partita"), text))
    return spec, load_recipe(spec, "tiny")
