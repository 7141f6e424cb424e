"""How a run begins: its options, its build opened and checked, its folder, the store that it starts from.

In: a build and what the user wants of it. Out: tensors and the number of steps that are done, from a checkpoint or as
initialised. Everything that a user may have got wrong is found here, before a file is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import torch

from . import checkpoint
from .fault import RuntimeFault
from .feed import Executable
from .folder import BuildError, load
from .mesh import Place, leads
from .metrics import EvalRecord, Metrics, StepRecord
from .program_json import ProgramFormatError
from .recipe import Training
from .state import Store, empty_store, initial_store


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. `folder` is the run's own: checkpoints and metrics go there.

    resume      go on from the newest checkpoint; else a folder that holds some is refused, unless `overwrite`
    data_root   takes the place of the spec's folder in the data's paths
    device      `cpu`, `cuda`, …; None: CUDA if there is one
    kernels     packages whose foreign kernels may run
    timeline    when each part of the last step computed goes to `timeline/` (its memory is then not measured)
    timeout_s   how long a process waits for another before all leave; None: as torch does
    dump        outputs of `step` that are written to `dump/` as safetensors after the process's first step
    """

    folder: Path
    resume: bool = False
    overwrite: bool = False
    data_root: Path | None = None
    device: str | None = None
    compiled: bool = False
    kernels: tuple[str, ...] = ()
    measure_memory: bool = True
    dump: tuple[str, ...] = ()
    timeline: bool = False
    timeout_s: float | None = None
    on_step: Callable[[StepRecord], None] | None = None
    on_evaluate: Callable[[EvalRecord], None] | None = None
    on_checkpoint: Callable[[Path], None] | None = None
    on_warning: Callable[[str], None] | None = None


def open_build(folder: Path, device: torch.device, compiled: bool = False, kernels: Collection[str] = ()) -> Executable:
    """A build folder as something that runs. Raises `RuntimeFault` E0523, E0524."""
    try:
        return load(folder, device, compiled, kernels)
    except (BuildError, ProgramFormatError) as fault:
        raise RuntimeFault("E0523", str(fault), "compile it again") from fault


def check_build(executable: Executable, training: Training, options: Options) -> None:
    """Whether the build trains, and gives what is to be dumped. Raises `RuntimeFault` E0521."""
    build = executable.build
    programs = [build.programs.get(turn.program) for turn in training.turns]
    steps = [program for program in programs if program is not None and "loss" in program.outputs]
    if len(steps) < len(programs):
        raise RuntimeFault("E0521", f"{build.name} has no program that trains", "compile a train record")
    devices = [build.programs, *build.variants]
    everywhere = [one[turn.program] for turn in training.turns for one in devices if turn.program in one]
    given = dict.fromkeys(name for program in everywhere for name in program.outputs)
    missing = [name for name in options.dump if name not in given]
    if missing:
        known = f"it gives {', '.join(given)}"
        raise RuntimeFault("E0521", f"the program does not give {', '.join(missing)}", known)


def checkpoint_folder(training: Training, folder: Path) -> Path:
    """Where a run's checkpoints lie."""
    return inside(folder, training.checkpoint.to or "checkpoints")


def check_run_folder(training: Training, options: Options) -> None:
    """Whether the run's folder holds what is to be resumed, or nothing that is to be kept. Raises E0504, E0510, E0514.

    `train` asks this itself; who writes into the folder before (a compiler) asks it first.
    """
    folder = checkpoint_folder(training, options.folder)
    if options.resume:
        checkpoint.latest(folder)
    elif checkpoint.checkpoints(folder) and not options.overwrite:
        raise RuntimeFault(
            "E0514", f"{folder} holds checkpoints of an earlier run", "resume it, or name another folder"
        )


def inside(folder: Path, name: str) -> Path:
    """A path within a folder. Raises `RuntimeFault` E0504 for one that leaves it."""
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise RuntimeFault("E0504", f"{name!r} leaves the run's folder", "name another run's folder instead")
    return folder / name


@dataclass(frozen=True, slots=True)
class Start:
    """What a run starts from: its store, how many steps are done, the losses of the last of them."""

    store: Store
    done: int = 0
    losses: list[float] = field(default_factory=list[float])


def start(executable: Executable, training: Training, options: Options, place: Place | None) -> Start:
    """The store and the steps that are done: from a checkpoint, or as initialised.

    Raises `RuntimeFault` E0504, E0510, E0514, E0515, and what reading a checkpoint raises.
    """
    check_run_folder(training, options)
    folder, rank = checkpoint_folder(training, options.folder), place.rank if place else None
    if leads():
        checkpoint.remove_left_overs(folder)
    if options.resume:
        store = empty_store(executable.build, executable.device, rank)
        scalars = checkpoint.load(checkpoint.latest(folder), executable.build, store, place)
        if scalars.anew is None and scalars.seed != training.seed:
            raise RuntimeFault(
                "E0515", f"the run was begun with seed {scalars.seed}, not {training.seed}", "resume with the same seed"
            )
        return Start(store, scalars.step, scalars.losses or [])
    if checkpoint.checkpoints(folder) and leads():
        checkpoint.remove_all(folder)
    store = initial_store(executable.build, training.seed, executable.device, rank)
    if training.start is not None:
        root = options.data_root or Path(training.folder)
        checkpoint.begin_with(inside(root, training.start), executable.build, store, place)
    return Start(store)


def open_metrics(training: Training, options: Options, first: int) -> Metrics:
    """Where a run writes its metrics; of a mesh, one process does."""
    board = training.log.tensorboard
    if not leads():
        return Metrics(Path(os.devnull))
    return Metrics(
        inside(options.folder, training.log.metrics),
        inside(options.folder, board) if board else None,
        first if options.resume else None,
    )
