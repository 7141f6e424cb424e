"""Steps that are skipped: an overflow leaves parameters, moments and counts as they were, and the scale backs off."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from partita.compiler.elaborate.recipe import DataSource
from partita.compiler.lower.build import compile_graphs
from partita.compiler.pipeline import compile_recipe, step_graph
from partita.runtime.begin import Options, open_build
from partita.runtime.execute import Executable
from partita.runtime.fault import RuntimeFault
from partita.runtime.folder import executable
from partita.runtime.metrics import read_metrics
from partita.runtime.program import Run
from partita.runtime.state import Store, initial_store
from partita.runtime.train import train
from samples.recipes import recipe_over

F16 = "mixed(compute = f16, scale = dynamic(every = 2))"


class Training:
    """A tiny Llama in its steps, the same rows each time."""

    def __init__(self, precision: str, **keys: object) -> None:
        spec, recipe = recipe_over("llama3", "Llama3", precision, **keys)
        build, sources = compile_graphs({"step": step_graph(spec, recipe)}, {}, {})
        self.run: Executable = executable(build, sources)
        self.store: Store = initial_store(build, 0)
        program = build.programs["step"]
        generator = torch.Generator().manual_seed(0)
        self.data = [
            {i.name: torch.randint(i.below or 2, i.shape, generator=generator) for i in program.inputs if i.below}
            for _ in range(program.microbatches)
        ]
        self.steps = 0

    def step(self) -> dict[str, float]:
        outputs = self.run.run("step", self.store, self.data, step=self.steps)
        self.steps += 1
        return {name: float(value) for name, value in outputs.items()}

    def copies(self) -> Store:
        own = ("step.loss_scale", "step.good")
        return {name: tensor.clone() for name, tensor in self.store.items() if name not in own}


@pytest.mark.parametrize("optimizer", ["adamw()", "sgd(momentum = 0.9)", "adamw()\n  clip = 0.5"])
def test_an_overflow_is_skipped_and_backs_off(optimizer: str) -> None:
    training = Training(F16, optimizer=optimizer, microbatches=2)
    first = training.step()
    assert (first["skipped"], first["loss_scale"]) == (0.0, 65536.0)
    training.store["step.loss_scale"].fill_(1e30)
    before = training.copies()
    skipped = training.step()
    assert skipped["skipped"] == 1.0
    assert skipped["loss"] == pytest.approx(first["loss"], abs=0.5)
    for name, tensor in before.items():
        assert torch.equal(training.store[name], tensor), f"{name} changed in a step that was skipped"
    assert float(training.store["step.loss_scale"]) == pytest.approx(0.5e30)
    assert float(training.store["step.good"]) == 0
    training.store["step.loss_scale"].fill_(1024.0)
    assert [training.step()["skipped"] for _ in range(2)] == [0.0, 0.0]
    assert float(training.store["step.loss_scale"]) == 2048.0
    assert float(training.store["step.updates"]) == 3


def test_the_scale_leaves_the_training_as_it_is() -> None:
    """Powers of two scale without rounding, so that bfloat16 gives the same losses with and without."""
    plain, scaled = (Training(f"mixed(compute = bf16{more})") for more in ("", ", scale = dynamic(start = 1024)"))
    for _ in range(3):
        one, other = plain.step(), scaled.step()
        assert one["loss"] == other["loss"]
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-6)


def test_the_fused_update_skips_by_itself() -> None:
    spec, recipe = recipe_over("llama3", "Llama3", F16)
    build, sources = compile_graphs({"step": step_graph(spec, recipe)}, {}, {})
    update = [sources[i.module] for i in build.programs["step"].update if isinstance(i, Run)]
    text = "\n".join(update)
    assert text.count("_fused_adamw_") == 1
    assert "found_inf=None" not in text


def trained(tmp_path: Path, how: str) -> tuple[Path, Options]:
    """A run whose weights are spoiled after some steps: the next one overflows."""
    spec, recipe = recipe_over("llama3", "Llama3", "f32", steps=4, on_nan=how)
    recipe = replace(recipe, source=DataSource("text", ("*.txt",), folder=str(tmp_path)))
    (tmp_path / "some.txt").write_bytes(bytes(number % 13 for number in range(400)))
    compile_recipe(spec, recipe, tmp_path / "build")
    return tmp_path / "build", Options(tmp_path / "run", device="cpu", measure_memory=False)


@dataclass
class Spoiled:
    """Before one step an attention weight is made to overflow; after it, it is as it was."""

    inner: Any
    step: int
    weight: str = "layers.1.mlp.up.w"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(
        self, name: str, store: Store, data: Any, step: int = 0, seed: int = 0, bound: float = math.inf
    ) -> dict[str, torch.Tensor]:
        kept = store[self.weight].clone()
        if name == "step" and step == self.step:
            store[self.weight].fill_(3e38)
        found = self.inner.run(name, store, data, step=step, seed=seed, bound=bound)
        if name == "step" and step == self.step:
            assert bool((store[self.weight] == 3e38).all()), "a step that is skipped leaves the weights alone"
            store[self.weight].copy_(kept)
        return found


def test_the_first_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    folder, options = trained(tmp_path, "stop")
    spoiled: Any = Spoiled(open_build(folder, torch.device("cpu")), 2)
    with pytest.raises(RuntimeFault) as caught:
        train(folder, options, spoiled)
    assert caught.value.code == "E0520"
    assert "at step 3: the first value that is NaN is linear.partita:" in caught.value.message
    assert "layers.*.mlp.up.dot" in caught.value.message


def test_a_recipe_may_skip_what_is_not_finite(tmp_path: Path) -> None:
    folder, options = trained(tmp_path, "skip")
    spoiled: Any = Spoiled(open_build(folder, torch.device("cpu")), 2)
    assert train(folder, options, spoiled).exit_code == 0
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "step"]
    assert [line["loss"] is None for line in lines] == [False, False, True, False]
