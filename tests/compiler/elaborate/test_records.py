"""Records: what they are read as, extends, --set, and every way in which they may be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from partita.compiler.base.diagnostic import Diagnostics, SpecError, render_all
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.plain import plain
from partita.compiler.elaborate.recipe import (
    Checkpoints,
    Column,
    DataSource,
    Evaluation,
    Log,
    OptimizerGroup,
    Precision,
    Rows,
    Sample,
    matches,
)
from partita.compiler.elaborate.recipes import check_records, load_recipe
from partita.compiler.elaborate.records import check_record
from partita.compiler.elaborate.schedule import rate_at
from partita.compiler.elaborate.schema import SCHEMAS, Schema
from partita.compiler.ir.types import DType
from partita.compiler.language.parse import read_source
from partita.runtime.recipe import Training, from_plain
from records_support import BASE, faults, recipe, spec_of

SPECS = Path(__file__).resolve().parents[3] / "specs"

# ---- reading


def test_a_recipe_is_typed():
    found = recipe()
    assert (found.name, found.model.name, found.model.size) == ("base", "Bigram", "small")
    assert found.dims == {"T": 128}
    assert found.source == DataSource("text", ("a.txt", "b/*.txt"), folder="folder")
    assert found.rows == Rows("chunk", 128)
    assert found.columns == (Column("tokens"), Column("target", "next", "tokens"))
    assert (found.batch, found.microbatches, found.steps, found.seed, found.clip) == (12, 1, 1000, 0, None)
    start = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8}
    assert found.optimizer == (
        OptimizerGroup("*.gain", "adamw", ("m", "v"), {**start, "decay": 0}),
        OptimizerGroup("*.b", "adamw", ("m", "v"), {**start, "decay": 0}),
        OptimizerGroup("*", "adamw", ("m", "v"), {**start, "decay": 0.1}),
    )
    assert (found.evaluate, found.checkpoint, found.log, found.sample) == (None, Checkpoints(), Log(), None)
    assert found.precision == Precision()


def test_sections():
    text = """train all extends base {
  clip = 0.5
  seed = 7
  microbatches = 3
  precision = f64
  checkpoint { every = 100 steps, keep = 2, to = "here", on_signal = false }
  eval { every = 50, data = tokens("v.bin", dtype = uint32, end = 5), batches = 3 }
  log { every = 10 steps, to = [console, tensorboard("runs")], metrics = "m.jsonl" }
  generate { prompt = "The", length = 30 tokens, temperature = 0, top_k = 5 }
}
"""
    found = recipe(text, "all")
    assert (found.clip, found.seed, found.microbatches, found.rows_per_microbatch) == (0.5, 7, 3, 4)
    assert found.precision == Precision(DType.F64, DType.F64, DType.F64)
    assert found.checkpoint == Checkpoints(100, 2, "here", False)
    assert found.evaluate == Evaluation(50, 0.05, DataSource("tokens", ("v.bin",), "uint32", 5, "folder"), 3)
    assert found.log == Log(10, "m.jsonl", "runs")
    assert found.sample == Sample("The", 30, 0.0, 5, 0)


def test_the_runtime_reads_what_plain_gives():
    training = from_plain(plain(recipe("", "base", "eval.share=0.1", 'data.read=corpus("python-docs")')))
    assert isinstance(training, Training)
    assert training.rows is not None and training.source is not None
    assert (training.batch, training.rows.length, training.source.kind) == (12, 128, "corpus")
    assert training.evaluate is not None
    assert training.evaluate.share == 0.1


@pytest.mark.parametrize(
    ("text", "size", "options"),
    [
        ("Bigram", None, []),
        ("Bigram.small", "small", []),
        ("Bigram(drop = 0).small", "small", ["drop"]),
        ("Bigram.small(drop = 0)", "small", ["drop"]),
    ],
)
def test_model_references(text: str, size: str | None, options: list[str]):
    found = recipe("", "base", f"model={text}").model
    assert (found.name, found.size, list(found.options)) == ("Bigram", size, options)


def test_precision():
    assert recipe("", "base", "precision=mixed()").precision == Precision(DType.BF16, DType.F32, DType.F32)
    mixed = recipe('train p extends base { precision { compute = bf16, "*.router.*" = f32 } }', "p").precision
    assert mixed == Precision(DType.BF16, DType.F32, DType.F32, (("*.router.*", DType.F32),))
    with pytest.raises(SpecError, match="E0416"):
        recipe("", "base", "precision=bf16")


def test_optimizers_by_pattern_and_of_the_spec():
    text = 'train o extends base { optimizer { "*.w" = lion(lr = 2e-3, decay = 0.5), "*" = sgd(momentum = 0.9) } }'
    first, second = recipe(text, "o").optimizer
    assert (first.pattern, first.function, first.states, first.counts) == ("*.w", "lion", ("m",), False)
    assert first.options == {"beta1": 0.9, "beta2": 0.99, "decay": 0.5}
    assert first.schedule is not None
    assert rate_at(first.schedule, 99) == pytest.approx(2e-3)
    assert second.options == {"momentum": 0.9, "decay": 0.0, "nesterov": False}
    assert second.schedule is None


def test_batches_in_tokens():
    assert recipe("", "base", "batch=1280 tokens").batch == 10


# ---- extends


def test_extends_merges_sections_and_puts_new_patterns_first():
    text = """
train a extends base { eval { every = 10, share = 0.1 }, optimizer { "*.w" = adam(), "*" = adamw() } }
train b extends a { eval { every = 20 }, optimizer { "*.b" = sgd(), "*.w" = sgd() }, batch = 24 }
"""
    found = recipe(text, "b")
    assert found.evaluate == Evaluation(20, 0.1)
    assert [(item.pattern, item.function) for item in found.optimizer] == [
        ("*.b", "sgd"), ("*.w", "sgd"), ("*", "adamw")
    ]  # fmt: skip
    assert found.batch == 24


def test_a_section_takes_the_place_of_a_value():
    found = recipe('train a extends base { optimizer { "*" = sgd() } }', "a")
    assert [item.function for item in found.optimizer] == ["sgd"]


def test_a_base_may_leave_keys_to_those_that_extend_it():
    base = BASE.replace("  batch = 12\n", "")
    spec = spec_of("train whole extends base { batch = 2 }", base)
    sink = Diagnostics()
    check_records(spec, sink)
    assert sink.items == []
    assert load_recipe(spec, "whole").batch == 2
    assert [code for code, _ in faults(base=base)] == ["E0404"]


# ---- clusters, plans, the schema


def test_the_shipped_records_are_valid():
    paths = [*(SPECS / "clusters").glob("*.partita"), SPECS / "recipes" / "docs_demo.partita"]
    assert len(paths) >= 3
    for path in paths:
        spec, found = load(read_source(path))
        assert spec is not None, render_all(found)
        sink = Diagnostics()
        check_records(spec, sink)
        assert sink.items == [], render_all(sink)


def test_a_cluster_in_base_units():
    spec, _ = load(read_source(SPECS / "clusters" / "h100.partita"))
    assert spec is not None
    sink = Diagnostics()
    section = check_record(spec.records["cluster", "h100_64"], spec.records, sink)
    assert section is not None
    (device,) = section.sections["device"]
    assert device.values["memory"] == 80 * 2**30
    assert device.values["bf16"] == 989 * 10**12
    assert [level.values["latency"] for level in section.sections["level"]] == [3e-6, 8e-6]


def test_a_plan():
    text = """
plan p {
  for = base
  mesh = [pipe = 8, data = 2]
  pin = [L -> pipe, batch -> data]
  balance = [9, 8, 8, 7, 8, 8, 8, 8]
  schedule = zero_bubble
  microbatches = 16
  budget = 72 GiB
  recompute = selective
}
"""
    sink = Diagnostics()
    check_records(spec_of(text), sink)
    assert sink.items == [], render_all(sink)
    check_records(spec_of(text.replace("selective", "selectiv")), sink)
    assert [item.hint for item in sink] == ["did you mean `selective`?"]


def _schemas(schema: Schema) -> list[Schema]:
    inner = [item for key in schema.keys if key.section is not None for item in _schemas(key.section)]
    return [schema, *inner]


def test_every_key_is_documented_and_takes_something():
    for schema in SCHEMAS.values():
        for each in _schemas(schema):
            assert len(set(each.names)) == len(each.names)
            for key in each.keys:
                assert key.doc, f"{each.name}.{key.name} says nothing"
                assert key.kind is not None or key.section is not None
                assert not (key.required and key.default is not None)


# ---- patterns


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*", "blocks.0.attn.q.w", True),
        ("*.gain", "ln_f.gain", True),
        ("*.gain", "blocks.0.ln1.gain", True),
        ("*.gain", "gain", False),
        ("wte.*", "wte.table", True),
        ("blocks.*.w", "blocks.0.attn.q.w", True),
        ("blocks[0].*", "blocks.0.ln1.b", True),
        ("blocks[0].*", "blocks.10.ln1.b", False),
        ("a*b*c", "abc", True),
        ("a*b*b", "ab", False),
        ("wte.table", "wte.table", True),
    ],
)
def test_patterns(pattern: str, path: str, fits: bool):
    assert matches(pattern, path) is fits


def test_hostile_patterns_take_no_time():
    assert not matches("*a" * 2000 + "b", "a" * 4000)
