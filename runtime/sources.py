"""Opens what a recipe reads: text as bytes, files of integers, built-in text. Out: one read-only stream of ids.

Files are memory-mapped and looked at in pieces, never read whole. A path stays inside the folder that was named, also
after its links are followed. Faults of the user's files are `RuntimeFault`s that name the file.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from .fault import RuntimeFault
from .recipe import DataSource

Ids = npt.NDArray[np.integer]
DTYPES: Mapping[str, str] = {"uint8": "u1", "uint16": "<u2", "uint32": "<u4", "int32": "<i4", "int64": "<i8"}
CHECK_BYTES = 64 << 20  # a piece of a file that is checked at once


@dataclass(frozen=True, slots=True)
class Stream:
    """Several files read as one run of ids. `ends[i]` is the position after the last id of `parts[i]`."""

    parts: tuple[Ids, ...]
    names: tuple[str, ...]
    ends: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """Ids start … start+length-1, across the files' ends."""
        assert start >= 0 and start + length <= len(self), "a window beyond the data"
        pieces: list[Ids] = []
        part = int(np.searchsorted(self.ends, start, side="right"))
        while length > 0:
            begin = int(self.ends[part]) - len(self.parts[part])
            piece = self.parts[part][start - begin : start - begin + length]
            pieces.append(piece)
            start, length, part = start + len(piece), length - len(piece), part + 1
        return np.concatenate(pieces).astype(np.int64)

    def place(self, position: int) -> str:
        """`file, id n`: where a position of the stream stands in its file."""
        part = int(np.searchsorted(self.ends, position, side="right"))
        return f"{self.names[part]}, id {position - (int(self.ends[part]) - len(self.parts[part]))}"


def open_source(source: DataSource, data_root: Path | None = None) -> Stream:
    """The stream of a source.

    Raises `RuntimeFault`: not found (E0501), empty (E0502), outside (E0504), unknown (E0505), unreadable (E0506).
    """
    if source.kind == "corpus":
        parts, names = _corpus(source.paths), source.paths
    else:
        files = find_files(source.paths, data_root or Path(source.folder))
        parts = tuple(_map(path, "uint8" if source.kind == "text" else source.dtype) for path in files)
        names = tuple(str(path) for path in files)
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
    if int(ends[-1]) == 0:
        raise RuntimeFault(
            "E0502", f"the data is empty: {_listed(names)}", "name a file that holds some text or tokens"
        )
    return Stream(parts, tuple(names), ends)


def find_files(patterns: Sequence[str], root: Path) -> tuple[Path, ...]:
    """Regular files that fit the patterns, each once, sorted by path; every pattern must find one."""
    root = root.resolve()
    found: set[Path] = set()
    for pattern in patterns:
        _refuse_outside(pattern)
        try:
            matches = [path for path in root.glob(pattern) if not path.is_dir()]
        except (OSError, ValueError, NotImplementedError) as fault:
            raise RuntimeFault("E0501", f"{pattern!r} is not a usable pattern: {fault}") from fault
        if not matches:
            raise RuntimeFault(
                "E0501",
                f"no file fits {pattern!r} in {root}",
                "paths are relative to the spec's folder, or to --data-root",
            )
        found.update(matches)
    for path in found:
        _refuse_escape(path, root)
    return tuple(sorted(found))


def _refuse_outside(pattern: str) -> None:
    if PurePath(pattern).is_absolute() or ".." in PurePath(pattern).parts:
        raise RuntimeFault(
            "E0504",
            f"{pattern!r} leaves the folder of the spec",
            "name the folder that the data lies in with --data-root",
        )


def _refuse_escape(path: Path, root: Path) -> None:
    """A link may point about inside the root, not out of it; devices and pipes are not data."""
    try:
        target = path.resolve(strict=True)
        regular = stat.S_ISREG(target.stat().st_mode)
    except (OSError, RuntimeError) as fault:
        raise RuntimeFault("E0506", f"{path} cannot be read: {fault}") from fault
    if not target.is_relative_to(root):
        raise RuntimeFault(
            "E0504", f"{path} is a link that leaves {root}", "name the folder that the data lies in with --data-root"
        )
    if not regular:
        raise RuntimeFault("E0506", f"{path} is not a regular file")


def _map(path: Path, dtype: str) -> Ids:
    if dtype not in DTYPES:
        raise RuntimeFault("E0505", f"tokens of type {dtype!r}", f"the types are {', '.join(DTYPES)}")
    element = np.dtype(DTYPES[dtype])
    try:
        size = path.stat().st_size
        if size % element.itemsize:
            raise RuntimeFault(
                "E0506",
                f"{path} has {size} bytes, which is no whole number of {dtype}",
                f"is it a file of {dtype}? `dtype` of tokens(...) says how wide an id is",
            )
        if size == 0:  # an empty file cannot be mapped
            return np.zeros(0, element)
        return np.memmap(path, dtype=element, mode="r")
    except OSError as fault:
        raise RuntimeFault("E0506", f"{path} cannot be read: {fault}") from fault


def _corpus(names: Sequence[str]) -> tuple[Ids, ...]:
    for name in names:
        if name != "python-docs":
            raise RuntimeFault("E0505", f"no built-in text {name!r}", "there is `python-docs`")
    return tuple(np.frombuffer(python_docs(), dtype=np.uint8) for _ in names)


def python_docs() -> bytes:
    """Python's own help texts, sorted by key, an empty line between them. Its length depends on Python's version."""
    from pydoc_data.topics import topics  # half a megabyte, of use to this source alone

    return "\n\n".join(topics[key].strip("\n") for key in sorted(topics)).encode() + b"\n"


def check_range(stream: Stream, below: int) -> None:
    """Every id is in [0, below). Raises `RuntimeFault` E0503 with the first id that is not, and where it is."""
    position = 0
    for part in stream.parts:
        limits = np.iinfo(part.dtype)
        if limits.min < 0 or limits.max >= below:  # else the type alone shows it
            _check_part(stream, part, position, below)
        position += len(part)


def _check_part(stream: Stream, part: Ids, position: int, below: int) -> None:
    step = CHECK_BYTES // part.dtype.itemsize
    for begin in range(0, len(part), step):
        piece = part[begin : begin + step]
        if int(piece.max()) >= below or int(piece.min()) < 0:
            at = int(np.argmax((piece >= below) | (piece < 0)))
            raise out_of_range(int(piece[at]), below, stream.place(position + begin + at))


def out_of_range(value: int, below: int, place: str) -> RuntimeFault:
    """The fault of an id that the model's table does not hold."""
    return RuntimeFault(
        "E0503",
        f"id {value} is out of range: the model's ids are 0 to {below - 1} ({place})",
        "is it the right tokenizer, the right `dtype`, the right size of the vocabulary?",
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
