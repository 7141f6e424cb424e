"""From a `train` record to a `Recipe`.

In: a spec, the name of a record and the settings of the command line. Out: the recipe, or every fault that was
found in it. What the schema alone cannot say is said here: a batch that does not come out even, a dim that nobody
binds, a model's reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

from ..base.diagnostic import Diagnostics, did_you_mean
from ..language import syntax as s
from .kinds import Applied, Named, Setting, Word, forms_of, one_of, show
from .load import Spec
from .merge import parse_set
from .plan import read_plan
from .precision import read_precision
from .recipe import (
    Checkpoints,
    Column,
    DataSource,
    Evaluation,
    Export,
    Log,
    ModelRef,
    Recipe,
    Rows,
    Sample,
    SourceKind,
    Spikes,
    Trace,
)
from .records import Entry, Section, check_record, find, lacking
from .schema import DATA, TRAIN, Schema
from .turns import turns
from .units import Quantity

T = TypeVar("T")


def load_recipe(spec: Spec, name: str | None = None, settings: Iterable[str] = ()) -> Recipe:
    """The recipe of that name, or the only one, under `path=value` settings. Raises SpecError with every fault."""
    record = find(spec.records, "train", name)
    sink = Diagnostics()
    section = check_record(record, spec.records, sink, [parse_set(text) for text in settings])
    recipe = None if section is None else _Reading(spec, section, sink).recipe(record)
    if section is not None:
        _not_built(section, TRAIN, sink)
    sink.raise_if_errors()
    assert recipe is not None, "a recipe without errors"
    return recipe


def check_records(spec: Spec, sink: Diagnostics) -> None:
    """Hold every record of the main file to its schema. One that others extend may leave keys to them."""
    records = [item for item in spec.main.file.declarations if isinstance(item, s.Record)]
    extended = {item.base.text for item in spec.records.values() if item.base is not None}
    first: dict[tuple[str, str], s.Record] = {}
    for record in records:
        key = (record.kind.text, record.name.text)
        if first.setdefault(key, record) is not record:
            sink.error("E0405", f"{key[0]} `{key[1]}` is declared twice", record.name.span, "again here")
            continue
        whole = record.name.text not in extended
        section = check_record(record, spec.records, sink, whole=whole)
        if section is not None and whole and record.kind.text == "train":
            _Reading(spec, section, sink).recipe(record)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One record on its way to a recipe; None stands for what was reported."""

    spec: Spec
    section: Section
    sink: Diagnostics

    def recipe(self, record: s.Record) -> Recipe | None:
        steps = self._get("steps", int)
        dims = self._dims()
        model, data = self._model(), self.section.section("data")
        columns = () if data is None else _columns(data)
        streams = data is not None and self._streams(data, columns)
        source = _source(data, "read") if data is not None and streams else None
        rows = self._rows(data, dims) if data is not None and streams else None
        batch = self._batch(rows) if rows is not None or not streams else None
        written = turns(self.spec, self.section, steps or 1, self.sink)
        first = written[0] if written else None
        if None in (steps, model, data, batch, first) or (streams and None in (source, rows)):
            return None
        assert steps and model and batch and first and written is not None, "checked above"
        loss = self.section.values.get("loss")
        return Recipe(
            record.name.text, model, dims, source, rows, columns, loss if isinstance(loss, s.Expr) else first.loss,
            batch, steps, first.optimizer, first.schedule,
            microbatches=self._microbatches(),
            clip=first.clip,
            params=first.params,
            updates=written if first.name else (),
            start=self._get("start", str),
            folder=str(Path(record.name.span.source.path).parent),
            seed=self._get("seed", int) or 0,
            precision=read_precision(self.section, self.sink),
            on_nan=cast("Literal['stop', 'skip']", _word(self.section.values.get("on_nan")) or "stop"),
            on_spike=_spikes(self.section),
            evaluate=_evaluation(self.section.section("eval")),
            checkpoint=_checkpoint(self.section.section("checkpoint")),
            log=_log(self.section.section("log")),
            sample=_sample(self.section.section("generate")),
            export=self._export(),
            trace=self._trace(steps),
            cluster=_word(self.section.values.get("cluster")),
            plan=read_plan(self.section.section("plan"), rows, self.sink),
        )  # fmt: skip

    def _microbatches(self) -> int:
        """The plan's, which is for these devices, before the record's."""
        plan = self.section.section("plan")
        planned = None if plan is None else plan.values.get("microbatches")
        return planned if isinstance(planned, int) else self._get("microbatches", int) or 1

    def _export(self) -> Export | None:
        section = self.section.section("export")
        if section is None:
            return None
        if section.values["format"] != "safetensors":
            self.sink.error("E0402", "`format` cannot be this", section.place("format"), "", expected='"safetensors"')
        return Export(cast(int, section.values["every"]), section.span)

    def _trace(self, steps: int | None) -> Trace | None:
        section = self.section.section("trace")
        at = None if section is None else section.values.get("at")
        if section is None or not isinstance(at, int):
            return None
        if steps is not None and at > steps:
            title = f"there is no step {at:,} in a training of {steps:,}"
            self.sink.error("E0402", title, section.place("at"), "", expected=f"a step from 1 to {steps:,}")
        return Trace(at, cast(int, section.values["steps"]))

    def _get(self, key: str, kind: type[T]) -> T | None:
        value = self.section.values.get(key)
        return value if isinstance(value, kind) else None

    # ---- model and dims

    def _model(self) -> ModelRef | None:
        expr = self.section.values.get("model")
        if not isinstance(expr, s.Node):
            return None
        found = model_reference(expr)
        if found is None:
            self.sink.error(
                "E0402", "`model` cannot be this", expr.span, "",
                expected="a model such as `GPT2`, `GPT2.small` or `GPT2(drop = 0).small`", found=show(expr),
            )  # fmt: skip
        elif found.name not in self.spec.models:
            models = tuple(self.spec.models)
            self.sink.error(
                "E0411", f"no model `{found.name}`", expr.span, "",
                expected=one_of(models) or "a model of the spec, or of a file that it uses",
                hint=did_you_mean(found.name, models),
            )  # fmt: skip
        return found

    def _dims(self) -> dict[str, int]:
        named = self.section.values.get("dims")
        found: dict[str, int] = {}
        for name, value in named.items if isinstance(named, Named) else ():
            if name in found:
                self.sink.error("E0405", f"dim `{name}` is bound twice", self.section.place("dims"), "")
            found[name] = cast(int, value)
        return found

    # ---- data

    def _streams(self, data: Section, columns: Sequence[Column]) -> bool:
        """Whether the data is a stream of ids, cut into rows; else each column brings rows of its own."""
        own = [column for column in columns if column.rule == "tensors"]
        if "read" in data.spans or not own:
            for key in ("read", "rows"):
                lacking(DATA, data, key, self.sink, data.span)
            for column in own if "read" in data.spans else ():
                assert column.span is not None, "a column of a record has a place"
                title = f"`{column.name}` has rows of its own, beside those of `read`"
                self.sink.error("E0402", title, column.span, "", hint="leave `read` and `rows` out, or the column")
            return True
        inner = self.section.section("eval")
        if inner is not None and "data" in inner.spans:
            place = inner.place("data")
            self.sink.error("E0402", "`data` is for a stream of ids", place, "", hint="`share` holds some rows out")
        return False

    def _rows(self, data: Section, dims: Mapping[str, int]) -> Rows | None:
        form = data.values.get("rows")
        if not isinstance(form, Applied):
            return None
        length = form.arguments["length"]
        if isinstance(length, Word):
            if "dims" in self.section.spans and "dims" not in self.section.values:
                return None
            if length.text not in dims:
                self.sink.error(
                    "E0415", f"how long is a row? `dims` does not bind `{length.text}`", length.span, "",
                    expected=f"`dims = [{length.text} = 1024]`", hint=did_you_mean(length.text, dims),
                )  # fmt: skip
                return None
            return Rows(form.name, dims[length.text], length.text)
        return Rows(form.name, cast(int, length))

    def _batch(self, rows: Rows | None) -> int | None:
        """Rows of a step. A batch must be a whole number of rows for each microbatch."""
        value, parts = self.section.values.get("batch"), self._microbatches()
        if isinstance(value, Quantity) and rows is None:
            place = self.section.place("batch")
            self.sink.error("E0403", "`batch` has the wrong unit", place, "", expected="rows: this data has no tokens")
        elif isinstance(value, Quantity) and rows is not None:
            tokens = cast(int, value.base)
            unit = rows.length * parts
            if tokens % unit == 0:
                return tokens // rows.length
            self._uneven(tokens, unit, "tokens", f"rows of {rows.length:,} tokens", parts, rows.length)
        elif isinstance(value, int):
            if value % parts == 0:
                return value
            self._uneven(value, parts, "rows", "rows", parts, 1)
        return None

    def _uneven(self, count: int, unit: int, noun: str, of: str, parts: int, length: int) -> None:
        low, high = count // unit * unit, -(-count // unit) * unit
        nearest = " or ".join(f"{near:,} {noun}{_in_rows(near, length)}" for near in (low, high) if near)
        cut = f" in {parts} microbatches" if parts > 1 else ""
        self.sink.error(
            "E0408", f"a batch of {count:,} {noun} does not come out even", self.section.place("batch"), "",
            expected=f"a whole number of {of}{cut}", hint=f"the nearest: {nearest}",
        )  # fmt: skip


def _in_rows(tokens: int, length: int) -> str:
    return f" (`batch = {tokens // length}`)" if length > 1 else ""


def _not_built(section: Section, schema: Schema, sink: Diagnostics) -> None:
    """What may be written but does nothing yet is refused, rather than passed over."""
    for key in schema.keys:
        if not key.built and key.name in section.spans:
            sink.error("E0416", f"`{key.name}` is not built yet", section.place(key.name), "", hint="leave it out")
        value = section.values.get(key.name)
        if isinstance(value, Applied) and any(not form.built for form in forms_of(key.kind) if form.name == value.name):
            built = one_of(tuple(item.name for item in forms_of(key.kind) if item.built))
            sink.error("E0416", f"`{value.name}` is not built yet", value.span, "", expected=built)
        for inner in section.sections.get(key.name, ()):
            if key.built and key.section is not None:
                _not_built(inner, key.section, sink)


def model_reference(expr: s.Node) -> ModelRef | None:
    """What `GPT2`, `GPT2.small`, `GPT2(drop = 0).small` and `GPT2.small(drop = 0)` refer to; None for anything else."""
    options: dict[str, s.Expr] = {}
    names: list[str] = []
    here = expr
    while not isinstance(here, s.Ref):
        if isinstance(here, s.Call):
            named = {item.name.text: item.value for item in here.args if isinstance(item, s.KwArg)}
            if options or len(named) < len(here.args):
                return None
            options, here = named, here.callee
        elif isinstance(here, s.Member):
            names.append(here.name.text)
            here = here.target
        else:
            return None
    names.append(here.name)
    if len(names) > 2:
        return None
    return ModelRef(names[-1], names[0] if len(names) == 2 else None, options, expr.span)


def _source(section: Section, key: str) -> DataSource | None:
    form = section.values.get(key)
    if not isinstance(form, Applied):
        return None
    folder = _folder(form)
    if form.name == "corpus":
        return DataSource("corpus", (cast(str, form.arguments["name"]),), folder=folder)
    dtype = _word(form.arguments.get("dtype")) or ("uint8" if form.name == "text" else "uint16")
    end = form.arguments.get("end")
    return DataSource(
        cast(SourceKind, form.name),
        cast("tuple[str, ...]", form.rest),
        dtype,
        end if isinstance(end, int) else None,
        folder,
    )


def _columns(data: Section) -> tuple[Column, ...]:
    """The columns that are written, behind those that they are made of and that nobody defines: these are read."""
    made = tuple(_column(item, cast(Applied, item.value)) for item in data.columns)
    names = {column.name for column in made}
    read = dict.fromkeys(column.of for column in made if column.of is not None and column.of not in names)
    return (*(Column(name) for name in read), *made)


def _column(entry: Entry, form: Applied) -> Column:
    if form.name == "next":
        return Column(entry.key, "next", cast(Word, form.arguments["of"]).text, span=entry.span)
    if form.name == "noise":
        return Column(entry.key, "noise", dims=_words(form.rest), span=entry.span)
    dims = _words(cast("tuple[Setting, ...]", form.arguments.get("dims", ())))
    source = DataSource("tensors", cast("tuple[str, ...]", form.rest), folder=_folder(form))
    entry_name = cast("str | None", form.arguments.get("entry"))
    below = _word(form.arguments.get("below"))
    return Column(entry.key, "tensors", None, dims, below, source, entry_name, entry.span)


def _words(values: Iterable[Setting]) -> tuple[str, ...]:
    return tuple(cast(Word, value).text for value in values)


def _folder(form: Applied) -> str:
    """Where the paths of a form begin: beside the spec, or where the command line was given."""
    return str(Path(form.span.source.path).parent) if form.span.source.path != "--set" else "."


# ---- the smaller sections


def _evaluation(section: Section | None) -> Evaluation | None:
    if section is None:
        return None
    share = section.values["share"]
    return Evaluation(
        cast(int, section.values["every"]),
        float(cast(float, share)),
        _source(section, "data"),
        cast(int, section.values["batches"]),
    )


def _checkpoint(section: Section | None) -> Checkpoints:
    if section is None:
        return Checkpoints()
    every, keep, to, signal = (section.values.get(key) for key in ("every", "keep", "to", "on_signal"))
    return Checkpoints(cast(int, every), cast(int, keep), cast("str | None", to), cast(bool, signal))


def _spikes(section: Section) -> Spikes | None:
    """As the record says, `none` included; as it is by default where it says nothing."""
    form = section.values.get("on_spike")
    if not isinstance(form, Applied):
        return None if "on_spike" in section.spans else Spikes()
    given = {key: value.base if isinstance(value, Quantity) else value for key, value in form.arguments.items()}
    return Spikes(
        cast("Literal['warn', 'skip', 'stop']", form.name),
        float(cast(float, given.get("deviations", Spikes().deviations))),
        int(cast(int, given.get("window", Spikes().window))),
    )


def _log(section: Section | None) -> Log:
    if section is None:
        return Log()
    to = cast("tuple[Applied, ...]", section.values.get("to", ()))
    board = next((cast(str, item.arguments["folder"]) for item in to if item.name == "tensorboard"), None)
    every, metrics, norm = (section.values[key] for key in ("every", "metrics", "grad_norm"))
    return Log(cast(int, every), cast(str, metrics), board, cast(bool, norm))


def _sample(section: Section | None) -> Sample | None:
    if section is None:
        return None
    values = section.values
    length = values["length"]
    tokens = length.base if isinstance(length, Quantity) else length
    return Sample(
        cast(str, values["prompt"]),
        cast(int, tokens),
        float(cast(float, values["temperature"])),
        cast(int, values["top_k"]),
        cast(int, values["seed"]),
    )


def _word(value: Setting) -> str | None:
    return value.text if isinstance(value, Word) else None
