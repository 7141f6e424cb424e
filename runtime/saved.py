"""What lies in a checkpoint, without reading a tensor: its scalars, its tensors' names, and where their parts are.

In: a folder. Out: plain data, from `checkpoint.json` and the headers of the safetensors files, which are JSON behind
their length. Whether a checkpoint is that of a build follows from it, so it can be asked before anything is launched.
This module imports no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from .fault import RuntimeFault
from .program import Parameter, State

FORMAT_VERSION = 1
SCALARS = "checkpoint.json"
MAX_HEADER_BYTES = 100 << 20  # as safetensors itself allows
TYPES = {
    "F64": "f64",
    "F32": "f32",
    "BF16": "bf16",
    "F16": "f16",
    "I64": "i64",
    "I32": "i32",
    "U8": "u8",
    "BOOL": "bool",
}
_COMPLETE = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True, slots=True)
class Scalars:
    """What stands beside the tensors. `step` counts the steps that are done.

    `anew` is None for what a run wrote. One that was imported holds of the states only those of the model's own that
    its map names, and not the parameters that `anew` names: the rest begins as declared, with the seed of whoever goes
    on from it.
    """

    model: str
    step: int
    seed: int
    tensors: dict[str, list[int]]
    format_version: int = FORMAT_VERSION
    anew: list[str] | None = None
    losses: list[float] | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a tensor in a file: where it begins in the whole, its shape, its type."""

    file: str
    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _COMPLETE.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / SCALARS).is_file()]


def latest(folder: Path) -> Path:
    """The newest complete checkpoint. Raises `RuntimeFault` E0510 if there is none."""
    found = checkpoints(folder)
    if not found:
        raise RuntimeFault("E0510", f"no checkpoint in {folder}", "train first, or leave --resume out")
    return found[-1]


def read_scalars(path: Path) -> Scalars:
    """A checkpoint's scalars. Raises `RuntimeFault` E0513 for what is damaged or of another format."""
    try:
        data = cast("dict[str, Any]", json.loads((path / SCALARS).read_text()))
        if data["format_version"] != FORMAT_VERSION:
            raise RuntimeFault(
                "E0513", f"checkpoint {path} has format {data['format_version']}; this runtime reads {FORMAT_VERSION}"
            )
        tensors = {str(name): [int(size) for size in shape] for name, shape in data["tensors"].items()}
        anew = None if data.get("anew") is None else [str(name) for name in data["anew"]]
        losses = [float(loss) for loss in data.get("losses") or ()]
        return Scalars(str(data["model"]), int(data["step"]), int(data["seed"]), tensors, anew=anew, losses=losses)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise RuntimeFault("E0513", f"checkpoint {path} is damaged: {fault!r}", "remove that folder") from fault


def pieces(path: Path) -> dict[str, list[Piece]]:
    """Every tensor's parts, from the headers of a checkpoint's files. Raises `RuntimeFault` E0513."""
    found: dict[str, list[Piece]] = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            for name, piece in _header(file):
                found.setdefault(name, []).append(piece)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
            raise RuntimeFault("E0513", f"checkpoint {path} is damaged: {file.name}: {fault!r}") from fault
    return found


def _header(file: Path) -> list[tuple[str, Piece]]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes")
        data = cast("dict[str, Any]", json.loads(opened.read(length)))
    own = cast("dict[str, Any]", data.pop("__metadata__", {}))
    parts = cast("dict[str, Any]", json.loads(own.get("DCP_SHARDING_INFO", "{}")))
    ends = [int(item["data_offsets"][1]) for item in data.values()]
    if file.stat().st_size != 8 + length + max(ends, default=0):
        raise ValueError("its size is not what its header says")
    found: list[tuple[str, Piece]] = []
    for name, item in data.items():
        shape = tuple(int(size) for size in item["shape"])
        begin = parts.get(name, {}).get("saved_offsets", [0] * len(shape))
        found.append((name, Piece(file.name, tuple(map(int, begin)), shape, TYPES[item["dtype"]])))
    return found


def incomplete(whole: tuple[int, ...], parts: list[Piece]) -> bool:
    """Whether elements of a tensor are in no part: parts never overlap but where they are the same."""
    sizes = {(piece.offsets, piece.shape): math.prod(piece.shape) for piece in parts}
    return sum(sizes.values()) < math.prod(whole)


def begins(item: Parameter | State, scalars: Scalars) -> bool:
    """Whether an imported checkpoint says nothing of a tensor and need not."""
    if scalars.anew is None or item.name in scalars.tensors:
        return False
    return isinstance(item, State) or item.name in scalars.anew


def differences(wanted: Mapping[str, Parameter | State], found: Mapping[str, list[int]], whole: bool) -> list[str]:
    """Where a checkpoint's tensors are not those of a build; `whole`: whether it may have no others."""
    lines: list[str] = []
    for name, item in wanted.items():
        if name not in found:
            lines.append(f"{name} {list(item.shape)} is not in it")
        elif list(item.shape) != found[name]:
            lines.append(f"{name} is {found[name]} there and {list(item.shape)} here")
    extra = [name for name in found if name not in wanted] if whole else []
    return lines + [f"{name} {found[name]} is not in this model" for name in extra]
