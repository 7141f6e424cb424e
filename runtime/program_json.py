"""A build's JSON form: `program.json` of a build folder.

In: a `Build`, or text. Out: the text, stable under reprinting, or the build. JSON's lists are the records' tuples; a
text of another version, or of another form, is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any, cast

from .layout import Mesh
from .program import (
    FORMAT_VERSION,
    Allocate,
    Build,
    Check,
    Collective,
    Fetch,
    Free,
    Initializer,
    Input,
    Instruction,
    Offload,
    Parameter,
    Program,
    Receive,
    Rows,
    Run,
    Send,
    Shard,
    State,
    Turn,
    Wait,
)


class ProgramFormatError(Exception):
    """The text is not a program of this format."""


def to_json(build: Build) -> str:
    """The build as JSON text, stable under reprinting."""
    return json.dumps(asdict(build), indent=1) + "\n"


def from_json(text: str) -> Build:
    """The build that `to_json` printed. Raises `ProgramFormatError` for anything else."""
    try:
        data = json.loads(text)
        version = data["format_version"]
        if version != FORMAT_VERSION:
            raise ProgramFormatError(f"program format {version}; this runtime reads {FORMAT_VERSION}")
        return Build(
            name=data["name"],
            parameters=tuple(_parameter(p) for p in data["parameters"]),
            states=tuple(_state(s) for s in data["states"]),
            programs={name: _program(p) for name, p in data["programs"].items()},
            recipe=data["recipe"],
            predictions=data["predictions"],
            mesh=Mesh(tuple((str(name), int(size)) for name, size in data["mesh"]["axes"])),
            variants=tuple({name: _program(p) for name, p in variant.items()} for variant in data["variants"]),
            classes=tuple(int(number) for number in data["classes"]),
            kernels=tuple(str(package) for package in data["kernels"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as fault:
        raise ProgramFormatError(f"not a program: {fault}") from fault


def _initializer(data: Any) -> Initializer:
    return Initializer(str(data["kind"]), tuple(data["arguments"]))


def _parameter(data: Any) -> Parameter:
    fields: dict[str, Any] = {**_tuples(data), "initializer": _initializer(data["initializer"])}
    return Parameter(**fields)


def _state(data: Any) -> State:
    fields: dict[str, Any] = {**_tuples(data), "initializer": _initializer(data["initializer"])}
    return State(**fields)


def _input(data: Any) -> Input:
    return Input(**_tuples(data))


def _tuples(data: Any) -> dict[str, Any]:
    """A record's fields, JSON's lists as the tuples that they were."""
    return {key: _tuple(value) for key, value in data.items()}


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in cast(list[Any], value)) if isinstance(value, list) else value


_INSTRUCTIONS: Mapping[str, type[Instruction]] = MappingProxyType(
    {
        "run": Run,
        "allocate": Allocate,
        "free": Free,
        "collective": Collective,
        "wait": Wait,
        "shard": Shard,
        "rows": Rows,
        "check": Check,
        "send": Send,
        "receive": Receive,
        "offload": Offload,
        "fetch": Fetch,
    }
)


def _instruction(data: Any) -> Instruction:
    kind = _INSTRUCTIONS[data["op"]]
    return kind(**_tuples(data))


def _program(data: Any) -> Program:
    return Program(
        inputs=tuple(_input(i) for i in data["inputs"]),
        prepare=tuple(_instruction(i) for i in data["prepare"]),
        microbatch=tuple(_instruction(i) for i in data["microbatch"]),
        update=tuple(_instruction(i) for i in data["update"]),
        outputs=dict(data["outputs"]),
        microbatches=int(data["microbatches"]),
        parts={str(name): tuple(map(_instruction, part)) for name, part in data["parts"].items()},
        order=tuple(Turn(str(turn["part"]), int(turn["microbatch"])) for turn in data["order"]),
    )
