"""What records may hold: each kind of record as a table of keys.

A key has a kind of value or a section of its own (`eval { … }`), a default and a line of documentation; the
checker, the messages and the reference are made from these tables, so a new key is a new line here and the place
that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .kinds import (
    Amount,
    Anything,
    Argument,
    Bindings,
    Choice,
    Count,
    Either,
    Flag,
    Form,
    Forms,
    Kind,
    ListOf,
    Nothing,
    Real,
    Setting,
    Text,
)
from .units import Dimension

FLOATS = ("f32", "f64", "bf16", "f16")
FP8 = ("e4m3", "e5m2")
TOKEN_TYPES = ("uint8", "uint16", "uint32", "int32", "int64")
STEPS = Count(1, (Dimension.STEPS,))
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


# ---- forms

PATHS = Text()
DATA_FORMS = Forms(
    (
        Form("text", (), "files of text, read as bytes", rest=Text()),
        Form("corpus", (Argument("name", Text(), "which", True),), "text that comes with Partita: `python-docs`"),
        Form(
            "tokens",
            (
                Argument("dtype", Choice(TOKEN_TYPES), "how wide an id is; uint16 by default"),
                Argument("end", Count(0), "the id that ends a document"),
            ),
            "files of integers, little-endian",
            rest=Text(),
        ),
    ),
    "data",
)
_LENGTH = Argument("length", Either((Count(1), Choice(noun="a dim"))), "ids a row", True)
ROW_FORMS = Forms(
    (
        Form(
            "chunk",
            (_LENGTH,),
            "consecutive windows, read on over the ends of documents",
        ),
        Form("pack", (_LENGTH,), "consecutive windows whose documents are kept apart"),
        Form("pad", (_LENGTH,), "a document a row, the rest filled"),
    ),
    "rows",
)
COLUMN_FORMS = Forms(
    (
        Form("next", (Argument("of", Choice(noun="a column"), "which", True),), "the ids one further on"),
        Form(
            "tensors",
            (
                Argument("entry", Text(), "which tensor of a .safetensors file; the column's name by default"),
                Argument("dims", ListOf(Choice(noun="a dim")), "axes behind the batch, of what only the loss reads"),
                Argument("below", Choice(noun="a dim"), "that bounds the ids, of ids that only the loss reads"),
            ),
            "files of tensors (.npy, .safetensors), a row for each index of their first axis",
            rest=Text(),
        ),
        Form("noise", (), "drawn anew each step from the normal distribution", rest=Choice(noun="a dim")),
    ),
    "a column",
)
_PEAK, _TO, _OVER = (
    Argument("peak", Real(0.0), "the rate that it starts from"),
    Argument("to", Real(0.0), "the rate that it ends at; 0 by default"),
    Argument("over", STEPS, "for how many steps; to the end of the training by default"),
)
SCHEDULE_FORMS = Forms(
    (
        Form(
            "warmup",
            (
                Argument("peak", Real(0.0), "the rate it reaches", True),
                Argument("over", STEPS, "in how many steps", True),
            ),
            "a straight line up from 0",
        ),
        Form("constant", (_PEAK, _OVER), "stays", after=("warmup",)),
        Form("linear", (_PEAK, _TO, _OVER), "a straight line to `to`", after=("warmup", "constant")),
        Form("cosine", (_PEAK, _TO, _OVER), "half a cosine down to `to`", after=("warmup", "constant")),
    ),
    "a learning rate",
)
_TYPE = Choice(FLOATS)
SCALE_FORMS = Forms(
    (
        Form(
            "dynamic",
            (
                Argument("start", Real(0.0, above=True), "what it begins with; 65536 by default"),
                Argument("growth", Real(1.0, above=True), "its factor after good steps; 2 by default"),
                Argument("backoff", Real(0.0, 1.0, above=True), "its factor after an overflow; 0.5 by default"),
                Argument("every", STEPS, "how many good steps make it grow; 2000 by default"),
            ),
            "grows and backs off",
        ),
    ),
    "a loss scale",
)
PRECISION_KEYS = (
    Key("compute", _TYPE, "of contractions and what follows them", None),
    Key("params", _TYPE, "of parameters and optimizer states", None),
    Key("reduce", _TYPE, "of sums over devices", None),
    Key("scale", Either((SCALE_FORMS, Nothing())), "of the loss; dynamic() for f16, else none", None),
)
_SPIKE = (
    Argument("deviations", Real(0.0, above=True), "how far above the median; 6 by default"),
    Argument("window", Count(8, (Dimension.STEPS,)), "of how many steps before; 128 by default"),
)
SPIKE_FORMS = Forms(
    (
        Form("warn", _SPIKE, "says so, and keeps the checkpoint before it"),
        Form("skip", _SPIKE, "warns, and leaves all as it was"),
        Form("stop", _SPIKE, "stops before the update"),
    ),
    "what follows a spike",
)
_FP8 = Form(
    "fp8",
    (
        Argument("forward", Choice(FP8), "of activations and weights"),
        Argument("backward", Choice(FP8), "of gradients"),
        Argument("scale", Anything("a granularity such as block(128)"), "what shares a scale"),
    ),
    "8-bit contractions",
    built=False,
)
PRECISION_FORMS = Forms(
    (
        *(Form(name, (), "everything in this type") for name in FLOATS),
        Form(
            "mixed",
            tuple(Argument(key.name, key.kind or _TYPE, key.doc) for key in PRECISION_KEYS),
            "low where it does no harm",
        ),
        _FP8,
    ),
    "a precision",
)
OVERRIDE_FORMS = Forms((*(Form(name, (), "contractions there in this type") for name in FLOATS), _FP8), "a type")
LOG_FORMS = Forms(
    (
        Form("console", (), "the progress bar"),
        Form("tensorboard", (Argument("folder", Text(), "in the run's folder", True),), "TensorBoard events"),
    ),
    "a place to log to",
)

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
PRECISION = Schema("precision", PRECISION_KEYS, patterns=OVERRIDE_FORMS)
_CHUNKS = (Argument("chunks", Count(1), "of each device"),)
# The schedules of `compiler/schedule/forms.py`, where their orders stand. A name that begins with a digit is a string.
PIPELINE_FORMS = Forms(
    (
        Form("gpipe", (), "all forwards, then all backwards"),
        Form("interleaved", _CHUNKS, "1F1B with several chunks a device, round and round; 2 by default"),
        Form("zero_bubble", (), "1F1B with the backward in halves (ZB-H1)"),
        Form("zero_bubble_v", (), "the same with two chunks a device, down and up again (ZB-V)"),
        Form("list", _CHUNKS, "found by a list scheduler, with so many chunks a device; 1 by default"),
        Form(
            "token_slices",
            (),
            "rows cut along the tokens too: a number of equal slices, or their lengths",
            rest=ListOf(Count(1)),
        ),
    ),
    "a schedule",
)
RECOMPUTE_FORMS = Forms(
    (
        Form("full", (), "all that a layer makes: only its input is kept"),
        Form("selective", (), "what attention has inside, where no fused kernel computes it"),
        Form(
            "budget",
            (Argument("memory", Amount(Dimension.BYTES), "of a device at its peak", True),),
            "as little as fits, the cheapest first",
        ),
    ),
    "a choice of what is computed again",
)
_DEGREES = Bindings(Count(1))
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
    ),
    argument=Choice(noun="the device's name"),
)
LEVEL = Schema(
    "level",
    (
        Key("of", Anything("what it holds, such as 8 * H100"), "its members", required=True),
        Key("link", Amount(Dimension.BYTES_PER_S), "of one device, each way", required=True),
        Key("latency", Amount(Dimension.SECONDS), "of one message", required=True),
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
