"""The instruction set: what a compiled program is.

A build folder holds `program.json` (a `Build`, see `program_json.py`), `modules/*.py` and the plan. The compiler writes
it, `execute.py` and `virtual.py` run it. This module imports neither the compiler nor torch. Buffers are named tensors
of one device; names of parameters and states are logical (the same under every plan), all others are the program's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from .layout import ONE_DEVICE, Layout, Mesh, held, part

FORMAT_VERSION = 5
Buffer = TypeVar("Buffer")  # a tensor, or the number of one


@dataclass(frozen=True, slots=True)
class Initializer:
    """How a parameter or state starts: `zeros`, `ones`, `constant(value)`, `normal(std)`, `uniform(bound)`, …"""

    kind: str
    arguments: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A trained tensor. `name` is its path in the model, `shape` its global shape, `dims` its dims' names.

    `layout` says per mesh axis how it is cut: `"replicate"`, `"shard:<position>"`, or `"at:<places>"` where only the
    devices at these places of the axis have it (stages of a pipeline); empty on one device. `host`: whether it lies in
    the host's memory rather than the device's.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    initializer: Initializer
    trained: bool = True
    layout: Layout = ()
    host: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """A tensor that lives across steps beside the parameters (Adam's moments, running statistics).

    `name` is `<role>/<parameter>` for optimizer state (`adamw.m/blocks.0.attn.q.w`), `shape`, `layout` and `host` as a
    parameter's.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    initializer: Initializer
    layout: Layout = ()
    host: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that the data gives each microbatch, or a scalar that the runtime gives.

    `below` bounds ids: every element must be in [0, below). `source` says who gives it: `data`, or the runtime's own
    i64 scalars `step` (0-based), `seed`, `start:<dim>` (the global offset of this part of a dim).
    On a mesh `shape` is that of this device's part of a microbatch, and `whole` and `layout` say of what it is a part;
    those of a `start` are the dim's, and its `whole` is there on one device too.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    dtype: str
    source: str = "data"
    below: int | None = None
    whole: tuple[int, ...] = ()
    layout: Layout = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Call `module.run([inputs])`, a boxed list that the callee empties; its results become `outputs`.

    A buffer in `frees` is dropped from the store before the call, so that the module owns the last reference and may
    overwrite or free it. Integer literals that a shared module needs (the key of a layer's randomness) stand in
    `literals` and follow the tensors in the list. `layer` is the path of the layer that is computed (`blocks.3`), empty
    outside of all: what a shared module works on. On the `host`, its tensors lie there, and so do its results.
    """

    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    frees: tuple[str, ...] = ()
    literals: tuple[int, ...] = ()
    layer: str = ""
    host: bool = False
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


CollectiveKind = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]
Reduction = Literal["sum", "max"]


@dataclass(frozen=True, slots=True)
class Collective:
    """Begin a collective among the devices that differ along `axis` alone; its outputs are there after a `Wait`.

    all_reduce      every device gets the sum or maximum over all (`reduction`)
    all_gather      parts are joined along position `dims[i]`, which then has `sizes[i]`, in the order of the axis
    reduce_scatter  the sum or maximum over all, of which each device keeps its chunk along `dims[i]`, of `sizes[i]`
    all_to_all      cut along `dims[0]`, of `sizes[0]`; each device gets its chunk from all, joined along `join`, of
                    `join_size`. With `groups`, the later of both holds sorted rows, which go to the devices that have
                    their groups

    Several inputs, each with an output, make a bucket: they are sent together, an all_to_all never. `shapes` are those
    of the outputs here. Buffers in `frees` are dropped from the store; the memory of an input that is reduced
    `in_place` becomes its output. What is gathered `into` buffers, one for each input, fills their memory, of which
    the inputs are the own parts, and has no other.
    """

    kind: CollectiveKind
    axis: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    reduction: Reduction = "sum"
    dims: tuple[int, ...] = ()
    sizes: tuple[int, ...] = ()
    join: int = 0
    join_size: int = 0
    groups: int = 0
    frees: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()
    into: tuple[str, ...] = ()
    op: Literal["collective"] = "collective"


@dataclass(frozen=True, slots=True)
class Wait:
    """Buffers that collectives were to give must be there before the next instruction."""

    buffers: tuple[str, ...]
    op: Literal["wait"] = "wait"


@dataclass(frozen=True, slots=True)
class Shard:
    """The own chunk of a replicated buffer: along position `dim`, of `size` in all, by the place on `axis`.

    A copy, or, as a `view`, a part of the buffer's own memory, which stays: what is written to it is written there.
    """

    axis: str
    input: str
    output: str
    shape: tuple[int, ...]
    dtype: str
    dim: int
    size: int
    frees: tuple[str, ...] = ()
    view: bool = False
    op: Literal["shard"] = "shard"


@dataclass(frozen=True, slots=True)
class Check:
    """Go on only if these scalars are finite and the first, the loss, is not above the bound that the run was given.

    It stands before the first write into a parameter or an optimizer's state. A program that does not go on leaves all
    as it was: `states` are the model's own, which microbatches write; they are put back. The scalars are the same on
    every device of a mesh, so all of them go on, or none.
    """

    buffers: tuple[str, ...]
    states: tuple[str, ...] = ()
    op: Literal["check"] = "check"


@dataclass(frozen=True, slots=True)
class Send:
    """Begin to send a buffer to the device at place `to` of `axis`, and go on.

    `tag` tells the messages of one microbatch between two devices apart; both sides know it. At most `ahead` messages
    of one tag may be on their way: a further one waits until the receiver has taken the oldest.
    """

    axis: str
    to: int
    input: str
    tag: int
    frees: tuple[str, ...] = ()
    ahead: int = 1
    op: Literal["send"] = "send"


@dataclass(frozen=True, slots=True)
class Receive:
    """Begin to receive from the device at place `source` of `axis`; `output` is there after a `Wait`."""

    axis: str
    source: int
    output: str
    shape: tuple[int, ...]
    dtype: str
    tag: int
    op: Literal["receive"] = "receive"


@dataclass(frozen=True, slots=True)
class Rows:
    """Copy out of sorted rows those of the own chunk of `groups`, by the place on `axis`; or `back` to where they
    belong in a whole of zeros. `ids` are the groups of all rows; `shape` is the most that the output can have."""

    axis: str
    input: str
    ids: str
    output: str
    shape: tuple[int, ...]
    dtype: str
    groups: int
    back: bool
    frees: tuple[str, ...] = ()
    op: Literal["rows"] = "rows"


@dataclass(frozen=True, slots=True)
class Offload:
    """Begin to copy a buffer from the device to the host; `output` is there after a `Wait`.

    Nobody writes the buffer until then; one that the instruction frees goes when it is copied.
    """

    input: str
    output: str
    shape: tuple[int, ...]
    dtype: str
    frees: tuple[str, ...] = ()
    op: Literal["offload"] = "offload"


@dataclass(frozen=True, slots=True)
class Fetch:
    """Begin to copy a buffer from the host to the device; `output` is there after a `Wait`."""

    input: str
    output: str
    shape: tuple[int, ...]
    dtype: str
    frees: tuple[str, ...] = ()
    op: Literal["fetch"] = "fetch"


Instruction = Run | Allocate | Free | Collective | Wait | Shard | Rows | Check | Send | Receive | Offload | Fetch


@dataclass(frozen=True, slots=True)
class Turn:
    """One part of a pipelined program for one microbatch."""

    part: str
    microbatch: int


@dataclass(frozen=True, slots=True)
class Program:
    """What one device does for one step: `prepare` once, `microbatch` for each microbatch, `update` once.

    Accumulated values keep their buffer over the microbatches. `outputs` maps what is asked for (`loss`, `logits`,
    taps, dumped values) to the buffer that holds it at the end. Where a `Check` says no, those that are there by then
    are all that the program gives, and `skipped`, which is 1.

    A stage of a pipeline has `parts` (`forward 0`, `send activation 0`, `backward 0`, …) in place of `microbatch`, and
    `order` says which of them is run when, for which microbatch: its schedule.
    """

    inputs: tuple[Input, ...]
    prepare: tuple[Instruction, ...]
    microbatch: tuple[Instruction, ...]
    update: tuple[Instruction, ...]
    outputs: dict[str, str]
    microbatches: int = 1
    parts: dict[str, tuple[Instruction, ...]] = field(default_factory=dict[str, tuple[Instruction, ...]])
    order: tuple[Turn, ...] = ()

    def turns(self) -> Iterator[tuple[str, int, tuple[Instruction, ...]]]:
        """What runs between `prepare` and `update`, in order: a part's name, the microbatch, the instructions."""
        if not self.order:
            yield from (("microbatch", number, self.microbatch) for number in range(self.microbatches))
        for turn in self.order:
            yield turn.part, turn.microbatch, self.parts[turn.part]

    def instructions(self) -> Iterator[Instruction]:
        """Each instruction that is written down, once."""
        yield from self.prepare
        yield from self.microbatch
        for instructions in self.parts.values():
            yield from instructions
        yield from self.update


@dataclass(frozen=True, slots=True)
class Build:
    """A whole build: the tensors that live across steps and the programs over them.

    `programs` holds `step` (train; `step.NAME` for each of several updates that take turns), `evaluate` (loss alone)
    and `predict` (the model's outputs, always on one device), as asked for. On a mesh that cuts evenly all devices run
    them; else `variants` holds the programs of devices that differ from rank 0, and `classes` says which a rank runs: 0
    for `programs`, n for `variants[n - 1]`.
    `recipe` is the training recipe as plain data (see `runtime/train.py`), `predictions` what the compiler foretells:
    `parameters`, `step_flops`, `step_seconds` (by so many `timed_kernels`; without any a bound from below),
    `peak_bytes`, `tokens_per_step`, `part_seconds.forward 0` … of a pipeline. `kernels` are the packages whose code the
    modules call: whoever runs the build must allow them anew.
    """

    name: str
    parameters: tuple[Parameter, ...]
    states: tuple[State, ...]
    programs: dict[str, Program]
    recipe: dict[str, Any] = field(default_factory=dict[str, Any])
    predictions: dict[str, float] = field(default_factory=dict[str, float])
    mesh: Mesh = ONE_DEVICE
    variants: tuple[dict[str, Program], ...] = ()
    classes: tuple[int, ...] = ()
    kernels: tuple[str, ...] = ()
    format_version: int = FORMAT_VERSION

    def programs_of(self, rank: int) -> dict[str, Program]:
        """What a rank runs."""
        number = self.classes[rank] if self.classes else 0
        return {**self.programs, **(self.variants[number - 1] if number else {})}

    def has(self, item: Parameter | State, rank: int) -> bool:
        """Whether a rank holds any of a parameter or state."""
        return held(item.layout, self.mesh, rank)

    def part_of(self, item: Parameter | State, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Offsets and sizes of what a rank holds of a parameter or state."""
        return part(item.shape, item.layout, self.mesh, rank)


class OwnBuffers(dict[str, Buffer], Generic[Buffer]):
    """The buffers of one microbatch, by name, whoever runs or only counts them; what is not its own is the step's."""

    def __init__(self, step: dict[str, Buffer]) -> None:
        self.step = step

    def __missing__(self, name: str) -> Buffer:
        return self.step[name]

    def __delitem__(self, name: str) -> None:
        """A lone microbatch's buffers are those of the update too, which frees what is the step's."""
        if self.pop(name, None) is None:
            del self.step[name]


def is_step(name: str) -> bool:
    """Whether a program trains: `step`, or `step.NAME` where several updates take turns."""
    return name == "step" or name.startswith("step.")
