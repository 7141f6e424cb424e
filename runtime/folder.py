"""A build folder as something that runs: read, held to its manifest, its modules imported.

In: the folder that the compiler wrote (or a build and its modules' sources), a device. Out: an `Executable`. A build
is code: every file must have the hash that the manifest says, what is imported is the text that was checked, and
kernels of other packages run only where the user allows them.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import CodeType
from typing import cast

import torch

from .execute import Executable, Module
from .fault import RuntimeFault
from .program import Build, Program, Run
from .program_json import from_json

MANIFEST = "manifest.json"


class BuildError(Exception):
    """A build folder that is not what the compiler wrote."""


def read_folder(folder: str | Path) -> dict[str, str]:
    """The texts of a build folder, each checked against the manifest. Raises `BuildError`."""
    root = Path(folder)
    try:
        hashes = cast(dict[str, str], json.loads((root / MANIFEST).read_text(encoding="utf-8"))["sha256"])
        texts = {name: (root / name).read_bytes() for name in hashes}
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise BuildError(f"{folder} is not a build folder: {fault}") from fault
    for name, text in texts.items():
        if hashlib.sha256(text).hexdigest() != hashes[name]:
            raise BuildError(f"{root / name} is not what the compiler wrote; compile again")
    return {name: text.decode() for name, text in texts.items()}


def load(
    folder: str | Path, device: str | torch.device = "cpu", compiled: bool = False, kernels: Collection[str] = ()
) -> Executable:
    """Verify a build folder and import its modules. `kernels`: the packages whose foreign kernels may run.

    Raises `BuildError`, `ProgramFormatError`, `RuntimeFault` E0524 for a package that is not allowed.
    """
    texts = read_folder(folder)
    if "program.json" not in texts:
        raise BuildError(f"{folder} has no program.json in its manifest")
    sources = {
        name.removeprefix("modules/").removesuffix(".py"): text
        for name, text in texts.items()
        if name.startswith("modules/") and name.endswith(".py")
    }
    places = {name: str(Path(folder) / "modules" / f"{name}.py") for name in sources}
    return executable(from_json(texts["program.json"]), sources, device, compiled, places, kernels)


def executable(
    build: Build,
    sources: Mapping[str, str],
    device: str | torch.device = "cpu",
    compiled: bool = False,
    places: Mapping[str, str] | None = None,
    kernels: Collection[str] = (),
) -> Executable:
    """A build with its modules' sources as something that runs. `places` are the files that tracebacks show."""
    refused = [package for package in build.kernels if package not in kernels]
    if refused:
        hint = f"--allow-kernels {','.join(refused)}, if you trust it"
        raise RuntimeFault("E0524", f"{build.name} runs code of {', '.join(refused)}, which is not allowed", hint)
    modules = {name: import_source(name, text, (places or {}).get(name)) for name, text in sources.items()}
    if compiled:
        # Forward and backward; the update is fused calls already, and the compiler knows no shapes of theirs.
        once = {i for p in _programs(build) for i in (*p.prepare, *p.update)}
        hot = {i.module for p in _programs(build) for i in p.instructions() if isinstance(i, Run) and i not in once}
        modules |= {name: torch.compile(modules[name], dynamic=False) for name in hot & set(modules)}
    for program in _programs(build):
        for instruction in program.instructions():
            if isinstance(instruction, Run) and instruction.module not in modules:
                raise BuildError(f"the program calls a module {instruction.module} that the build does not hold")
    return Executable(build, modules, torch.device(device))


def _programs(build: Build) -> list[Program]:
    """Those of all devices."""
    return [program for programs in (build.programs, *build.variants) for program in programs.values()]


def import_source(name: str, text: str, place: str | None = None) -> Module:
    """A generated module's `run`, from text that was checked, not from what the file may hold by now."""
    loader = _Checked(text, place or f"<{name}>")
    spec = importlib.util.spec_from_loader(f"partita_build.{name}", loader)
    assert spec is not None, f"no module spec for {name}"
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return cast(Module, module.run)


class _Checked(importlib.abc.InspectLoader):
    """Imports a text that was read and checked before."""

    def __init__(self, text: str, place: str) -> None:
        self._text, self._place = text, place

    def get_source(self, fullname: str) -> str:
        return self._text

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._text, self._place)
