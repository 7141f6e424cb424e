"""`--mesh`, `--pin` and `--zero` of commands that compile and train: onto which devices, and what the layout keeps to.

In: the command line's words. Out: a mesh and wishes for `pipeline.compile_recipe`, and processes that run the build.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from ..compiler.elaborate.models import BATCH
from ..compiler.ir.layout import Mesh
from ..compiler.partition.choices import DATA, Wishes
from ..runtime.layout import mesh_of
from .fault import CommandFault


@dataclass(frozen=True)
class Devices:
    """mesh: None for one device. wishes: what the layout must keep to."""

    mesh: Mesh | None = None
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def count(self) -> int:
        """How many processes run it."""
        return self.mesh.devices if self.mesh else 1


def add_mesh(parser: argparse.ArgumentParser) -> None:
    """--mesh, --pin and --zero."""
    parser.add_argument("--mesh", metavar="AXIS=SIZE,…", help="run on several devices: data=2,tensor=2")
    parser.add_argument(
        "--pin", metavar="DIM=AXIS", action="append", default=[], help="cut a dim by an axis (none: by no axis)"
    )
    parser.add_argument("--zero", type=int, choices=range(4), help="the stage of ZeRO over the axis `data`")


def devices_of(options: argparse.Namespace) -> Devices:
    """What the words say. An axis `data` cuts the batch, unless a pin says what it cuts or the batch is pinned."""
    if options.mesh is None:
        if options.pin or options.zero is not None:
            raise CommandFault("pins and a ZeRO stage need a mesh", "for instance --mesh data=2,tensor=2")
        return Devices()
    try:
        mesh = Mesh(mesh_of(options.mesh).axes)
    except ValueError as fault:
        raise CommandFault(f"--mesh: {fault}", "for instance --mesh data=2,tensor=2") from None
    pins: dict[str, tuple[str, ...]] = {}
    for word in options.pin:
        dim, equals, axis = (piece.strip() for piece in word.partition("="))
        if not equals or not dim or not axis:
            raise CommandFault(f"`--pin {word}` is not DIM=AXIS", "for instance --pin H=tensor")
        pins[dim] = pins.get(dim, ()) + (() if axis == "none" else (axis,))
    if DATA in mesh.names and BATCH not in pins and not any(DATA in axes for axes in pins.values()):
        pins[BATCH] = (DATA,)
    return Devices(mesh, Wishes(pins, options.zero))


def run_words(options: argparse.Namespace, folder: Path, kernels: tuple[str, ...]) -> list[str]:
    """The command line of each process, behind the build's folder."""
    words = ["--run", str(folder), "--device", options.device]
    words += ["--resume"] if options.resume else []
    words += ["--overwrite"] if options.overwrite else []
    words += ["--data-root", options.data_root] if options.data_root else []
    words += [word for name in options.dump for word in ("--dump", f"dump/{name}")]
    return words + [word for name in kernels for word in ("--kernels", name)]
