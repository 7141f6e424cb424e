"""The command line: finds the command, runs it, and turns whatever goes wrong into a message and an exit code.

0 is success, 1 says that a run or its data failed, 2 that a spec or the command line is wrong, 130 that it was
interrupted. A command is a module of this folder, loaded only when it is asked for, because answering at once is worth
more than anything else here; each has `EXAMPLE`, `arguments(parser)` and `run(options) -> exit code`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, cast

from ..compiler.base.diagnostic import SpecError, did_you_mean, render_all
from ..runtime.fault import RuntimeFault
from .fault import CommandFault

OK, FAILED, WRONG, INTERRUPTED, NO_READER = 0, 1, 2, 130, 141

# name -> the module that holds it, and what it does in a line
COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "check": ("check", "say what is wrong with specs"),
        "fmt": ("fmt", "rewrite specs in their canonical form"),
        "show": ("show", "parameters, FLOPs and memory of a model, by block"),
        "render": ("draw", "draw a model, or its whole training step"),
        "explain": ("explain", "say why a value lies on a mesh as it does"),
        "compile": ("compile", "write the build folder that trains a model"),
        "train": ("train", "train a model"),
        "launch": ("launch", "write the job file that runs a build on several hosts"),
        "generate": ("generate", "sample text from a trained model"),
        "import": ("import_", "make a checkpoint of others' weights"),
        "export": ("export", "write a checkpoint's weights for others"),
        "plan": ("plan", "find the plan that trains fastest on a cluster"),
        "fit": ("fit", "find what makes a training step fit on a device, and what it costs"),
        "schedule": ("schedule", "place a model on a pipeline and show its step's timeline"),
        "passes": ("passes", "run passes and print the graph after each"),
        "verify": ("verify.command", "run a step in every form and on a mesh, and say where two differ"),
        "audit": ("audit", "say where the error of a precision arises, node by node"),
        "bench": ("bench.command", "measure against other implementations"),
        "calibrate": ("calibrate", "time this machine's kernels, for predictions"),
        "lsp": ("lsp.command", "serve editors: diagnostics, hover, completion"),
        "docs": ("reference.command", "write the reference pages from their sources"),
        "help": ("help", "explain an error code"),
    }
)


class Command(Protocol):
    """What a command's module offers."""

    EXAMPLE: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command's arguments."""
        ...

    def run(self, options: argparse.Namespace) -> int:
        """Does it; gives the exit code."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line; never raises for what the user did."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    return guarded(lambda: dispatch([word for word in words if word != "--debug"]), debug)


def guarded(work: Callable[[], int], debug: bool = False) -> int:
    """Runs `work`; faults become messages on standard error and an exit code."""
    try:
        code = work()
        sys.stdout.flush()
        return code
    except (SpecError, RuntimeFault, CommandFault) as fault:
        if debug:
            say_where()
        say_fault(fault)
        return (
            fault.exit_code if isinstance(fault, CommandFault) else FAILED if isinstance(fault, RuntimeFault) else WRONG
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail again
        return NO_READER
    except Exception as fault:
        if debug:
            say_where()
        else:
            words = str(fault).strip().splitlines() or [""]
            print(f"partita: internal fault: {type(fault).__name__}: {words[0][:300]}", file=sys.stderr)
            print("  this is our fault; please report it with the spec and what --debug prints", file=sys.stderr)
        return FAILED


def say_where() -> None:
    """Where the fault that is being handled was raised, on standard error."""
    import traceback  # rarely needed, and it takes its time to load

    traceback.print_exc()


def say_fault(fault: SpecError | RuntimeFault | CommandFault) -> None:
    """The fault's text on standard error, in colour where that is a terminal."""
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    text = render_all(fault.diagnostics, colour) if isinstance(fault, SpecError) else str(fault)
    print(text, file=sys.stderr)


def dispatch(words: Sequence[str]) -> int:
    """Finds the command, reads its arguments, runs it."""
    if not words or words[0] in ("--help", "-h"):
        print(overview())
        return OK if words else WRONG
    name, rest = words[0], words[1:]
    if name == "--version":
        print(f"partita {importlib.import_module('importlib.metadata').version('partita')}")
        return OK
    if name not in COMMANDS:
        what = "option" if name.startswith("-") else "command"
        raise CommandFault(f"no {what} `{name}`", did_you_mean(name, COMMANDS) or "`partita --help` lists the commands")
    module, summary = COMMANDS[name]
    command = cast(Command, importlib.import_module(f".{module}", __package__))
    parser = _Parser(
        prog=f"partita {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {command.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.arguments(parser)
    parser.add_argument("--debug", action="store_true", help="print a traceback when something goes wrong")
    try:
        options = parser.parse_args(rest)
    except SystemExit as leave:  # --help has printed
        return leave.code if isinstance(leave.code, int) else OK
    return command.run(options)


def overview() -> str:
    """The text of `partita --help`."""
    lines = [f"  {name:<10}{summary}" for name, (_, summary) in COMMANDS.items()]
    head = "Partita: a declarative model-spec compiler and runtime.\n\nusage: partita COMMAND ...\n"
    tail = "\n`partita COMMAND --help` tells more, with an example. Specs end in .partita."
    return "\n".join([head, *lines, tail])


class _Parser(argparse.ArgumentParser):
    """Errors as faults like all others."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise CommandFault(message, f"`{self.prog} --help` tells more")


if __name__ == "__main__":
    sys.exit(main())
