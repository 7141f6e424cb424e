"""`partita check`: says everything that is wrong with specs, as text or as JSON for editors.

With `--checkpoint` it says whether that will load under a recipe's plan.

It answers at once: what draws, compiles or counts is loaded only where `--set` or `--size` asks for a recipe's or a
size's own faults.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from ..compiler.base.diagnostic import Diagnostic, Severity, SpecError, render_all
from ..compiler.elaborate.check import check_text
from .arguments import add_choices, add_which, read_text, sets_of
from .fault import CommandFault

EXAMPLE = "partita check specs/models/gpt2.partita"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", help="files to check; `-` reads standard input")
    add_choices(parser)
    add_which(parser)
    parser.add_argument("--plan", metavar="FILE", help="under the plan of FILE, or FILE:NAME")
    parser.add_argument("--checkpoint", metavar="DIR", help="whether this checkpoint will load, of one recipe")
    parser.add_argument("--json", action="store_true", help="diagnostics as a JSON list")


def run(options: argparse.Namespace) -> int:
    """Checks every file; 2 if any has an error."""
    if options.plan is not None:
        from .mesh import settings_of  # it knows layouts, which take their time to load

        options.sets = [*settings_of(options.plan), *options.sets]
    sets = sets_of(options)
    if options.checkpoint is not None:
        return check_checkpoint(options)
    found = [d for name in options.specs for d in check(name, sets, options.size, options.model, options.recipe)]
    if options.json:
        print(json.dumps([d.to_json() for d in found], indent=1))
    elif found:
        print(render_all(found, sys.stderr.isatty() and "NO_COLOR" not in os.environ), file=sys.stderr)
    else:
        count = len(options.specs)
        print("no errors" if count == 1 else f"no errors in {count} specs")
    return 2 if any(d.severity is Severity.ERROR for d in found) else 0


def check_checkpoint(options: argparse.Namespace) -> int:
    """Whether a checkpoint loads; 1 if it does not. Raises SpecError, CommandFault."""
    from .checkpoints import loads, plainly, words
    from .specs import open_spec, recipe_of

    if len(options.specs) != 1:
        raise CommandFault("--checkpoint is for one spec")
    spec = open_spec(options.specs[0])
    recipe = recipe_of(spec, sets_of(options), options.size, options.recipe)
    if recipe is None:
        raise CommandFault(f"{options.specs[0]} has no recipe", "a checkpoint is of a `train` record")
    answer = loads(spec, recipe, Path(options.checkpoint))
    print(json.dumps(plainly(answer), indent=1) if options.json else words(answer, recipe.plan))
    return 1 if answer.faults else 0


def check(
    name: str,
    sets: tuple[tuple[str, str], ...] = (),
    size: str | None = None,
    model: str | None = None,
    recipe: str | None = None,
) -> list[Diagnostic]:
    """All diagnostics of one spec: syntax, names, dims of its models under every size, records."""
    try:
        source = read_text(name)
        found = list(check_text(source.text, source.path))
        asked = bool(sets) or any(choice is not None for choice in (size, model, recipe))
        if asked and not any(d.severity is Severity.ERROR for d in found):
            from ..compiler.elaborate.loss import elaborate_loss
            from .specs import bind  # it knows recipes, passes and costs, which take their time to load

            bound = bind(source, sets, size, model, recipe)
            if bound.recipe is not None:
                elaborate_loss(bound.spec, bound.recipe)
    except SpecError as fault:
        return list(fault.diagnostics)
    return found
