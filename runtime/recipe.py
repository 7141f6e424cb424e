"""The training record of a build as plain data: what to read, how rows are cut, how long to train, what to write.

`Build.recipe` holds `to_plain(Training(...))`; the compiler fills it, `train.py` and `data.py` read it back with
`from_plain`. What the graph already says (loss, optimizer, schedule, precision, microbatches) is not repeated here.
Neither torch nor the compiler is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

from .fault import RuntimeFault

SourceKind = Literal["text", "tokens", "corpus", "tensors"]


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where ids or tensors come from.

    kind    `text`: files read as bytes (ids below 256); `tokens`: raw little-endian integers; `corpus`: built in;
            `tensors`: .npy and .safetensors files, whose first axis counts rows
    paths   globs relative to `folder` (`text`, `tokens`), or one name (`corpus`: `python-docs`)
    dtype   of the integers in a `tokens` file: uint8, uint16, uint32, int32, int64
    end     the id that ends a document, if any (kept in the stream, its last id)
    folder  the folder of the spec that named the paths; `train(data_root = …)` takes its place
    """

    kind: SourceKind
    paths: tuple[str, ...]
    dtype: str = "uint8"
    end: int | None = None
    folder: str = "."


@dataclass(frozen=True, slots=True)
class Rows:
    """How a stream of ids becomes rows of `length`: `chunk` and `pack` consecutive windows, `pad` a document a row.

    `chunk` reads on over the ends of documents, the others say where they are (see `documents.py`).
    """

    kind: str
    length: int


@dataclass(frozen=True, slots=True)
class Column:
    """One input of the program.

    rule    `read` (the ids themselves), `next` (one further than column `of`) or `tensors` (rows of `source`)
    entry   the tensor's name in files that hold several; the column's, if it is None
    """

    name: str
    rule: str = "read"
    of: str | None = None
    source: DataSource | None = None
    entry: str | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Loss on data that is not trained on: each `every` steps (0: at the end only) and at the end.

    `source` names other data; without it the last `share` of the training data is held out. `batches` bounds how many
    batches are read (0: all whole ones).
    """

    every: int = 0
    share: float = 0.05
    source: DataSource | None = None
    batches: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """Saved each `every` steps (0: at the end only), at the end and on a signal; the newest `keep` stay (0: all).

    `to` is a folder relative to the run's folder; None is `checkpoints`.
    """

    every: int = 0
    keep: int = 3
    to: str | None = None
    on_signal: bool = True


@dataclass(frozen=True, slots=True)
class Log:
    """What is written of each `every`-th step: `metrics` a JSONL file, `tensorboard` a folder, both in the run's."""

    every: int = 1
    metrics: str = "metrics.jsonl"
    tensorboard: str | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """Weights for others, from the checkpoint of each `every`-th step (0: of the last alone).

    weights  a weight map as plain data, as `weights.from_plain` reads it
    """

    weights: Mapping[str, Any]
    every: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """A profile of `steps` steps, the first of them `at`, counted from 1."""

    at: int
    steps: int = 1


@dataclass(frozen=True, slots=True)
class Spikes:
    """What follows a loss far above those of the last `window` steps: `warn`, `skip` (nothing is updated), `stop`."""

    action: str = "warn"
    deviations: float = 6.0
    window: int = 128


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the updates that a step consists of: its program, how often it runs, the name that reports give it."""

    program: str = "step"
    repeat: int = 1
    name: str = ""


@dataclass(frozen=True, slots=True)
class Training:
    """The whole record. `batch` counts rows of a program over all microbatches; `seed` keys weights, data and dropout.

    source, rows  the stream of ids and its cutting; both None where columns bring rows of their own
    turns         the programs of a step, in order; each run of each has rows of its own
    on_nan        whether a step whose loss or gradients are not finite is the last (`stop`) or is passed over (`skip`)
    on_spike      what follows a loss far above the recent ones; None: nothing
    start         a checkpoint in `folder` (the spec's), whose parameters a new run begins with
    export, trace  weights written for others, and a profile of some steps
    sees_ahead    where the model lets a position see those behind it, if it does: then it generates nothing
    """

    source: DataSource | None
    rows: Rows | None
    columns: tuple[Column, ...]
    steps: int
    batch: int
    seed: int = 0
    evaluate: Evaluation | None = None
    checkpoint: Checkpoints = Checkpoints()
    log: Log = Log()
    turns: tuple[Turn, ...] = (Turn(),)
    start: str | None = None
    on_nan: str = "stop"
    on_spike: Spikes | None = Spikes()
    folder: str = "."
    sees_ahead: str | None = None
    export: Export | None = None
    trace: Trace | None = None
    budget_bytes: int | None = None

    @property
    def runs_per_step(self) -> int:
        """How many programs, each with a batch of its own, a step runs."""
        return sum(turn.repeat for turn in self.turns)

    @property
    def tokens_per_step(self) -> int:
        """Ids that one step reads as input: batches times the rows' length; rows, where they are no ids."""
        return self.batch * (self.rows.length if self.rows else 1) * self.runs_per_step


def to_plain(training: Training) -> dict[str, Any]:
    """The record as what JSON can hold (tuples become lists when printed; `from_plain` takes either)."""
    return asdict(training)


def from_plain(data: Mapping[str, Any]) -> Training:
    """The record that `to_plain` gave. Raises `RuntimeFault` E0500 that names the place of what is wrong."""
    place = "recipe"
    top = _fields(data, Training, place)
    top["source"] = None if top["source"] is None else _source(top["source"], f"{place}.source")
    top["rows"] = None if top["rows"] is None else Rows(**_fields(top["rows"], Rows, f"{place}.rows"))
    top["columns"] = tuple(
        _column(item, f"{place}.columns[{position}]")
        for position, item in enumerate(_list(top["columns"], f"{place}.columns"))
    )
    if "turns" in top:
        turns = enumerate(_list(top["turns"], f"{place}.turns"))
        top["turns"] = tuple(Turn(**_fields(item, Turn, f"{place}.turns[{number}]")) for number, item in turns)
    if top.get("evaluate") is not None:
        top["evaluate"] = _evaluation(top["evaluate"], f"{place}.evaluate")
    for key, kind in (("checkpoint", Checkpoints), ("log", Log)):
        if key in top:
            top[key] = kind(**_fields(top[key], kind, f"{place}.{key}"))
    for key, kind in (("export", Export), ("trace", Trace), ("on_spike", Spikes)):
        if top.get(key) is not None:
            top[key] = kind(**_fields(top[key], kind, f"{place}.{key}"))
    training = Training(**top)
    _check(training)
    return training


def _source(data: Any, place: str) -> DataSource:
    found = _fields(data, DataSource, place)
    found["paths"] = tuple(str(path) for path in _list(found["paths"], f"{place}.paths"))
    return DataSource(**found)


def _column(data: Any, place: str) -> Column:
    found = _fields(data, Column, place)
    if found.get("source") is not None:
        found["source"] = _source(found["source"], f"{place}.source")
    return Column(**found)


def _evaluation(data: Any, place: str) -> Evaluation:
    found = _fields(data, Evaluation, place)
    if found.get("source") is not None:
        found["source"] = _source(found["source"], f"{place}.source")
    return Evaluation(**found)


def _list(data: Any, place: str) -> list[Any]:
    if not isinstance(data, list | tuple):
        raise RuntimeFault("E0500", f"{place} is not a list")
    return list(cast("list[Any]", data))


# Annotations stand as text (`from __future__ import annotations`); nested records are checked by their own reader.
_PLAIN: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, type(None)),
    "float": (int, float),
    "str": (str,),
    "str | None": (str, type(None)),
    "bool": (bool,),
    "SourceKind": (str,),
}


def _fields(data: Any, kind: type[Any], place: str) -> dict[str, Any]:
    """The keys of `data`, each of them a field of `kind` with a value of its type."""
    if not isinstance(data, Mapping):
        raise RuntimeFault("E0500", f"{place} is not a record")
    found = {str(key): value for key, value in cast("Mapping[Any, Any]", data).items()}
    known = {field.name: str(field.type) for field in fields(kind)}
    for key, value in found.items():
        if key not in known:
            raise RuntimeFault("E0500", f"{place} has no key {key!r}; it has {', '.join(known)}")
        allowed = _PLAIN.get(known[key])
        wrong = allowed is not None and not isinstance(value, allowed)
        if wrong or (isinstance(value, bool) and allowed is not None and bool not in allowed):
            raise RuntimeFault("E0500", f"{place}.{key} is {value!r}, not {known[key]}")
    missing = [name for name in _required(kind) if name not in found]
    if missing:
        raise RuntimeFault("E0500", f"{place} lacks {', '.join(missing)}")
    return found


def _required(kind: type[Any]) -> list[str]:
    names = [field.name for field in fields(kind)]
    defaults = len(cast("tuple[Any, ...]", kind.__init__.__defaults__ or ()))
    return names[: len(names) - defaults]


def _check(training: Training) -> None:
    """What types alone do not say."""
    positive = {"steps": training.steps, "batch": training.batch, "turns": len(training.turns)}
    positive |= {f"turns.{turn.program}": turn.repeat for turn in training.turns}
    if training.trace is not None:
        positive |= {"trace.at": training.trace.at, "trace.steps": training.trace.steps}
    if training.rows is not None:
        positive["rows.length"] = training.rows.length
    for name, value in positive.items():
        if value < 1:
            raise RuntimeFault("E0500", f"recipe.{name} is {value}; it must be at least 1")
    evaluate = training.evaluate or Evaluation()
    counts = {
        "export.every": training.export.every if training.export else 0,
        "evaluate.every": evaluate.every,
        "evaluate.batches": evaluate.batches,
        "checkpoint.every": training.checkpoint.every,
        "checkpoint.keep": training.checkpoint.keep,
    }
    for name, value in counts.items():
        if value < 0:
            raise RuntimeFault("E0500", f"recipe.{name} is {value}; it must not be negative")
    _check_spikes(training.on_spike or Spikes())
    if training.log.every < 1:
        raise RuntimeFault("E0500", f"recipe.log.every is {training.log.every}; it must be at least 1")
    if not 0.0 <= evaluate.share < 1.0:
        raise RuntimeFault("E0500", f"recipe.evaluate.share is {evaluate.share}; it must be in [0, 1)")
    names = [column.name for column in training.columns]
    if not names or len(set(names)) < len(names):
        raise RuntimeFault("E0500", f"recipe.columns must have distinct names, at least one; they are {names}")


def _check_spikes(spikes: Spikes) -> None:
    if spikes.action not in ("warn", "skip", "stop"):
        raise RuntimeFault("E0500", f"recipe.on_spike.action is {spikes.action!r}; it must be warn, skip or stop")
    if spikes.window < 8 or not spikes.deviations > 0:
        raise RuntimeFault("E0500", "recipe.on_spike must look at 8 steps at least, and for some deviation")
