"""Checkpoints: the store in safetensors files through `torch.distributed.checkpoint`, scalars in JSON, never pickle.

A checkpoint is a folder `step-00000100`. It is written beside, synced and renamed, so that a crash at any moment leaves
the last good one; whatever bears the name is complete. Names in it are logical, the same under every plan.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

from .execute import DTYPES
from .fault import RuntimeFault
from .mesh import Place, store_of
from .program import Build, Parameter, State
from .saved import SCALARS, Scalars, begins, checkpoints, differences, latest, read_scalars
from .state import Store, initial_tensor, tensors_of

SPARED = "spared.txt"
FILE_BYTES = 256 << 20  # a file of tensors is built in memory before it is written
_LEFT_OVER = (".partial-", ".removing-")


def save(
    folder: Path,
    build: Build,
    store: Store,
    step: int,
    seed: int,
    keep: int = 0,
    place: Place | None = None,
    losses: Iterable[float] = (),
) -> Path:
    """Write `folder/step-…`, then remove all but the newest `keep` (0: none is removed). Every rank calls it.

    Of those that were spared (see `spare`), as many stay beside.

    Raises `RuntimeFault` E0512 if it cannot be written; earlier checkpoints stay and what was begun is removed.
    """
    shapes = {name: list(item.shape) for name, item in tensors_of(build).items()}
    scalars = Scalars(build.name, step, seed, shapes, losses=list(losses))
    tensors = store_of(place, build, {name: store[name] for name in shapes if name in store})
    files = _file_numbers(tensors_of(build).values())
    return _save(folder, scalars, lambda partial: _write_tensors(partial, tensors, files), keep)


def save_parts(folder: Path, scalars: Scalars, parts: Iterable[dict[str, torch.Tensor]]) -> Path:
    """Write `folder/step-…` of tensors that come in parts, a file each, so that one part is in memory at a time."""

    def write(partial: Path) -> None:
        for number, part in enumerate(parts, 1):
            save_file(part, partial / f"part-{number:05d}.safetensors")

    return _save(folder, scalars, write, 0)


def _save(folder: Path, scalars: Scalars, write: Callable[[Path], None], keep: int) -> Path:
    step = scalars.step
    final, partial = folder / _name(step), folder / f".partial-{_name(step)}"
    if final.exists():
        raise RuntimeFault("E0512", f"{final} exists already", "resume from it, or name another folder")
    try:
        if _leads():
            folder.mkdir(parents=True, exist_ok=True)
            remove_left_overs(folder)
            partial.mkdir()
        _barrier()
        write(partial)
        _barrier()
        if _leads():
            _write_scalars(partial, scalars)
            os.rename(partial, final)
            sync(folder)
    except (OSError, CheckpointException, SafetensorError) as fault:
        shutil.rmtree(partial, ignore_errors=True)
        reason = _reason(fault)
        raise RuntimeFault("E0512", f"checkpoint {final} cannot be written: {reason}", _hint(reason)) from fault
    except RuntimeFault:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if _leads() and keep:
        _prune(folder, keep)
    _barrier()
    return final


def load(path: Path, build: Build, store: Store, place: Place | None = None) -> Scalars:
    """Read a checkpoint into `store`, in place: all of it, or the parameters alone if the store holds only those.

    On a mesh the store holds the parts of this process, whatever mesh the checkpoint was written on.

    What an imported checkpoint lacks begins as declared. Raises `RuntimeFault` E0511 for another model, E0513 for what
    is damaged or of another format.
    """
    scalars = read_scalars(path)
    wanted = {name: item for name, item in tensors_of(build).items() if name in store}
    fresh = {name: item for name, item in wanted.items() if begins(item, scalars)}
    held = {name: item for name, item in wanted.items() if name not in fresh}
    found = differences(held, scalars.tensors, whole=len(wanted) == len(tensors_of(build)))
    if found:
        more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
        raise RuntimeFault(
            "E0511",
            f"checkpoint {path} is of another model ({scalars.model}): {'; '.join(found[:4])}{more}",
            "resume with the spec, the size and the options that it was trained with",
        )
    read_tensors(path, store_of(place, build, {name: store[name] for name in held}))
    rank, seed = place.rank if place else None, int(build.recipe.get("seed", 0))
    for name, item in fresh.items():
        store[name].copy_(initial_tensor(build, item, seed, rank=rank))
    return scalars


def read_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Read some tensors of a checkpoint in place, into their own types. Raises `RuntimeFault` E0513."""
    try:
        HuggingFaceStorageReader(str(path)).read_metadata()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that there is no process group
            dcp_load(tensors, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=not _distributed())
    except (OSError, CheckpointException, SafetensorError, ValueError, KeyError) as fault:
        raise RuntimeFault("E0513", f"checkpoint {path} is damaged: {_reason(fault)}", "remove that folder") from fault


def dtype_of(path: Path, name: str) -> torch.dtype:
    """The type that a tensor of a checkpoint has. Raises `RuntimeFault` E0513."""
    try:
        found = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata[name]
    except (OSError, SafetensorError, ValueError, KeyError) as fault:
        raise RuntimeFault("E0513", f"checkpoint {path} is damaged: {_reason(fault)}", "remove that folder") from fault
    assert isinstance(found, TensorStorageMetadata), f"{name} is a tensor"
    return found.properties.dtype


def begin_with(path: Path, build: Build, store: Store, place: Place | None = None) -> None:
    """Read the parameters that a checkpoint has into `store`, in place; the others stay as they are.

    So do states, except those that an imported checkpoint has, which are the model's own.

    `path` is a checkpoint, or a folder of some, of which the newest counts. What the model has beside them (an
    adapter's parameters) keeps its initial values; a checkpoint that has none of the model's, or one of another shape,
    is of another model. Raises `RuntimeFault` E0510, E0511, E0513.
    """
    found = path if (path / SCALARS).is_file() else latest(path)
    scalars = read_scalars(found)
    known = scalars.tensors
    chosen = {item.name: store[item.name] for item in build.parameters if item.name in known}
    if scalars.anew is not None:
        chosen |= {item.name: store[item.name] for item in build.states if item.name in known}
    if not chosen:
        raise RuntimeFault("E0511", f"checkpoint {found} has no parameter of {build.name}", "is it of its base?")
    load(found, build, chosen, place)


def remove_all(folder: Path) -> None:
    """Remove the checkpoints of a folder, the oldest first."""
    for path in checkpoints(folder):
        _remove(path)


def remove_left_overs(folder: Path) -> None:
    """What a kill in the middle of `save`, or of a removal, left; the folder may not be there yet."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(_LEFT_OVER):
            shutil.rmtree(path)


def _write_tensors(folder: Path, tensors: dict[str, torch.Tensor], files: dict[str, int]) -> None:
    writer = HuggingFaceStorageWriter(str(folder), files, save_distributed=_distributed())
    dense = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that there is no process group
        dcp_save(dense, storage_writer=writer, no_dist=not _distributed())


def _file_numbers(items: Iterable[Parameter | State]) -> dict[str, int]:
    """Which file, from 1, a tensor goes to: each holds about FILE_BYTES. Every rank says it of all, also of what only
    others hold."""
    numbers: dict[str, int] = {}
    number, filled = 1, 0
    for item in items:
        size = math.prod(item.shape) * DTYPES[item.dtype].itemsize
        if filled and filled + size > FILE_BYTES:
            number, filled = number + 1, 0
        numbers[item.name], filled = number, filled + size
    return numbers


def _write_scalars(folder: Path, scalars: Scalars) -> None:
    with (folder / SCALARS).open("w") as file:
        json.dump(asdict(scalars), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    for path in folder.iterdir():
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Bring a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def spare(path: Path, reason: str) -> None:
    """Keep a checkpoint when its turn to be removed comes, and say why: the last one before something went wrong."""
    (path / SPARED).write_text(reason + "\n")


def _prune(folder: Path, keep: int) -> None:
    found = checkpoints(folder)
    spared = [path for path in found if (path / SPARED).exists()]
    plain = [path for path in found if path not in spared]
    for path in (*plain[:-keep], *spared[:-keep]):
        _remove(path)


def _remove(path: Path) -> None:
    """Renamed first, so that half a checkpoint never bears the name of a whole one."""
    away = path.with_name(f".removing-{path.name}")
    os.rename(path, away)
    shutil.rmtree(away, ignore_errors=True)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _reason(fault: BaseException) -> str:
    """The cause, without the tracebacks that torch wraps about it."""
    if isinstance(fault, CheckpointException):
        causes = [cause for cause, _ in fault.failures.values()]
        return _reason(causes[0]) if causes else "unknown"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return str(fault)


def _hint(reason: str) -> str | None:
    full = "space" in reason or "quota" in reason
    return "free some space, or keep fewer checkpoints; the earlier ones are intact" if full else None


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _leads() -> bool:
    return not _distributed() or dist.get_rank() == 0


def _barrier() -> None:
    if _distributed():
        dist.barrier()
