"""The recipe: a `train` record as typed, frozen data, the one form in which the rest of the compiler sees it.

A model says what is computed; a recipe says on what, how long, how precisely and by which optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..base.span import Span
from ..ir.types import DType
from ..language import syntax as s

Literal_ = None | bool | int | float | str
SourceKind = Literal["text", "tokens", "corpus", "tensors"]


@dataclass(frozen=True, slots=True)
class ModelRef:
    """`GPT2(drop = 0).small`: which model, which row of its sizes, which options (syntax)."""

    name: str
    size: str | None
    options: Mapping[str, s.Expr]
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where ids or tensors come from; `folder` is that of the spec's file, to which `paths` are relative."""

    kind: SourceKind
    paths: tuple[str, ...]
    dtype: str = "uint8"
    end: int | None = None
    folder: str = "."


# What ragged rows say of their ids: inputs `rows.segment`, … of the step (see `passes/documents.py`).
ROW_FACTS: tuple[Literal["segment", "position", "weight"], ...] = ("segment", "position", "weight")


@dataclass(frozen=True, slots=True)
class Rows:
    """How ids become rows: `length` ids each, along the dim of that name."""

    kind: str
    length: int
    dim: str = "T"

    @property
    def ragged(self) -> bool:
        """Whether a row holds documents that are kept apart."""
        return self.kind in ("pack", "pad")


@dataclass(frozen=True, slots=True)
class Column:
    """An input of the model or the loss.

    rule    `read`: the ids as they are read; `next`: one further than column `of`; `tensors`: the rows of files;
            `noise`: drawn anew by the step, from N(0, 1); the others: what ragged rows say of their ids
    dims    the axes behind the batch that are written, by name; for `noise` and `tensors`
    below   the dim whose size bounds the ids, where `tensors` hold ids
    source  the files of `tensors`; `entry` is the tensor's name in a file that holds several
    """

    name: str
    rule: Literal["read", "next", "tensors", "noise", "segment", "position", "weight"] = "read"
    of: str | None = None
    dims: tuple[str, ...] = ()
    below: str | None = None
    source: DataSource | None = None
    entry: str | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a schedule: from `begin` (a step counted from 0) on, `start` to `stop` in `over` steps along a curve.

    `over` is 0 for a constant. Beyond its steps a piece stays at `stop`; the next piece takes over at its own `begin`.
    """

    curve: Literal["warmup", "constant", "linear", "cosine"]
    begin: int
    start: float
    stop: float
    over: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate over the steps: pieces in order of `begin`, the first at 0."""

    segments: tuple[Segment, ...]

    @property
    def peak(self) -> float:
        """The largest rate."""
        return max(max(item.start, item.stop) for item in self.segments)

    def scaled(self, peak: float) -> Schedule:
        """The same curve with another peak."""
        factor = peak / self.peak if self.peak else 0.0
        return Schedule(
            tuple(
                Segment(item.curve, item.begin, item.start * factor, item.stop * factor, item.over)
                for item in self.segments
            )
        )


@dataclass(frozen=True, slots=True)
class OptimizerGroup:
    """Which parameters a function updates, and how.

    pattern   of parameter paths; `*` stands for any characters. The first group whose pattern fits takes the parameter
    function  of the spec or std: (p, g, states …, step, lr, options …) -> p, states …
    states    the names of its states, in order: for adamw m and v
    options   of the function, without lr
    schedule  of the learning rate, where the group has its own
    counts    whether the function takes the step
    """

    pattern: str
    function: str
    states: tuple[str, ...]
    options: Mapping[str, Literal_]
    schedule: Schedule | None = None
    counts: bool = True
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LossScale:
    """Dynamic loss scaling (Micikevicius et al. 2018, section 3.2): the loss is multiplied by `start`; `every` steps
    without an overflow multiply that by `growth`, an overflow by `backoff`, and its step is skipped."""

    start: float = 65536.0
    growth: float = 2.0
    backoff: float = 0.5
    every: int = 2000


@dataclass(frozen=True, slots=True)
class Precision:
    """Types by role.

    params     of parameters and optimizer states, and of all that is sensitive: float32 or float64
    overrides  (pattern of paths, type of contractions there), the first that fits
    scale      of the loss; None: it is not scaled
    """

    compute: DType = DType.F32
    params: DType = DType.F32
    reduce: DType = DType.F32
    overrides: tuple[tuple[str, DType], ...] = ()
    scale: LossScale | None = None
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Loss on held-out data; as in the runtime's record."""

    every: int = 0
    share: float = 0.05
    source: DataSource | None = None
    batches: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """What is saved; as in the runtime's record."""

    every: int = 0
    keep: int = 3
    to: str | None = None
    on_signal: bool = True


@dataclass(frozen=True, slots=True)
class Export:
    """Weights for others each `every` steps (0: at the end only), by the model's weight map."""

    every: int = 0
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Trace:
    """A profile of `steps` steps, the first of them `at`, counted from 1."""

    at: int
    steps: int = 1


@dataclass(frozen=True, slots=True)
class Log:
    """What is written down; as in the runtime's record."""

    every: int = 1
    metrics: str = "metrics.jsonl"
    tensorboard: str | None = None
    grad_norm: bool = True  # a matter of the compiled step; the runtime writes what it is given


@dataclass(frozen=True, slots=True)
class Spikes:
    """What follows a loss that lies `deviations` above the median of those of the last `window` steps."""

    action: Literal["warn", "skip", "stop"] = "warn"
    deviations: float = 6.0
    window: int = 128


@dataclass(frozen=True, slots=True)
class Sample:
    """What is generated at the end of the training: `length` tokens behind `prompt`."""

    prompt: str = "\n"
    length: int = 200
    temperature: float = 0.8
    top_k: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of paths, of parameters or of instances, and where it is written."""

    text: str
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Turn:
    """An `update NAME { … }`: one of several updates that take turns within a step.

    params  patterns of the parameters that it trains; all others stand still
    repeat  how many times it runs in a step, each time on rows of its own
    """

    name: str
    params: tuple[Pattern, ...]
    loss: s.Expr
    optimizer: tuple[OptimizerGroup, ...]
    schedule: Schedule
    clip: float | None = None
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Recompute:
    """What the backward computes again and the forward does not keep.

    kind    `cheap`: what takes no longer than reading it; `none`; `full`, `selective`: see `recompute/named.py`;
            `paths`: what instances make whose paths fit `paths`; `budget`: as little as a step within `budget_bytes`
            of a device needs
    """

    kind: Literal["cheap", "none", "full", "selective", "paths", "budget"] = "cheap"
    paths: tuple[Pattern, ...] = ()
    budget_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step's lying on devices must keep to.

    mesh          the axes with their sizes, the first outermost
    pins          (dim, axis), a dim that no axis cuts with None
    zero          the stage of ZeRO over the axis `data`; None: the compiler chooses
    budget_bytes  of a device's memory
    schedule      of the pipeline over the axis `pipe`, as `schedule.forms.parse_form` reads it
    balance       how many blocks each chunk of the pipeline has, along the chain; empty: the compiler chooses
    recompute     what is not kept for the backward
    offload       what lies on the host between its uses: `optimizer`, `activations`
    """

    mesh: tuple[tuple[str, int], ...] = ()
    pins: tuple[tuple[str, str | None], ...] = ()
    zero: int | None = None
    budget_bytes: int | None = None
    schedule: str = "1f1b"
    balance: tuple[int, ...] = ()
    recompute: Recompute = Recompute()
    offload: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """A `train` record.

    source, rows  the stream of ids, where the data is one; both None where every column brings its own rows
    batch         rows of one run of an update, over all microbatches
    microbatches  how many parts it is computed in (the plan's word, or the record's); divides batch
    clip          largest global norm of the gradients; None: no clipping
    on_nan        what follows where loss or gradients are not finite: nothing is updated, and the training stops or
                  goes on
    on_spike      what follows a loss far above the recent ones; None: nothing
    params        patterns of the parameters that train; the others get neither a gradient nor an optimizer's state
    updates       several updates that take turns. Loss, optimizer, schedule, clip and params are then the first one's
                  (the loss the record's own, where it has one), and `turns` gives a recipe for each
    update        of a recipe that is one of several turns, its name; `repeat` how often it runs in a step
    start         a checkpoint whose parameters the training begins with, in `folder`, which is the spec's
    plan          the mesh that it is laid out on, and what the layout must keep to
    kernels       packages whose foreign kernels may run: never the record's, always the user's word
    """

    name: str
    model: ModelRef
    dims: Mapping[str, int]
    source: DataSource | None
    rows: Rows | None
    columns: tuple[Column, ...]
    loss: s.Expr
    batch: int
    steps: int
    optimizer: tuple[OptimizerGroup, ...]
    schedule: Schedule
    microbatches: int = 1
    clip: float | None = None
    seed: int = 0
    precision: Precision = Precision()
    on_nan: Literal["stop", "skip"] = "stop"
    on_spike: Spikes | None = Spikes()
    evaluate: Evaluation | None = None
    checkpoint: Checkpoints = Checkpoints()
    log: Log = Log()
    sample: Sample | None = None
    export: Export | None = None
    trace: Trace | None = None
    cluster: str | None = None
    plan: Plan | None = None
    params: tuple[Pattern, ...] = (Pattern("*"),)
    updates: tuple[Turn, ...] = ()
    update: str = ""
    repeat: int = 1
    start: str | None = None
    folder: str = "."
    kernels: tuple[str, ...] = ()

    @property
    def turns(self) -> tuple[Recipe, ...]:
        """A recipe for each update of a step, in the order in which they run: this one alone, if there are none."""
        return tuple(
            replace(
                self, loss=turn.loss, optimizer=turn.optimizer, schedule=turn.schedule, clip=turn.clip,
                params=turn.params, updates=(), update=turn.name, repeat=turn.repeat,
            )
            for turn in self.updates
        ) or (self,)  # fmt: skip

    @property
    def skips(self) -> bool:
        """Whether a step may update nothing and the training goes on."""
        return self.on_nan == "skip" or (self.on_spike is not None and self.on_spike.action == "skip")

    @property
    def program(self) -> str:
        """What its step is called in a build: `step`, or `step.NAME` of one of several turns."""
        return f"step.{self.update}" if self.update else "step"

    @property
    def tokens_per_step(self) -> int:
        """Ids that a step reads as input; rows, where the data is no stream of ids."""
        return self.batch * (self.rows.length if self.rows else 1) * sum(turn.repeat for turn in self.turns)

    @property
    def rows_per_microbatch(self) -> int:
        """The size of `batch` in the graph of one microbatch."""
        return self.batch // self.microbatches


def matches(pattern: str, path: str) -> bool:
    """Whether a pattern fits a whole path. `*`: any characters; `[3]` is `.3`: `layers[0].*` fits `layers.0.w`."""
    pieces = pattern.replace("[", ".").replace("]", "").split("*")
    if len(pieces) == 1:
        return pieces[0] == path
    first, *middle, last = pieces
    if not path.startswith(first) or not path.endswith(last) or len(path) < len(first) + len(last):
        return False
    at, end = len(first), len(path) - len(last)
    for piece in middle:
        found = path.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
