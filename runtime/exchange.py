"""`import` and `export`: a checkpoint from safetensors files of others, and such files from a checkpoint.

Both go through the weights in parts of some hundred megabytes, so that no file or model is in memory whole; what is
written stands beside until it is complete, then takes its name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from . import checkpoint
from .checkpoint import Scalars
from .execute import DTYPES
from .fault import RuntimeFault
from .safetensors_files import CONFIG, INDEX, open_files, read_config
from .weights import SHOWN, Theirs, WeightMap, fitted, names_used, tensor

PART_BYTES = 256 << 20
FILE_BYTES = 2 << 30
_NAMES = {torch.float64: "float64", torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
T = TypeVar("T")


class Merge(Protocol):
    """What is added to a weight: `adapter` names the parameters that it is made of; `added` makes it, in float64."""

    @property
    def adapter(self) -> tuple[str, ...]: ...

    def added(self, read: Callable[[str], Any]) -> Any: ...


NO_MERGES: Mapping[str, Merge] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was done: where it lies, how many tensors of theirs, elements of parameters of ours; what is to be said."""

    path: Path
    tensors: int
    elements: int
    remarks: tuple[str, ...]


def import_weights(weights: WeightMap, path: Path, folder: Path, dtype: str = "f32") -> Exchange:
    """Write `folder/step-00000000` from the files at a path. Raises `RuntimeFault` E0504, E0512, E0550, E0551."""
    source = fitted(open_files(path), weights)
    names, wanted = source.parameters, DTYPES[dtype]
    shapes = {name: list(source.shapes[name]) for name in names}
    sized = [(name, prod(shapes[name]) * wanted.itemsize) for name in names]
    parts = ({name: source.parameter(name, wanted) for name in part} for part in _parts(sized, PART_BYTES))
    scalars = Scalars(weights.model, 0, 0, shapes, anew=list(weights.anew))
    made = checkpoint.save_parts(folder, scalars, parts)
    remarks = tuple(_differences("", weights.config, read_config(path)))
    elements = sum(prod(shape) for name, shape in shapes.items() if name in weights.parameters)
    return Exchange(made, len(source.files.entries), elements, remarks)


def export_weights(
    weights: WeightMap, path: Path, folder: Path, dtype: str | None = None, merges: Mapping[str, Merge] = NO_MERGES
) -> Exchange:
    """Write the checkpoint at a path as safetensors and a configuration. Raises `RuntimeFault` E0511, E0513, E0552.

    `merges`: what is added to weights, by their ids; the parameters that it takes up are not written.
    """
    found = path if (path / checkpoint.SCALARS).is_file() else checkpoint.latest(path)
    _check(weights, checkpoint.read_scalars(found), found, {name for one in merges.values() for name in one.adapter})
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RuntimeFault("E0552", f"{folder} exists already", "name a folder that is not there")
    kind = DTYPES[dtype] if dtype else checkpoint.dtype_of(found, next(iter(weights.parameters)))
    written = [theirs for theirs in weights.tensors if not theirs.tied]
    partial = folder.with_name(f".partial-{folder.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(written, weights, found, partial, kind, merges)
        for item in (*partial.iterdir(), partial):
            checkpoint.sync(item)
        if folder.exists():
            folder.rmdir()
        os.rename(partial, folder)
        checkpoint.sync(folder.absolute().parent)
    except (OSError, SafetensorError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        raise RuntimeFault("E0552", f"{folder} cannot be written: {reason}") from fault
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    elements = sum(prod(shape) for name, shape in weights.parameters.items() if name not in weights.anew)
    return Exchange(folder, len(written), elements, ())


def _check(weights: WeightMap, scalars: Scalars, path: Path, merged: set[str]) -> None:
    faults = [
        f"{name} is {scalars.tensors.get(name, 'not')} there and {list(shape)} here"
        for name, shape in weights.shapes.items()
        if scalars.tensors.get(name) != list(shape) and (name not in weights.anew or name in merged)
    ]
    if faults:
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        lines = "; ".join(faults[:SHOWN]) + more
        raise RuntimeFault("E0511", f"checkpoint {path} is of another model ({scalars.model}): {lines}")
    left = [name for name in weights.anew if name not in merged]
    if left:
        title = f"{weights.model} has parameters that {weights.source} has no place for: {', '.join(left[:SHOWN])}"
        raise RuntimeFault(
            "E0552", title, None if merged else "--merged folds adapters into the weights that they adapt"
        )


def _write(
    tensors: Sequence[Theirs], weights: WeightMap, path: Path, folder: Path, dtype: torch.dtype,
    merges: Mapping[str, Merge],
) -> None:  # fmt: skip
    parts = list(_parts(((one, prod(one.shape) * dtype.itemsize) for one in tensors), FILE_BYTES))
    files, shapes = dict[str, str](), weights.shapes
    for number, part in enumerate(parts, 1):
        name = "model.safetensors" if len(parts) == 1 else f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        ours = {one: torch.empty(shapes[one], dtype=dtype) for one in names_used(part)}
        checkpoint.read_tensors(path, ours)
        ours.update((name, _merged(name, merges[name], weights, path, dtype)) for name in ours if name in merges)
        made = {one.name: tensor(one, ours.__getitem__) for one in part}
        save_file(made, folder / name, metadata={"format": "pt"})
        files.update(dict.fromkeys(made, name))
    if len(parts) > 1:
        total = sum(prod(one.shape) for one in tensors) * dtype.itemsize
        _json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": files})
    _json(folder / CONFIG, {**weights.config, "torch_dtype": _NAMES[dtype]})


def _merged(name: str, merge: Merge, weights: WeightMap, path: Path, dtype: torch.dtype) -> torch.Tensor:
    """A weight and what is added to it, in float64 until it is written."""
    read = {one: torch.empty(weights.shapes[one], dtype=torch.float64) for one in (name, *merge.adapter)}
    checkpoint.read_tensors(path, read)
    added = torch.from_numpy(merge.added(lambda one: read[one].numpy()).copy())
    return (read[name] + added).to(dtype)


def _json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _parts(items: Iterable[tuple[T, int]], most: int) -> Iterator[list[T]]:
    """Items with their sizes in bytes, in runs that are no larger than `most` or single."""
    part: list[T] = []
    filled = 0
    for item, size in items:
        if part and filled + size > most:
            yield part
            part, filled = [], 0
        part.append(item)
        filled += size
    if part:
        yield part


def _differences(at: str, ours: Any, theirs: Any) -> Iterator[str]:
    """Where their configuration says something else than the map's; what only one of them says is no difference."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        other = cast("dict[str, Any]", theirs)
        for key, value in cast("dict[str, Any]", ours).items():
            if key in other:
                yield from _differences(f"{at}.{key}" if at else key, value, other[key])
    elif ours != theirs and theirs is not None and ours != [theirs] * 2:  # one size for both axes of an image
        yield f"their configuration says {at} = {json.dumps(theirs)}, the spec {json.dumps(ours)}"
