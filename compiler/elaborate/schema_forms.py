"""The forms that values of records may have: `tokens("data/*.bin")`, `warmup(…) |> cosine()`, `mixed(…)`, `budget(…)`.

Each group of forms is data of `kinds.py`: names, arguments, a line of documentation each. The tables of keys in
`schema.py` say which key takes which group; the reader, the messages and the reference are made from both, so a new
form is a new line here and the place that uses it.
"""

from __future__ import annotations

from .kinds import Amount, Anything, Argument, Choice, Count, Either, Form, Forms, ListOf, Nothing, Real, Text
from .units import Dimension

FLOATS = ("f32", "f64", "bf16", "f16")
FP8 = ("e4m3", "e5m2")
TOKEN_TYPES = ("uint8", "uint16", "uint32", "int32", "int64")
STEPS = Count(1, (Dimension.STEPS,))
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
PRECISION_ARGUMENTS = (
    Argument("compute", _TYPE, "of contractions and what follows them"),
    Argument("params", _TYPE, "of parameters and optimizer states"),
    Argument("reduce", _TYPE, "of sums over devices"),
    Argument("scale", Either((SCALE_FORMS, Nothing())), "of the loss; dynamic() for f16, else none"),
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
            PRECISION_ARGUMENTS,
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
