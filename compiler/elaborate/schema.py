"""What records may hold: each kind of record as a table of keys.

A key has a kind of value or a section of its own (`eval { … }`), a default and a line of documentation; the
checker, the messages and the reference are made from these tables, so a new key is a new line here and the place
that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .kinds import Amount, Anything, Bindings, Choice, Count, Either, Flag, Kind, ListOf, Nothing, Real, Setting, Text
from .schema_forms import (
    COLUMN_FORMS,
    DATA_FORMS,
    LOG_FORMS,
    OVERRIDE_FORMS,
    PIPELINE_FORMS,
    PRECISION_ARGUMENTS,
    PRECISION_FORMS,
    RECOMPUTE_FORMS,
    ROW_FORMS,
    SCHEDULE_FORMS,
    SPIKE_FORMS,
    STEPS,
)
from .units import Dimension

EVERY = Count(0, (Dimension.STEPS,))


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    kind      of the value of `key = value`; None if it takes none
    section   of `key { … }`; None if it takes none
    doc       one line for the reference and for hints
    default   what it is when it is not written; None may mean absent
    required  whether it must be written
    many      whether its section may occur several times, told apart by their arguments (`device H100 { … }`)
    built     whether anything is done with it yet
    """

    name: str
    kind: Kind | None
    doc: str
    default: Setting = None
    required: bool = False
    section: Schema | None = None
    many: bool = False
    built: bool = True


@dataclass(frozen=True, slots=True)
class Schema:
    """A kind of record or section: its keys, and what other keys (`columns`) and patterns hold, if allowed."""

    name: str
    keys: tuple[Key, ...]
    patterns: Kind | None = None
    columns: Kind | None = None
    argument: Kind | None = None

    def key(self, name: str) -> Key | None:
        """The key of that name."""
        return next((key for key in self.keys if key.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        """All keys."""
        return tuple(key.name for key in self.keys)


# ---- sections of `train`

DATA = Schema(
    "data",
    (
        Key("read", DATA_FORMS, "where ids come from"),
        Key("rows", ROW_FORMS, "how they are cut into rows"),
    ),
    columns=COLUMN_FORMS,
)
CHECKPOINT = Schema(
    "checkpoint",
    (
        Key("every", EVERY, "how often it is saved; 0: at the end only", 0),
        Key("keep", Count(0), "how many stay; 0: all", 3),
        Key("to", Text(), "the folder, in the run's; `checkpoints` by default"),
        Key("on_signal", Flag(), "whether an interrupt saves", True),
    ),
)
EVAL = Schema(
    "eval",
    (
        Key("every", EVERY, "how often; 0: at the end only", 0),
        Key("share", Real(0.0, 0.9), "of the training data, held out from its end", 0.05),
        Key("data", DATA_FORMS, "other data, instead of a share"),
        Key("batches", Count(0), "how many are read; 0: all", 0),
    ),
)
LOG = Schema(
    "log",
    (
        Key("every", STEPS, "how often", 1),
        Key("to", ListOf(LOG_FORMS), "where, beside the metrics file"),
        Key("metrics", Text(), "the file of metrics, in the run's folder", "metrics.jsonl"),
        Key("grad_norm", Flag(), "whether the gradient's norm is computed where nothing is clipped by it", True),
    ),
)
GENERATE = Schema(
    "generate",
    (
        Key("prompt", Text(), "what the sample at the end begins with", "\n"),
        Key("length", Count(1, (Dimension.TOKENS,)), "how many tokens are drawn", 200),
        Key("temperature", Real(0.0), "0: always the likeliest", 0.8),
        Key("top_k", Count(0), "only among the k likeliest; 0: all", 0),
        Key("seed", Count(0), "of the draws", 0),
    ),
)
EXPORT = Schema(
    "export",
    (
        Key("every", EVERY, "how often; 0: at the end only", 0),
        Key("format", Text(), "of the files: `safetensors`", "safetensors"),
    ),
)
TRACE = Schema(
    "trace", (Key("at", STEPS, "the first step, counted from 1", required=True), Key("steps", STEPS, "how many", 1))
)
OPTIMIZER = Schema("optimizer", (), patterns=Anything("an optimizer such as adamw(decay = 0.1)"))
# What an update takes from the record where it does not say it itself.
UPDATE_KEYS = (
    Key("loss", Anything("a loss such as mean(cross_entropy[V](logits, target))"), "what is made small"),
    Key(
        "optimizer",
        Anything("an optimizer such as adamw(decay = 0.1)"),
        "who updates the parameters; by pattern of their paths in a section",
        section=OPTIMIZER,
    ),
    Key("lr", Either((Real(0.0), SCHEDULE_FORMS)), "the learning rate, unless every optimizer has its own"),
    Key("clip", Either((Real(0.0, above=True), Nothing())), "the largest global norm of the gradients"),
    Key("params", ListOf(Text()), "patterns of the parameters that train; all by default"),
)
UPDATE = Schema(
    "update",
    (*UPDATE_KEYS, Key("repeat", Count(1), "how often it runs in a step, each time on rows of its own", 1)),
    argument=Choice(noun="the update's name"),
)
PRECISION = Schema(
    "precision",
    tuple(Key(one.name, one.kind, one.doc) for one in PRECISION_ARGUMENTS),
    patterns=OVERRIDE_FORMS,
)
_DEGREES = Bindings(Count(1))
OFFLOADED = ("optimizer", "activations")
PLAN_KEYS = (
    Key("mesh", _DEGREES, "how many devices along each axis"),
    Key("pin", Anything("a list such as [H -> tensor, L -> pipe]"), "dims fixed to axes"),
    Key("budget", Amount(Dimension.BYTES), "of memory, on each device"),
    Key("zero", Count(0), "the stage of ZeRO over the axis `data`: 1 states, 2 gradients, 3 parameters"),
    Key("schedule", Either((PIPELINE_FORMS, Text())), 'of the pipeline over the axis `pipe`; "1f1b" by default'),
    Key("microbatches", Count(1), "of a step, instead of the recipe's"),
    Key("balance", ListOf(Count(1)), "how many blocks each chunk of the pipeline has; by default the best"),
    Key(
        "recompute",
        Either((RECOMPUTE_FORMS, Nothing(), ListOf(Text()))),
        "what the backward computes again: a name, a budget or patterns of instances; by default what costs no time",
    ),
    Key(
        "offload",
        Either((Nothing(), Choice(OFFLOADED), ListOf(Choice(OFFLOADED)))),
        "what lies on the host: `optimizer`, its state and update; `activations`, what the backward reads later",
        None,
    ),
)

# ---- the kinds of record

TRAIN = Schema(
    "train",
    (
        Key("model", Anything("a model such as GPT2.small"), "what is trained", required=True),
        Key("dims", Bindings(Count(1)), "sizes of free dims, such as [T = 1024]"),
        Key("data", None, "what is read", required=True, section=DATA),
        Key(
            "batch", Count(1, (Dimension.TOKENS,)), "rows (or tokens, with the unit) of one step, in all", required=True
        ),
        Key("microbatches", Count(1), "into how many parts a batch is cut, one after the other", 1),
        Key("steps", STEPS, "how long", required=True),
        *UPDATE_KEYS,
        Key("update", None, "one of several updates that take turns in a step", section=UPDATE, many=True),
        Key("start", Text(), "a checkpoint whose parameters it begins with, beside the spec"),
        Key("precision", PRECISION_FORMS, "in which types; f32 by default", section=PRECISION),
        Key(
            "on_nan", Choice(("stop", "skip")), "what follows a loss or gradients that are not finite; stop by default"
        ),
        Key(
            "on_spike", Either((SPIKE_FORMS, Nothing())), "what follows a loss far above the last ones; warn by default"
        ),
        Key("seed", Count(0), "of weights, data order and dropout", 0),
        Key("checkpoint", None, "what is saved", section=CHECKPOINT),
        Key("eval", None, "the held-out loss", section=EVAL),
        Key("log", None, "what is written down", section=LOG),
        Key("generate", None, "the sample that is drawn at the end", section=GENERATE),
        Key("cluster", Choice(noun="a cluster's name"), "the machines that layouts and times are reckoned for"),
        Key("plan", None, "what the planner must keep to", section=Schema("plan", PLAN_KEYS)),
        Key("export", None, "weights written for others, by the model's weight map", section=EXPORT),
        Key("trace", None, "a profile of some steps", section=TRACE),
    ),
)
DEVICE = Schema(
    "device",
    (
        Key("memory", Amount(Dimension.BYTES), "size", required=True),
        Key("bandwidth", Amount(Dimension.BYTES_PER_S), "of its memory", required=True),
        *(
            Key(name, Amount(Dimension.FLOP_PER_S), f"peak rate in {name}")
            for name in ("f64", "f32", "tf32", "bf16", "f16", "fp8")
        ),
        Key("launch", Amount(Dimension.SECONDS), "of a kernel"),
        Key("host_link", Amount(Dimension.BYTES_PER_S), "to its host's memory, each way"),
        Key("host_memory", Amount(Dimension.BYTES_PER_S), "of its host's memory, its share of it"),
    ),
    argument=Choice(noun="the device's name"),
)
LEVEL = Schema(
    "level",
    (
        Key("of", Anything("what it holds, such as 8 * H100"), "its members", required=True),
        Key("link", Amount(Dimension.BYTES_PER_S), "of one device, each way", required=True),
        Key("latency", Amount(Dimension.SECONDS), "of one message", required=True),
        Key("abreast", Count(1), "how many members work at a time at their own pace, where they share cores"),
    ),
    argument=Choice(noun="the level's name"),
)
CLUSTER = Schema(
    "cluster",
    (
        Key("device", None, "a kind of device", required=True, section=DEVICE, many=True),
        Key("level", None, "devices, or lower levels, joined by one kind of link", section=LEVEL, many=True),
    ),
)
PLAN = Schema("plan", (Key("for", Choice(noun="a recipe's name"), "whose plan it is"), *PLAN_KEYS))

SCHEMAS: Mapping[str, Schema] = MappingProxyType({schema.name: schema for schema in (TRAIN, CLUSTER, PLAN)})
