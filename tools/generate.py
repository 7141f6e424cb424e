"""`partita generate`: samples from a trained model, as it is drawn: text, or ids where the model has tokens."""

from __future__ import annotations

import argparse
import codecs
import sys
from pathlib import Path

from ..compiler.elaborate.load import SUFFIX
from ..compiler.elaborate.recipe import Sample
from .arguments import add_kernels, kernels_of
from .fault import CommandFault
from .sample import sample_ids
from .specs import open_spec, recipe_of

EXAMPLE = 'partita generate out/docs_demo --prompt "The " --temperature 0.7 --top-k 40 --tokens 200'


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "run", metavar="RUN", help="a run's folder, one of its checkpoints, or a spec: its run in out/RECIPE"
    )
    parser.add_argument("--recipe", metavar="NAME", help="which recipe, where the spec has several")
    parser.add_argument(
        "--prompt", metavar="TEXT", default="\n", help="what the sample goes on from; ids of a model of tokens"
    )
    parser.add_argument("--tokens", metavar="N", type=int, default=200, help="how many are drawn (default 200)")
    parser.add_argument(
        "--temperature", metavar="X", type=float, default=0.8, help="0 takes the likeliest (default 0.8)"
    )
    parser.add_argument("--top-k", metavar="K", type=int, default=0, help="draw from the K likeliest (default: all)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="the same seed gives the same text")
    add_kernels(parser)
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu or cuda (default cpu)")


def run(options: argparse.Namespace) -> int:
    """Writes the prompt and what follows it to standard output."""
    build, checkpoint = folders(run_of(options.run, options.recipe))
    if options.tokens < 0:
        raise CommandFault(f"--tokens {options.tokens} is negative")
    sample = Sample(options.prompt, options.tokens, options.temperature, options.top_k, options.seed)
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    ids, are_bytes = sample_ids(build, checkpoint, sample, options.device, kernels_of(options))
    sys.stdout.write(sample.prompt if are_bytes else sample.prompt.strip())
    for value in ids:
        sys.stdout.write(decode(bytes([value])) if are_bytes and value < 256 else f" {value}")
        sys.stdout.flush()
    print(decode(b"", final=True))
    return 0


def run_of(name: str, recipe_name: str | None) -> Path:
    """The run's folder; for a spec that where `partita train` puts its recipe's runs."""
    if not name.endswith(SUFFIX):
        return Path(name)
    recipe = recipe_of(open_spec(name), (), None, recipe_name)
    if recipe is None:
        raise CommandFault(f"{name} has no recipe", "name the folder that `partita train --out` wrote")
    return Path(f"out/{recipe.name}")


def folders(run: Path) -> tuple[Path, Path]:
    """The build of a run and its checkpoint (or the folder of them)."""
    for above in (run, *run.absolute().parents[:3]):
        if (above / "build" / "program.json").is_file():
            return above / "build", run if above != run else run / "checkpoints"
    raise CommandFault(f"{run} is no run's folder and no checkpoint of one", "name what `partita train --out` wrote", 1)
