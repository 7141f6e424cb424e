"""Safetensors files of others: what a file, or a folder of files with an index, holds, read one tensor at a time.

The files are not trusted. safetensors checks every header (its size, that tensors lie inside the file and do not
overlap) and runs nothing; pickles are refused; an index may name files of its own folder alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from .fault import RuntimeFault

SUFFIX = ".safetensors"
INDEX = "model.safetensors.index.json"
CONFIG = "config.json"
MAX_JSON_BYTES = 64 << 20
MAX_FILES = 10_000
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
#: safetensors' names of the types that weights may have.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of a file: where it lies, its shape, safetensors' name of its type."""

    file: Path
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Files:
    """What was found: every tensor by its name. Only headers were read."""

    path: Path
    entries: Mapping[str, Entry]

    def read(self, name: str) -> torch.Tensor:
        """One tensor, as it lies in its file. Raises `RuntimeFault` E0550."""
        try:
            with safe_open(self.entries[name].file, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as fault:
            raise _unreadable(self.entries[name].file, fault) from fault


def open_files(path: Path) -> Files:
    """The tensors of a file or folder. Raises `RuntimeFault` E0550."""
    entries: dict[str, Entry] = {}
    for file in _files(path):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (it is no mapping)
                    if name in entries:
                        raise RuntimeFault("E0550", f"{name} is in {entries[name].file.name} and in {file.name}")
                    part = opened.get_slice(name)
                    entries[name] = Entry(file, tuple(part.get_shape()), str(part.get_dtype()))
        except (OSError, SafetensorError) as fault:
            raise _unreadable(file, fault) from fault
    return Files(path, entries)


def read_config(path: Path) -> dict[str, Any]:
    """The `config.json` beside the weights, empty where there is none. Raises `RuntimeFault` E0550."""
    folder = path if path.is_dir() else path.parent
    return _json(folder / CONFIG) if (folder / CONFIG).is_file() else {}


def _files(path: Path) -> list[Path]:
    if path.is_file() and path.suffix == SUFFIX:
        return [path]
    if path.is_file():
        raise _pickle(path) if path.suffix in PICKLES else RuntimeFault("E0550", f"{path} is no safetensors file")
    if not path.is_dir():
        raise RuntimeFault("E0550", f"there is no {path}", "name a .safetensors file or a folder that holds some")
    if (path / INDEX).is_file():
        return _indexed(path)
    found = sorted(path.glob(f"*{SUFFIX}"))
    if not found:
        pickles = [item for item in sorted(path.iterdir()) if item.suffix in PICKLES]
        raise _pickle(pickles[0]) if pickles else RuntimeFault("E0550", f"{path} holds no safetensors file")
    return found


def _indexed(folder: Path) -> list[Path]:
    """The files that an index names, which lie in its folder."""
    names = _json(folder / INDEX).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in cast("dict[Any, Any]", names).values()):
        raise RuntimeFault("E0550", f"{folder / INDEX} has no weight_map of names")
    files = sorted(set(cast("dict[str, str]", names).values()))
    if len(files) > MAX_FILES:
        raise RuntimeFault("E0550", f"{folder / INDEX} names {len(files)} files, more than {MAX_FILES}")
    for name in files:
        if PurePath(name).name != name or name in ("", ".", "..") or "\\" in name or "\0" in name:
            raise RuntimeFault("E0504", f"{folder / INDEX} names {name!r}, which is not in its folder")
        if not name.endswith(SUFFIX):
            raise _pickle(folder / name)
        if not (folder / name).is_file():
            raise RuntimeFault("E0550", f"{folder / INDEX} names {name}, which is not there", "fetch all of its files")
    return [folder / name for name in files]


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise RuntimeFault("E0550", f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB")
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        raise _unreadable(path, fault) from fault
    if not isinstance(data, dict):
        raise RuntimeFault("E0550", f"{path} holds no JSON object")
    return cast("dict[str, Any]", data)


def _pickle(path: Path) -> RuntimeFault:
    hint = "a pickle can run any code when it is opened; convert it to safetensors where it is trusted"
    return RuntimeFault("E0550", f"{path} is a pickle, and only safetensors are read", hint)


def _unreadable(path: Path, fault: BaseException) -> RuntimeFault:
    reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
    return RuntimeFault("E0550", f"{path} cannot be read: {reason or type(fault).__name__}", "is it complete?")
