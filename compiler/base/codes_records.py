"""Entries E04, records and units. See catalogue.py. Bad and mended specs are one whole recipe with a line changed."""

from .entry import Entry

_LINES: tuple[str, ...] = (
    "use std",
    "",
    "model Bigram : tokens[T] in V -> logits[T, V] {",
    "  sizes {",
    "           V    D",
    "    small  256  16",
    "  }",
    "  table : Embedding[V, D]",
    "  head  : Linear[D, V]",
    "  return head(table(tokens))",
    "}",
    "",
    "train demo {",
    "  model = Bigram.small",
    "  dims = [T = 128]",
    '  data { read = text("data/*.txt"), rows = chunk(T), target = next(tokens) }',
    "  loss = mean(cross_entropy[V](logits, target))",
    "  batch = 16",
    "  steps = 1000",
    "  optimizer = adamw(decay = 0.1)",
    "  lr = 3e-4",
    "}",
)


def _recipe(*changed: str, last: str = "") -> str:
    """The recipe with the lines of some keys replaced (or put in at the end), `last` behind it."""
    lines = list(_LINES)
    for change in changed:
        key = change.split(" ")[0]
        at = [number for number, line in enumerate(lines) if line.split()[:1] == [key]]
        if at:
            lines[at[0]] = f"  {change}"
        else:
            lines.insert(len(lines) - 1, f"  {change}")
    return "\n".join([*lines, *([last] if last else [])]) + "\n"


def _without(key: str) -> str:
    return "\n".join(line for line in _LINES if line.split()[:1] != [key]) + "\n"


ENTRIES: tuple[Entry, ...] = (
    Entry(
        code="E0401",
        title="no such key or option",
        what="A record, a section or a form such as `adamw(…)` holds something that it does not know.",
        why="A misspelt key that is passed over trains another model than the one that was meant.",
        bad=_recipe("stesp = 2000"),
        mended=_recipe("steps = 2000"),
    ),
    Entry(
        code="E0402",
        title="a value of the wrong type",
        what="A key holds something that it cannot be: a string where a number belongs, a section where a value "
        "belongs.",
        why="`expected` and `found` name both; nothing is converted behind your back.",
        bad=_recipe('clip = "1.0"'),
        mended=_recipe("clip = 1.0"),
    ),
    Entry(
        code="E0403",
        title="a wrong unit",
        what="A quantity is in a unit of another dimension, or has a unit where a plain number belongs, or has none.",
        why="80 GB and 80 GiB differ by six gigabytes, 4 Mtokens and 4 million rows by far more: units are never "
        "guessed.",
        bad="cluster desk {\n  device RTX4090 { memory = 24, bandwidth = 1008 GiB, bf16 = 165 TFLOP/s }\n}\n",
        mended="cluster desk {\n  device RTX4090 { memory = 24 GiB, bandwidth = 1008 GB/s, bf16 = 165 TFLOP/s }\n}\n",
    ),
    Entry(
        code="E0404",
        title="something required is missing",
        what="A record lacks a key, or a form an argument, that has no default.",
        why="What has no sensible default must be chosen by who trains: the loss, the data, how long.",
        bad=_without("loss"),
        mended=_recipe(),
    ),
    Entry(
        code="E0405",
        title="given twice",
        what="A key, an option or a record's name occurs twice in one place.",
        why="Either could be the one that was meant. A record that changes another `extends` it.",
        bad=_recipe().replace("  steps = 1000\n", "  steps = 1000\n  steps = 2000\n"),
        mended=_recipe("steps = 2000"),
    ),
    Entry(
        code="E0406",
        title="no record of that name to extend",
        what="`extends` names a record that does not exist, or one of another kind.",
        why="Its keys would be missing.",
        bad=_recipe(last="train longer extends dmeo { steps = 5000 }"),
        mended=_recipe(last="train longer extends demo { steps = 5000 }"),
    ),
    Entry(
        code="E0407",
        title="records extend each other in a circle",
        what="Following `extends` from a record leads back to it.",
        why="None of them would be the first.",
        bad=_recipe(last="train a extends b { steps = 1 }\ntrain b extends a { batch = 2 }"),
        mended=_recipe(last="train a extends b { steps = 1 }\ntrain b extends demo { batch = 2 }"),
    ),
    Entry(
        code="E0408",
        title="a batch that does not come out even",
        what="The batch is no whole number of rows, or its rows do not divide into the microbatches.",
        why="Rounding would change the batch that the learning rate was chosen for; the message names the "
        "nearest that fit.",
        bad=_recipe("batch = 10_000 tokens"),
        mended=_recipe("batch = 9984 tokens"),
    ),
    Entry(
        code="E0409",
        title="which record?",
        what="The record that was asked for does not exist, or several could be meant and none was named.",
        why="`partita train SPEC NAME` says which; a spec with one `train` record needs no name.",
    ),
    Entry(
        code="E0410",
        title="a setting that cannot be read",
        what="`--set` takes `path=value`: keys with dots between them, an equals sign, and one value of the language.",
        why="`--set eval.every=100`, `--set dims.T=256` and `--set 'lr=warmup(1e-3, 100 steps)'` are checked "
        "as if they stood in the record.",
    ),
    Entry(
        code="E0411",
        title="no such model, optimizer or form",
        what="A value names a model, an optimizer, a schedule or a kind of data that does not exist here.",
        why="Optimizers are functions of std or of the spec that take (p, g, states …, step, lr, options …); "
        "the others are listed in the message.",
        bad=_recipe("optimizer = adanw(decay = 0.1)"),
        mended=_recipe("optimizer = adamw(decay = 0.1)"),
    ),
    Entry(
        code="E0412",
        title="a number out of range",
        what="A number is of the right type but too small or too large.",
        why="A training of zero steps or a share of 120% means nothing.",
        bad=_recipe("steps = 0"),
        mended=_recipe("steps = 1"),
    ),
    Entry(
        code="E0413",
        title="a parameter that nobody updates",
        what='No pattern of the section `optimizer` fits a parameter. A last pattern `"*"` takes all others.',
        why="It would silently stay as it was initialised.",
    ),
    Entry(
        code="E0414",
        title="no such kind of record",
        what="Records are `train`, `cluster` and `plan`.",
        why="A record of another kind would never be read.",
        bad="trian demo { steps = 5 }\n",
        mended="cluster desk {\n  device RTX4090 { memory = 24 GiB, bandwidth = 1008 GB/s }\n}\n",
    ),
    Entry(
        code="E0415",
        title="how long is a row?",
        what="`rows` names a dim that `dims` does not bind, or an input of the model has a dim of no size.",
        why="The model leaves the dim free, so the recipe must give it a size.",
        bad=_recipe("dims = [S = 128]"),
        mended=_recipe("dims = [T = 128]"),
    ),
    Entry(
        code="E0416",
        title="not built yet",
        what="A key or form is part of the language, but nothing is done with it in this version.",
        why="Passing over it would train something else than was asked for.",
    ),
    Entry(
        code="E0417",
        title="a pattern that no parameter falls to",
        what="A group of the section `optimizer` updates nothing: no parameter's name fits its pattern, or patterns "
        "before it take them all. It is a warning; the training goes on.",
        why="A misspelt name would train its parameters as the next pattern that fits them says.",
    ),
    Entry(
        code="E0418",
        title="a pattern of `params` that no parameter falls to",
        what="`params` says which parameters train; one of its patterns fits none of the model's.",
        why="A misspelt name would leave the parameters untrained that were meant.",
        bad=_recipe('params = ["haed.*"]'),
        mended=_recipe('params = ["head.*"]'),
    ),
    Entry(
        code="E0419",
        title="a column unlike the input that reads it",
        what="The data writes other axes for a column than the model's signature, or noise for ids; or its rows are "
        "not what the model reads.",
        why="The model's signature says what it reads; the record can only repeat it.",
        bad=_recipe('data { read = text("data/*.txt"), rows = chunk(T), target = next(tokens), tokens = noise(T) }'),
        mended=_recipe(),
    ),
    Entry(
        code="E0420",
        title="a pipeline that does not fit",
        what="A plan's schedule or balance does not fit its mesh or its rows: there is no axis `pipe`, the balance "
        "has not a number for each chunk, or token slices do not make up a row.",
        why="A schedule without a pipeline would be passed over, and slices that do not add up would lose tokens.",
        bad=_recipe("plan { mesh = [pipe = 2], schedule = token_slices(80, 40), balance = [1, 1, 1] }"),
        mended=_recipe("plan { mesh = [pipe = 2], schedule = token_slices(80, 48), balance = [1, 1] }"),
    ),
    Entry(
        code="E0421",
        title="a pattern of `recompute` that no instance falls to",
        what="A plan's `recompute` names instances whose insides the backward computes again; one of its patterns fits "
        "none of the model's. `*` stands for any characters: `blocks.*.mlp*` is each layer's MLP with what is in it.",
        why="A misspelt name would keep everything, and the step would not fit.",
        bad=_recipe('plan { recompute = ["haed*"] }'),
        mended=_recipe('plan { recompute = ["head*"] }'),
    ),
)
