"""Llama 3 8B on 8 × 8 devices: laid out by others' placements and by ours, both priced message by message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from partita.compiler import pipeline
from partita.compiler.base.span import Source
from partita.compiler.clusters import cluster_named
from partita.compiler.elaborate.load import Spec, load
from partita.compiler.elaborate.recipe import Plan, Recipe
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.layout import Layout, Mesh, Reduction
from partita.compiler.ir.types import Dims
from partita.compiler.partition.choices import Wishes
from partita.compiler.partition.decide import Decision, decide
from partita.compiler.partition.fold import fold
from partita.compiler.partition.price import Prices, laid_out_s
from samples.spec_texts import ROOT

MESH = Mesh((("data", 8), ("tensor", 8)))
CLUSTER = cluster_named("dgx_h100")
LINES = (Path(__file__).parent / "autoparallel_llama3_8b.txt").read_text().splitlines()


RECIPE = """use std
use models.llama3
train r {
  model     = Llama3.8B
  dims      = [T = 8192]
  data { read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }
  loss      = mean(cross_entropy[V](logits, target))
  batch     = 16
  steps     = 5
  optimizer = adamw()
  lr        = 0.001
  precision = mixed(compute = bf16)
}
"""


def wanted() -> Iterator[tuple[str, str]]:
    """Patterns of node ids, and how what they fit lies."""
    for line in LINES:
        if line and not line.startswith("#"):
            pattern, _, layout = line.partition(" ")
            yield pattern, layout.strip()


def layout_of(text: str, dims: Dims) -> Layout:
    """`[batch:data T D]+sum(tensor)` for a value of these dims."""
    cut, owed = re.fullmatch(r"\[(.*)\]((?:\+\w+\(\w+\))*)", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
    words = [word.partition(":") for word in cut.split()]
    assert [name for name, _, _ in words] == [dim.name for dim in dims], f"{text} for {dims}"
    partial = re.findall(r"\+(\w+)\((\w+)\)", owed)
    shards = tuple(tuple(axes.split(".")) if axes else () for _, _, axes in words)
    found = Layout(shards, tuple((axis, Reduction(how)) for how, axis in partial))
    assert found.text(dims) == text
    return found


@cache
def asked() -> tuple[Spec, Recipe]:
    spec, faults = load(Source(str(ROOT / "specs/recipes/structure.partita"), RECIPE))
    assert spec is not None, faults
    return spec, load_recipe(spec)


@cache
def ours() -> Decision:
    return pipeline.partitioned_step(*asked(), Plan(MESH.axes, (("batch", "data"),)), cluster=CLUSTER, device="cuda")


def theirs() -> Decision:
    """Their placements; where they say nothing, the best for them. Their loss stands apart from the head."""
    step = pipeline.unfused_step(*asked(), "cuda")
    classes = fold(step).nodes
    laid: dict[str, Layout] = {}
    for pattern, text in wanted():
        named = [name for name in classes if ("/" in name) == ("/" in pattern)]
        nodes = [classes[name] for name in named if fnmatchcase(name, pattern)]
        assert nodes, f"nothing is called {pattern}"
        laid |= {node.id: layout_of(text, node.outs[0].dims) for node in nodes}
    found = decide(step, MESH, CLUSTER, Wishes({"batch": ("data",)}, leaves=laid))
    for name, layout in laid.items():
        assert found.graph[name].layouts[0] == layout, name
    return found


def test_our_layout_is_no_worse_than_autoparallels() -> None:
    prices = Prices(MESH, CLUSTER)
    mine, others = (laid_out_s(decision.graph, prices) for decision in (ours(), theirs()))
    print(f"ours {mine:.4f} s, AutoParallel's {others:.4f} s")
    assert mine <= others


def test_the_terms_of_the_program_are_what_is_sent() -> None:
    """Axis by axis or message by message: the same within a few hundredths."""
    decision = ours()
    assert abs(laid_out_s(decision.graph, Prices(MESH, CLUSTER)) / decision.solution.seconds - 1) < 0.05
