"""`partita import`: a checkpoint from the safetensors files of others, by the model's weight map."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..compiler.elaborate.load import Spec
from ..compiler.elaborate.weights import weight_map
from ..runtime.exchange import Exchange, import_weights
from ..runtime.weights import WeightMap, from_plain
from .arguments import add_spec, add_which, sets_of
from .specs import chosen, open_spec, recipe_of

EXAMPLE = "partita import specs/models/gpt2.partita gpt2/ -o out/gpt2/checkpoints --size small"
TYPES = ("f32", "f64", "bf16", "f16")


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model of a spec (None: the only one), a row of its sizes, the dims and options that are given."""

    spec: Spec
    name: str | None
    size: str | None
    dims: Mapping[str, int]
    options: Mapping[str, object]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    parser.add_argument("weights", metavar="FROM", help="a .safetensors file, or a folder that holds some")
    parser.add_argument(
        "-o", "--out", metavar="DIR", required=True, help="the folder of checkpoints, such as out/RUN/checkpoints"
    )
    parser.add_argument("--dtype", choices=TYPES, default="f32", help="the type that the checkpoint has (default f32)")
    add_which(parser)


def run(options: argparse.Namespace) -> int:
    """Reads, writes, says what there was."""
    weights = map_of(options)
    made = import_weights(weights, Path(options.weights), Path(options.out), options.dtype)
    print(told(weights, made))
    for remark in made.remarks:
        print(f"warning: {remark}", file=sys.stderr)
    return 0


def map_of(options: argparse.Namespace) -> WeightMap:
    """The weight map of the model that a command line names: a recipe's, where the spec has one."""
    ref = named_model(options)
    return from_plain(weight_map(ref.spec, ref.name, size=ref.size, dims=ref.dims, options=ref.options).plain())


def named_model(options: argparse.Namespace) -> NamedModel:
    """What a command line says of a model."""
    spec, sets = open_spec(options.spec), sets_of(options)
    recipe = None if options.model else recipe_of(spec, sets, options.size, options.recipe)
    if recipe is not None:
        return NamedModel(spec, recipe.model.name, recipe.model.size, recipe.dims, recipe.model.options)
    return NamedModel(spec, options.model, options.size, *chosen(sets))


def told(weights: WeightMap, made: Exchange) -> str:
    """What was done, in a line."""
    name = f"{weights.model}.{weights.size}" if weights.size else weights.model
    return f"{made.path}  {name}, {made.tensors} tensors, {made.elements:,} parameters"
