"""The instruction set: what a compiled program is, and its JSON form.

A build folder holds `program.json` (a `Build`), `modules/*.py` and the plan. The compiler writes it, `execute.py` and
`virtual.py` run it. This module imports neither the compiler nor torch. Buffers are named tensors of one device; names
of parameters and states are logical (the same under every plan), all others are the program's own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Initializer:
    """How a parameter or state starts: `zeros`, `ones`, `constant(value)`, `normal(std)`, `uniform(bound)`, …"""

    kind: str
    arguments: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A trained tensor. `name` is its path in the model, `shape` its global shape, `dims` its dims' names.

    `layout` says per mesh axis how it is cut: `"replicate"` or `"shard:<position>"`; empty on one device.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    initializer: Initializer
    trained: bool = True
    layout: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class State:
    """A tensor that lives across steps beside the parameters (Adam's moments, running statistics).

    `name` is `<role>/<parameter>` for optimizer state (`adamw.m/blocks.0.attn.q.w`).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    initializer: Initializer
    layout: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that the data gives each microbatch, or a scalar that the runtime gives.

    `below` bounds ids: every element must be in [0, below). `source` says who gives it: `data`, or the runtime's own
    i64 scalars `step` (0-based), `seed`, `start:<dim>` (the global offset of this part of a dim).
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    source: str = "data"
    below: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Call `module.run([inputs])`, a boxed list that the callee empties; its results become `outputs`.

    A buffer in `frees` is dropped from the store before the call, so that the module owns the last reference and may
    overwrite or free it. Integer literals that a shared module needs (the key of a layer's randomness) stand in
    `literals` and follow the tensors in the list. `layer` is the path of the layer that is computed (`blocks.3`), empty
    outside of all: what a shared module works on.
    """

    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    frees: tuple[str, ...] = ()
    literals: tuple[int, ...] = ()
    layer: str = ""
    op: Literal["run"] = "run"


@dataclass(frozen=True, slots=True)
class Allocate:
    """Make `buffer` (zeros): an accumulator that the microbatches add into."""

    buffer: str
    shape: tuple[int, ...]
    dtype: str
    op: Literal["allocate"] = "allocate"


@dataclass(frozen=True, slots=True)
class Free:
    """Drop buffers."""

    buffers: tuple[str, ...]
    op: Literal["free"] = "free"


Instruction = Run | Allocate | Free


@dataclass(frozen=True, slots=True)
class Program:
    """What one device does for one step: `prepare` once, `microbatch` for each microbatch, `update` once.

    Accumulated values keep their buffer over the microbatches. `outputs` maps what is asked for (`loss`, `logits`,
    taps, dumped values) to the buffer that holds it at the end.
    """

    inputs: tuple[Input, ...]
    prepare: tuple[Instruction, ...]
    microbatch: tuple[Instruction, ...]
    update: tuple[Instruction, ...]
    outputs: dict[str, str]
    microbatches: int = 1


@dataclass(frozen=True, slots=True)
class Build:
    """A whole build: the tensors that live across steps and the programs over them.

    `programs` holds `step` (train; `step.NAME` for each of several updates that take turns), `evaluate` (loss alone)
    and `predict` (the model's outputs), as asked for.
    `recipe` is the training recipe as plain data (see `runtime/train.py`), `predictions` what the compiler foretells:
    `parameters`, `step_flops`, `step_seconds`, `peak_bytes`, `tokens_per_step`.
    """

    name: str
    parameters: tuple[Parameter, ...]
    states: tuple[State, ...]
    programs: dict[str, Program]
    recipe: dict[str, Any] = field(default_factory=dict[str, Any])
    predictions: dict[str, float] = field(default_factory=dict[str, float])
    format_version: int = FORMAT_VERSION


def is_step(name: str) -> bool:
    """Whether a program trains: `step`, or `step.NAME` where several updates take turns."""
    return name == "step" or name.startswith("step.")


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
    return {key: tuple(cast(list[Any], value)) if isinstance(value, list) else value for key, value in data.items()}


_INSTRUCTIONS: dict[str, type[Run] | type[Allocate] | type[Free]] = {"run": Run, "allocate": Allocate, "free": Free}


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
    )
