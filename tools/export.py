"""`partita export`: a checkpoint's weights as safetensors with a configuration, under the names of the weight map."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..runtime.exchange import export_weights
from .arguments import add_spec, add_which
from .import_ import TYPES, map_of, told

EXAMPLE = "partita export specs/models/gpt2.partita out/gpt2/checkpoints -o gpt2-hf --size small"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    add_spec(parser)
    parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint, or a folder of some: the newest is taken")
    parser.add_argument(
        "-o", "--out", metavar="DIR", required=True, help="the folder to write, which must not be there"
    )
    parser.add_argument("--dtype", choices=TYPES, help="the type that is written (default: the checkpoint's)")
    add_which(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the folder."""
    weights = map_of(options)
    made = export_weights(weights, Path(options.checkpoint), Path(options.out), options.dtype)
    print(told(weights, made))
    return 0
