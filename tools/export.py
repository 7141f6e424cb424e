"""`partita export`: a checkpoint's weights as safetensors with a configuration, under the names of the weight map."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..compiler.elaborate.models import elaborate_model
from ..compiler.ir.types import DType
from ..runtime.exchange import export_weights
from .adapters import Merge, merges
from .arguments import add_spec, add_which
from .fault import CommandFault
from .import_ import TYPES, map_of, named_model, told

EXAMPLE = "partita export specs/models/gpt2.partita out/gpt2/checkpoints -o gpt2-hf --size small"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint, or a folder of some: the newest is taken")
    parser.add_argument(
        "-o", "--out", metavar="DIR", required=True, help="the folder to write, which must not be there"
    )
    parser.add_argument("--dtype", choices=TYPES, help="the type that is written (default: the checkpoint's)")
    parser.add_argument(
        "--merged", action="store_true", help="fold adapters into the weights that they adapt, under the base's names"
    )
    add_which(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the folder."""
    weights = map_of(options)
    found = {one.weight: one for one in merges_of(options, weights.anew)} if options.merged else {}
    made = export_weights(weights, Path(options.checkpoint), Path(options.out), options.dtype, found)
    print(told(weights, made))
    return 0


def merges_of(options: argparse.Namespace, adapters: tuple[str, ...]) -> list[Merge]:
    """How the adapters of the model that a command line names change its weights."""
    ref = named_model(options)
    graph, _ = elaborate_model(ref.spec, ref.name, size=ref.size, dims=ref.dims, options=ref.options, dtype=DType.F64)
    if not adapters:
        raise CommandFault(f"{graph.name} has no adapter to merge")
    return merges(graph, adapters)
