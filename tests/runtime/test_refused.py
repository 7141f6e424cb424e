"""Steps that are refused before they update anything: what is not finite is named, a spike goes as the recipe says."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.processes import run_processes
from oracles.training import compiled
from partita.compiler.elaborate.recipe import DataSource
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.pipeline import compile_recipe
from partita.runtime.begin import Options, open_build
from partita.runtime.checkpoint import SPARED, checkpoints
from partita.runtime.fault import RuntimeFault
from partita.runtime.folder import load
from partita.runtime.metrics import read_metrics
from partita.runtime.program import Check
from partita.runtime.state import Store, initial_store
from partita.runtime.train import train
from partita.runtime.virtual import Cluster
from samples.recipes import recipe_over
from samples.spec_texts import text_spec

WEIGHT = "layers.1.mlp.up.w"


@dataclass
class Touched:
    """A build whose store is touched before one run of a program (counted from 0), and mended behind it if asked."""

    inner: Any
    step: int
    touch: Callable[[torch.Tensor], object]
    weight: str = WEIGHT
    program: str = "step"
    mend: bool = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(
        self, name: str, store: Store, data: Any, step: int = 0, seed: int = 0, bound: float = math.inf
    ) -> dict[str, torch.Tensor]:
        if name != self.program or step != self.step:
            return self.inner.run(name, store, data, step=step, seed=seed, bound=bound)
        kept = store[self.weight].clone()
        self.touch(store[self.weight])
        found = self.inner.run(name, store, data, step=step, seed=seed, bound=bound)
        if self.mend:
            store[self.weight].copy_(kept)
        return found


def over(tensor: torch.Tensor) -> None:
    """Products with it overflow."""
    tensor.fill_(3e38)


def nan(tensor: torch.Tensor) -> None:
    """One element is no number."""
    tensor.view(-1)[5] = math.nan


def built(folder: Path, **keys: object) -> Path:
    """A tiny Llama on a text beside it."""
    folder.mkdir(exist_ok=True)
    spec, recipe = recipe_over("llama3", "Llama3", "f32", **{"steps": 6, **keys})
    recipe = replace(recipe, source=DataSource("text", ("*.txt",), folder=str(folder)))
    (folder / "some.txt").write_bytes(bytes(number * number % 13 for number in range(400)))
    compile_recipe(spec, recipe, folder / "build")
    return folder / "build"


def with_checkpoints(build: Path, every: int, keep: int) -> Path:
    """The same build, which saves now and then."""
    text = json.loads((build / "program.json").read_text())
    text["recipe"]["checkpoint"] |= {"every": every, "keep": keep}
    (build / "program.json").write_text(json.dumps(text))
    manifest = json.loads((build / "manifest.json").read_text())
    manifest["sha256"]["program.json"] = hashlib.sha256((build / "program.json").read_bytes()).hexdigest()
    (build / "manifest.json").write_text(json.dumps(manifest))
    return build


def run(build: Path, touched: Callable[[Any], Any], **options: Any) -> list[dict[str, Any]]:
    """Trains; the lines of its metrics."""
    executable = touched(open_build(build, torch.device("cpu")))
    train(build, options_for(build, **options), executable)
    return read_metrics(build.parent / "run" / "metrics.jsonl")


def options_for(build: Path, **options: Any) -> Options:
    given: dict[str, Any] = {"device": "cpu", "measure_memory": False, **options}
    return Options(build.parent / "run", **given)


def refused(build: Path, touched: Callable[[Any], Any]) -> RuntimeFault:
    with pytest.raises(RuntimeFault) as caught:
        run(build, touched)
    return caught.value


def saved(build: Path) -> list[str]:
    return [path.name for path in checkpoints(build.parent / "run" / "checkpoints")]


# ---- what is not finite


@pytest.mark.parametrize("precision", ["f32", "mixed(compute = bf16)"])
def test_an_activation_that_overflows_is_named_by_default(tmp_path: Path, precision: str) -> None:
    build = built(tmp_path, precision=precision, microbatches=2)
    fault = refused(build, lambda inner: Touched(inner, 2, over))
    assert fault.code == "E0520"
    assert "at step 3: the first value that is" in fault.message
    assert "layers.*.mlp" in fault.message and ".partita:" in fault.message
    assert saved(build) == ["step-00000002"] and "step-00000002" in (fault.hint or "")


def test_a_parameter_that_is_no_number_is_named(tmp_path: Path) -> None:
    build = built(tmp_path)
    fault = refused(build, lambda inner: Touched(inner, 3, nan, mend=False))
    assert "at step 4: `layers.1.mlp.up.w` before the step holds nan (1 of its" in fault.message
    assert "the first at [0, 5])" in fault.message
    assert saved(build) == [], "what is not finite is not saved"


def test_what_was_refused_goes_on_where_it_stood(tmp_path: Path) -> None:
    """The losses of a run that was stopped and resumed are those of one that never was."""
    whole, stopped = built(tmp_path / "whole"), built(tmp_path / "stopped")
    wanted = run(whole, lambda inner: inner)
    refused(stopped, lambda inner: Touched(inner, 2, over))
    found = run(stopped, lambda inner: inner, resume=True)
    assert [line["loss"] for line in found] == [line["loss"] for line in wanted]


MODEL = """use std
model M : x[batch, I], z[batch, Z] -> a[batch], b[batch] {
  dim I = 4, Z = 3, One = 1
  f : Linear[I, One]
  g : Linear[Z, One]
  return f(x)[One = 0], g(z)[One = 0]
}
train t {
  model = M
  data { x = tensors("x.npy"), z = noise(Z) }
  batch = 4
  steps = 4
"""


def plain(folder: Path, body: str, rows: np.ndarray[Any, Any] | None = None) -> Path:
    np.save(folder / "x.npy", np.ones((20, 4), np.float32) if rows is None else rows)
    spec = text_spec(MODEL + body + "}\n")
    recipe = replace(load_recipe(spec, "t"), folder=str(folder))
    columns = [
        replace(one, source=replace(one.source, folder=str(folder))) if one.source else one for one in recipe.columns
    ]
    compile_recipe(spec, replace(recipe, columns=tuple(columns)), folder / "build")
    return folder / "build"


def test_data_that_is_no_number_is_named(tmp_path: Path) -> None:
    rows = np.ones((20, 4), np.float32)
    rows[:, 2] = np.nan
    body = "  microbatches = 2\n  loss = mean(a ^ 2)\n  optimizer = sgd()\n  lr = 0.1\n"
    fault = refused(plain(tmp_path, body, rows), lambda inner: inner)
    assert "at step 1: `x` in microbatch 1 holds nan (2 of its 8 elements" in fault.message


def test_gradients_alone_are_looked_at_too(tmp_path: Path) -> None:
    """√0 is finite, its derivative is not."""
    body = "  loss = mean(sqrt(a * 0))\n  optimizer = sgd()\n  lr = 0.1\n"
    fault = refused(plain(tmp_path, body), lambda inner: inner)
    assert "the gradients are not finite at step 1: the first value that is" in fault.message
    assert "loss" in fault.message.partition("first value")[2]


def test_of_several_updates_the_one_is_named(tmp_path: Path) -> None:
    body = """  lr = 0.1
  optimizer = sgd()
  update first { params = ["f.*"], loss = mean(a ^ 2), repeat = 2 }
  update second { params = ["g.*"], loss = mean(b ^ 2) }
"""
    build = plain(tmp_path, body)
    fault = refused(build, _second)
    assert "at step 3 of `second`: `g.w` before the step holds nan" in fault.message
    assert saved(build) == [], "the first update of the step had written already"


def _second(inner: Any) -> Touched:
    return Touched(inner, 2, lambda tensor: tensor.fill_(math.nan), "g.w", "step.second", mend=False)


def test_a_recipe_may_pass_over_it(tmp_path: Path) -> None:
    build = built(tmp_path, on_nan="skip", optimizer="sgd(momentum = 0.9)")
    lines = run(build, lambda inner: Touched(inner, 2, over))
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["scalars"].get("skipped", 0.0) for line in steps] == [0, 0, 1, 0, 0, 0]
    executable = open_build(build, torch.device("cpu"))
    assert any(state.name == "step.updates" for state in executable.build.states)


# ---- spikes

SPIKES = "(window = 8, deviations = 6)"


def high(tensor: torch.Tensor) -> None:
    """The loss is finite, and high."""
    tensor.mul_(-30)


def spiky(inner: Any) -> Touched:
    return Touched(inner, 6, high, "head.w")


def test_a_spike_is_told_and_its_checkpoint_kept(tmp_path: Path) -> None:
    build = built(tmp_path, steps=10, on_spike="warn" + SPIKES)
    build = with_checkpoints(build, every=3, keep=2)
    said: list[str] = []
    folder = tmp_path / "run" / "checkpoints"
    lines = run(build, spiky, on_warning=said.append)
    (warning,) = [line for line in lines if line["kind"] == "warning"]
    assert warning["step"] == 7 and warning["message"] == said[0]
    assert "of step 7 lies" in said[0] and "deviations above the median" in said[0]
    assert "step-00000006 is kept" in said[0]
    assert (folder / "step-00000006" / SPARED).read_text().startswith("the loss")
    assert saved(build) == ["step-00000006", "step-00000009", "step-00000010"]


def test_a_spike_may_stop_before_the_update(tmp_path: Path) -> None:
    build = built(tmp_path, steps=10, on_spike="stop" + SPIKES)
    fault = refused(build, spiky)
    assert fault.code == "E0526" and "of step 7 lies" in fault.message
    assert saved(build) == ["step-00000006"]
    lines = run(build, lambda inner: inner, resume=True)
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, 11))


def test_a_spike_may_be_passed_over(tmp_path: Path) -> None:
    build = built(tmp_path, steps=10, on_spike="skip" + SPIKES)
    lines = run(build, spiky)
    (warning,) = [line for line in lines if line["kind"] == "warning"]
    assert "nothing was updated" in warning["message"]
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["scalars"].get("skipped", 0.0) for line in steps] == [0.0] * 6 + [1.0] + [0.0] * 3
    others = [line["loss"] for line in steps[:6] + steps[7:]]
    assert max(others) < min(others) * 1.5, "the weights are as they were"


# ---- on a mesh


def test_all_of_a_mesh_stop_and_say_the_same(tmp_path: Path) -> None:
    build, _ = compiled(tmp_path / "build", {"data": 2}, 6)
    found = run_processes(
        tmp_path / "processes", 2, "oracles.training:refused",
        build=str(build), run=str(tmp_path / "run"), weight="head.w", rank=1, step=3,
    )  # fmt: skip
    one, other = (bytes(each["fault"].tolist()).decode() for each in found)
    assert one == other
    assert "at step 4: the first value that is NaN is linear.partita:6 head.add" in one
    assert saved(build) == ["step-00000002", "step-00000003"]


def test_a_cluster_writes_nothing_above_the_bound(tmp_path: Path) -> None:
    build, program = compiled(tmp_path / "build", {"data": 2}, 6, zero=1)
    cluster = Cluster(load(build))
    stores = cluster.split(initial_store(program, 0))
    before = [{name: tensor.clone() for name, tensor in store.items()} for store in stores]
    rows = [{i.name: torch.zeros(i.whole, dtype=torch.int64) for i in program.programs["step"].inputs if i.below}]
    for found in cluster.run("step", stores, rows, bound=1.0):
        assert float(found["skipped"]) == 1.0 and float(found["loss"]) > 1.0
    assert all(torch.equal(one[name], other[name]) for one, other in zip(stores, before, strict=True) for name in one)
    assert all("skipped" not in found for found in cluster.run("step", stores, rows, bound=100.0))
    assert not torch.equal(stores[0]["head.b"], before[0]["head.b"])


# ---- the program


def test_the_check_stands_before_the_first_write(tmp_path: Path) -> None:
    executable = open_build(built(tmp_path, clip="1.0"), torch.device("cpu"))
    program = executable.build.programs["step"]
    (at,) = [number for number, one in enumerate(program.update) if isinstance(one, Check)]
    check = program.update[at]
    assert isinstance(check, Check)
    assert check.buffers == (program.outputs["loss"], program.outputs["grad_norm"])
