"""Several updates in a step: the GAN of specs/models against a PyTorch loop, resumed bit for bit; frozen parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from partita.compiler.base.span import Source
from partita.compiler.elaborate.load import Spec
from partita.compiler.elaborate.plain import plain
from partita.compiler.elaborate.recipe import Recipe
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.lower.build import compile_graphs
from partita.compiler.pipeline import compile_recipe, step_graphs
from partita.runtime.begin import Options
from partita.runtime.checkpoint import latest
from partita.runtime.data import open_data
from partita.runtime.folder import executable
from partita.runtime.metrics import read_metrics
from partita.runtime.recipe import from_plain
from partita.runtime.state import initial_store, parameter_count
from partita.runtime.train import train
from samples.spec_texts import ROOT, opened
from torch.nn import functional as f

Tensors = dict[str, torch.Tensor]


def gan(folder: Path, *more: str) -> tuple[Spec, Recipe]:
    """The zoo's GAN in tiny, and ten images for it."""
    (folder / "data/faces").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, rows in (("a", 6), ("b", 4)):
        np.save(folder / f"data/faces/{name}.npy", rng.uniform(-1, 1, (rows, 2, 8, 4)))
    text = (ROOT / "specs/models/gan.partita").read_text()
    spec = opened(Source(str(folder / "gan.partita"), text))
    dims = "dims=[C = 2, Y = 8, X = 4, Z = 3, A = 2]"
    return spec, load_recipe(spec, "gan", [dims, "batch=4", "precision=f64", "steps=4", *more])


# ---- the same in PyTorch


def generated(w: Mapping[str, torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    """[batch, C, Y, X]"""
    h = torch.einsum("nz,zbyx->nbyx", z, w["gen.start.w"]) + w["gen.start.b"]
    for norm, up, last in (("norm1", "up1", False), ("norm2", "up2", True)):
        m, v = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), keepdim=True, unbiased=False)
        gain, b = (w[f"gen.{norm}.{name}"][None, :, None, None] for name in ("gain", "b"))
        h = f.relu(gain * (h - m) / torch.sqrt(v + 1e-5) + b)
        kernel = w[f"gen.{up}.w"].permute(0, 3, 1, 2)  # [C, P, Q, N] -> [C, N, P, Q]
        h = f.conv_transpose2d(h, kernel, w[f"gen.{up}.b"], stride=2, padding=1)
        h = torch.tanh(h) if last else h
    return h


def score(w: Mapping[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """[batch]"""
    h = image
    for name in ("down1", "down2"):
        kernel = w[f"disc.{name}.w"].permute(3, 0, 1, 2)
        h = f.relu(f.conv2d(f.pad(h, (1, 2, 1, 2)), kernel, w[f"disc.{name}.b"], stride=2))
    return (h.mean((2, 3)) @ w["disc.out.w"] + w["disc.out.b"])[:, 0]


def loss_of(turn: str, w: Tensors, image: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    fake = score(w, generated(w, z))
    if turn == "gen":
        return f.softplus(-fake).mean()
    return f.softplus(-score(w, image)).mean() + f.softplus(fake).mean()


def test_a_gan_trains_as_in_pytorch(tmp_path: Path) -> None:
    spec, recipe = gan(tmp_path)
    build, sources = compile_graphs(step_graphs(spec, recipe), plain(recipe), {}, dump=["z"])
    assert list(build.programs) == ["step.disc", "step.gen"]
    runnable, training = executable(build, sources), from_plain(build.recipe)
    store = initial_store(build, 0)
    for tensor in store.values():
        assert tensor.dtype is torch.float64
    names = [item.name for item in build.parameters]
    w = {name: store[name].clone().requires_grad_() for name in names}
    adams = {
        turn: torch.optim.Adam([w[n] for n in names if n.startswith(turn)], lr=2e-4, betas=(0.5, 0.999))
        for turn in ("disc", "gen")
    }
    feed, number, noises = open_data(training, build.programs).train, 0, list[torch.Tensor]()
    for step in range(3):
        for turn, repeat in (("disc", 2), ("gen", 1)):
            for again in range(repeat):
                data = feed.batch(number, 0)
                given = runnable.run(f"step.{turn}", store, [data], step=step * repeat + again)
                noises.append(given["dump/z"].clone())
                adams[turn].zero_grad()
                loss = loss_of(turn, w, data["image"].double(), noises[-1])
                loss.backward()
                adams[turn].step()
                torch.testing.assert_close(given["loss"], loss.detach(), rtol=1e-10, atol=0)
                number += 1
        for name in names:
            torch.testing.assert_close(store[name], w[name].detach(), rtol=1e-9, atol=1e-12)
    assert len({float(z.sum()) for z in noises}) == 9, "every run draws noise of its own"


def test_its_moments_are_those_of_what_trains(tmp_path: Path) -> None:
    spec, recipe = gan(tmp_path)
    graphs = step_graphs(spec, recipe)
    for turn, graph in graphs.items():
        wanted = {f"adam.{role}/" for role in ("m", "v")}
        states = [node.id for node in graph.nodes("state") if node.attrs["of"]]
        assert states and all(any(s.startswith(f"{p}{turn.removeprefix('step.')}.") for p in wanted) for s in states)


def losses(folder: Path) -> list[dict[str, Any]]:
    lines = read_metrics(folder / "run/metrics.jsonl")
    return [{"loss": line["loss"], **line["scalars"]} for line in lines if line["kind"] == "step"]


def test_a_gan_resumes_bit_for_bit(tmp_path: Path) -> None:
    folders = tmp_path / "once", tmp_path / "twice"
    for folder in folders:
        spec, recipe = gan(folder, "checkpoint.every=2")
        compile_recipe(spec, recipe, folder / "build")
    train(folders[0] / "build", Options(folders[0] / "run", device="cpu"))

    def stop(record: object) -> None:
        if getattr(record, "step", 0) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(folders[1] / "build", Options(folders[1] / "run", device="cpu", on_step=stop))
    train(folders[1] / "build", Options(folders[1] / "run", device="cpu", resume=True))
    once, twice = (losses(folder) for folder in folders)
    assert len(once) == 4 and once == twice
    assert {"disc.loss", "gen.loss", "disc.lr"} <= once[0].keys() and once[0]["loss"] == once[0]["disc.loss"]


def test_a_rate_follows_the_step_however_often_an_update_runs(tmp_path: Path) -> None:
    spec, recipe = gan(tmp_path, "lr=warmup(1e-3, 4 steps)")
    compile_recipe(spec, recipe, tmp_path / "build")
    train(tmp_path / "build", Options(tmp_path / "run", device="cpu"))
    # its updates have rates of their own, which are peaks of the record's curve
    assert [line["disc.lr"] for line in losses(tmp_path)] == pytest.approx([2e-4 * n / 4 for n in (1, 2, 3, 4)])


# ---- frozen parameters, and those of a checkpoint

LORA = """use std
model Base : x[I] -> [O] {
  sizes {
       I  O
    s  6  4
  }
  lin : Linear[I, O]
  return lin(x)
}
model Tuned = Base {
  adapt lin : LoRA[R = 2](alpha = 4.0)
}
train base {
  model = Base.s
  data { x = tensors("x.safetensors", entry = "x"), y = tensors("x.safetensors", dims = [O]) }
  loss = mean((out - y) ^ 2)
  batch = 4
  steps = 5
  optimizer = sgd(lr = 0.1)
}
train tuned extends base {
  model = Tuned.s
  start = "base/checkpoints"
  params = ["*.adapter.*"]
}
"""


def lora(folder: Path) -> Spec:
    from safetensors.torch import save_file

    gen = torch.Generator().manual_seed(0)
    x = torch.randn(12, 6, generator=gen)
    save_file({"x": x, "y": x @ torch.randn(6, 4, generator=gen)}, folder / "x.safetensors")
    return opened(Source(str(folder / "lora.partita"), LORA))


def test_adapters_train_on_a_frozen_base(tmp_path: Path) -> None:
    spec = lora(tmp_path)
    for name in ("base", "tuned"):
        recipe = load_recipe(spec, name)
        build = compile_recipe(spec, recipe, tmp_path / name / "build")
        train(tmp_path / name / "build", Options(tmp_path / name, device="cpu"))
    assert {item.name for item in build.parameters if item.trained} == {"lin.adapter.a", "lin.adapter.b"}
    assert {state.name for state in build.states} == {"sgd.m/lin.adapter.a", "sgd.m/lin.adapter.b"}
    assert parameter_count(build) == 6 * 4 + 4 + 2 * (6 + 4)
    weights = [stored(latest(tmp_path / name / "checkpoints")) for name in ("base", "tuned")]
    for name in ("lin.w", "lin.b"):
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=0, atol=0)
    before, after = (
        [line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl") if line["kind"] == "step"]
        for name in ("base", "tuned")
    )
    assert after[-1] < before[-1] < before[0], "it goes on from where the base stopped"


def stored(folder: Path) -> Tensors:
    from safetensors.torch import load_file

    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
