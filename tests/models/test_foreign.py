"""Foreign kernels: held to their bodies, trained through their backwards, run only where they are allowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from partita.compiler.base.diagnostic import SpecError, render_all
from partita.compiler.base.span import Source
from partita.compiler.elaborate.check import check_text
from partita.compiler.elaborate.load import Spec
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.graph import Graph
from partita.compiler.ir.parse import parse_graph
from partita.compiler.ir.text import print_graph
from partita.compiler.lower.build import compile_graphs
from partita.compiler.pipeline import compile_recipe, module, predict_graph, step_graph
from partita.runtime.begin import Options
from partita.runtime.fault import RuntimeFault
from partita.runtime.folder import executable
from partita.runtime.metrics import read_metrics
from partita.runtime.state import initial_store
from partita.runtime.train import train
from samples.spec_texts import ROOT, opened, text_spec

FOLDER = ROOT / "tests/samples/foreign"
RECORD = """
train t {
  model = Toy
  dims = [T = 5, D = 6]
  data { x = tensors("x.npy") }
  loss = mean(out ^ 2)
  batch = 4
  steps = 3
  precision = f64
  optimizer = sgd()
  lr = 0.1
}
"""


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package can be imported, and is not yet."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    sys.modules.pop("my_ops", None)


def toy(folder: Path, *, transparent: bool = False) -> Spec:
    """specs/models/own_op with a record; `transparent`: its opaque kernel gets a body."""
    text = (ROOT / "specs/models/own_op.partita").read_text() + RECORD
    if transparent:
        opaque = 'kernel "my_ops:tree" backward "my_ops:tree_backward"'
        assert opaque in text
        text = text.replace(opaque, opaque + " = dot[S](softmax[S](dot[K](q, k)), v)")
    np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(8, 5, 6)))
    return opened(Source(str(folder / "own.partita"), text))


def run(graph: Graph, allowed: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """The parameters after a step, and the loss."""
    build, sources = compile_graphs({"step": graph}, {}, {})
    build = replace(build, kernels=allowed)
    runnable = executable(build, sources, kernels=allowed)
    store = initial_store(build, 0)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(4, 5, 6)))
    found = runnable.run("step", store, [{"x": x}])
    return {**store, "loss": found["loss"]}


def test_a_step_is_that_of_the_bodies(tmp_path: Path) -> None:
    spec = toy(tmp_path, transparent=True)
    recipe = load_recipe(spec)
    allowed = replace(recipe, kernels=("my_ops",))
    ours, theirs = step_graph(spec, recipe), step_graph(spec, allowed)
    assert not ours.nodes("foreign")
    assert len(theirs.nodes("foreign")) == len(theirs.nodes("foreign_backward")) == 2
    before, after = run(ours), run(theirs, ("my_ops",))
    for name, wanted in before.items():
        torch.testing.assert_close(after[name], wanted, rtol=1e-11, atol=1e-13, msg=name)


def test_several_results_and_what_carries_nothing(tmp_path: Path) -> None:
    text = """use std
fn biased[D](x[D], b[D], t[D]) -> [D], [D] kernel "my_ops:biased" backward "my_ops:biased_backward" {
  return x + b + t, x
}
model Toy : x[T, D] -> [T, D] {
  sizes {
       D
    s  6
  }
  param b[D] ~ normal(0.5)
  q : Linear[D, D]
  t : Linear[D, D]
  y, z = biased[D](q(x), b, mean[T](t(x)))
  return y * z
}
"""
    np.save(tmp_path / "x.npy", np.zeros((8, 5, 6)))
    text = text.replace("mean[T](t(x))", "m(t(x))").replace(
        "model Toy", "block Mean[D] : x[T, D] -> [D] {\n  return mean[T](x)\n}\nmodel Toy"
    )
    text = text.replace("  t : Linear[D, D]\n", "  t : Linear[D, D]\n  m : Mean[D]\n")
    spec = opened(Source(str(tmp_path / "own.partita"), text + RECORD))
    recipe = load_recipe(spec)
    before = run(step_graph(spec, recipe))
    after = run(step_graph(spec, replace(recipe, kernels=("my_ops",))), ("my_ops",))
    for name, wanted in before.items():
        torch.testing.assert_close(after[name], wanted, rtol=1e-11, atol=1e-13, msg=name)


def test_a_build_asks_for_the_permission_again(tmp_path: Path) -> None:
    spec = toy(tmp_path)
    recipe = load_recipe(spec, "t", ["steps=8", "lr=0.5"])
    with pytest.raises(SpecError) as caught:
        compile_recipe(spec, recipe, tmp_path / "build")
    assert {item.code for item in caught.value.diagnostics} == {"E0921"} and not (tmp_path / "build").exists()
    assert "my_ops" not in sys.modules, "nothing foreign runs for a graph"
    build = compile_recipe(spec, replace(recipe, kernels=("my_ops",)), tmp_path / "build")
    assert build.predictions["step_flops"] == 0, "nobody knows what a foreign kernel computes"
    assert build.kernels == ("my_ops",) and "my_ops" not in sys.modules
    with pytest.raises(RuntimeFault, match="E0524"):
        train(tmp_path / "build", Options(tmp_path / "run", device="cpu", kernels=("other",)))
    train(tmp_path / "build", Options(tmp_path / "run", device="cpu", kernels=("my_ops",)))
    losses = [line["loss"] for line in read_metrics(tmp_path / "run/metrics.jsonl") if line["kind"] == "step"]
    assert len(losses) == 8 and sum(losses[-2:]) < sum(losses[:2]), "an epoch has two steps"


def test_without_permission_the_bodies_compute(tmp_path: Path) -> None:
    spec = toy(tmp_path, transparent=True)
    assert compile_recipe(spec, load_recipe(spec), tmp_path / "build").kernels == ()
    found = module(spec, dims={"T": 5, "D": 6, "batch": 2})(torch.zeros(2, 5, 6))
    assert found.shape == (2, 5, 6) and "my_ops" not in sys.modules
    with pytest.raises(SpecError):
        module(toy(tmp_path), dims={"T": 5, "D": 6, "batch": 2})


def test_a_graph_with_foreign_nodes_prints_and_reads_back(tmp_path: Path) -> None:
    spec = toy(tmp_path)
    graph = step_graph(spec, replace(load_recipe(spec), kernels=("my_ops",)))
    assert parse_graph(print_graph(graph)) == graph


def model(function: str, call: str = "f[D](x)") -> str:
    return f"use std\n{function}\nmodel M : x[D] -> [D] {{\n  dim D = 4\n  return {call}\n}}\n"


@pytest.mark.parametrize(
    ("function", "call", "code", "words"),
    [
        ('fn f[D](x) -> [D] kernel "a:f"', "f[D](x)", "E0320", "a tensor without dims"),
        ('fn f[D](x[D]) kernel "a:f"', "f[D](x)", "E0320", "does not say what it gives"),
        ('fn f[D](x[D]) -> [D] kernel "a.f"', "f[D](x)", "E0320", "names no kernel"),
        ('fn f[D](x[D]) -> [D] kernel "a:f(1)"', "f[D](x)", "E0320", "names no kernel"),
        ('fn f[D](x[D]) -> [D] kernel "a:f" = mean[D](x)', "f[D](x)", "E0320", "something else than its signature"),
        ('fn f[D](x[D], y[D]) -> [D] kernel "a:f"', "f[D](x, 1.0)", "E0303", "expected: a tensor"),
        ('fn f[D](x[D], m: fn) -> [D] kernel "a:f"', "f[D](x, relu)", "E0303", "a number, a text"),
    ],
)
def test_a_signature_must_say_everything(function: str, call: str, code: str, words: str) -> None:
    found = check_text(model(function, call), "t.partita")
    assert [item.code for item in found] == [code], render_all(found)
    assert words in render_all(found)


def test_nothing_is_trained_through_what_has_no_gradient(tmp_path: Path) -> None:
    text = (ROOT / "specs/models/own_op.partita").read_text() + RECORD
    found = check_text(text.replace(' backward "my_ops:tree_backward"', ""), str(tmp_path / "own.partita"))
    assert [item.code for item in found] == ["E0320"]


def test_a_kernel_that_gives_something_else_is_named(tmp_path: Path) -> None:
    record = RECORD.replace("Toy", "M").replace("  dims = [T = 5, D = 6]\n", "")
    text = model('fn f[D](x[D]) -> [D] kernel "my_ops:wrong"') + record
    spec = text_spec(text)
    recipe = replace(load_recipe(spec), kernels=("my_ops",))
    build, sources = compile_graphs({"predict": predict_graph(spec, recipe)}, {}, {})
    rows = [{"x": torch.zeros(1, 4, dtype=torch.float64)}]
    with pytest.raises(RuntimeFault, match=r"my_ops:wrong gives .1. "):
        executable(build, sources).run("predict", initial_store(build, 0), rows)
