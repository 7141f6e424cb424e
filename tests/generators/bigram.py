"""The smallest build that trains: a bigram table with momentum, its modules written by hand, in two microbatches.

It has every program (`step`, `evaluate`, `predict`), a parameter and a state, so the runtime can be tested without
the compiler.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from partita.runtime.program import Allocate, Build, Initializer, Input, Parameter, Program, Run, State
from partita.runtime.program_json import to_json
from partita.runtime.recipe import Checkpoints, Column, DataSource, Evaluation, Rows, Training, to_plain

V, T, ROWS = 128, 16, 4  # ASCII

MODULES = {
    "forward": """
def run(args):
    w, tokens, target, loss = args
    args.clear()
    logp = w[tokens].log_softmax(-1)
    loss.sub_(logp.gather(-1, target[..., None]).mean())
    return [loss]
""",
    "backward": """
import torch

def run(args):
    w, tokens, target, loss, grad = args
    args.clear()
    logp = w[tokens].log_softmax(-1)
    loss.sub_(logp.gather(-1, target[..., None]).mean() * 0.5)
    d = logp.exp_()
    d.scatter_add_(-1, target[..., None], torch.full((*target.shape, 1), -1.0))
    grad.index_add_(0, tokens.flatten(), d.flatten(0, 1).mul_(0.5 / target.numel()))
    return [loss, grad]
""",
    "update": """
def run(args):
    w, m, grad, step, rate = args
    args.clear()
    m.mul_(0.9).add_(grad)
    w.sub_(m * (rate / (1 + step)))
    return [grad.norm()]
""",
    "predict": """
def run(args):
    w, tokens = args
    args.clear()
    return [w[tokens]]
""",
}

TRAINING = Training(
    source=DataSource("text", ("*.txt",)),
    rows=Rows("chunk", T),
    columns=(Column("tokens"), Column("target", "next", "tokens")),
    steps=12,
    batch=2 * ROWS,
    seed=5,
    evaluate=Evaluation(every=5, share=0.1, batches=2),
    checkpoint=Checkpoints(every=4, keep=2),
)


def bigram_build(training: Training = TRAINING) -> Build:
    """The build. The learning rate is a literal of the update."""
    tokens, target = (Input(name, (ROWS, T), ("batch", "T"), "i64", below=V) for name in ("tokens", "target"))
    step = Input("step", (), (), "i64", source="step")
    loss = Allocate("loss", (), "f32")
    train = Program(
        inputs=(tokens, target, step),
        prepare=(loss, Allocate("grad", (V, V), "f32")),
        microbatch=(Run("backward", ("w", "tokens", "target", "loss", "grad"), ("loss", "grad")),),
        update=(Run("update", ("w", "m/w", "grad", "step"), ("norm",), frees=("grad",), literals=(30,)),),
        outputs={"loss": "loss", "norm": "norm"},
        microbatches=2,
    )
    forward = Run("forward", ("w", "tokens", "target", "loss"), ("loss",))
    evaluate = Program((tokens, target), (loss,), (forward,), (), {"loss": "loss"})
    predict = Program(
        (replace(tokens, shape=(1, T)),), (), (Run("predict", ("w", "tokens"), ("logits",)),), (), {"logits": "logits"}
    )
    return Build(
        name="bigram",
        parameters=(Parameter("w", (V, V), ("V", "W"), "f32", Initializer("normal", (0.02,))),),
        states=(State("m/w", (V, V), "f32", Initializer("zeros")),),
        programs={"step": train, "evaluate": evaluate, "predict": predict},
        recipe=to_plain(training),
        predictions={"step_flops": 1e6, "peak_bytes": 1e6, "parameters": V * V},
    )


def write_build(folder: Path, build: Build) -> Path:
    """The build as a folder with its manifest."""
    texts = {"program.json": to_json(build)}
    texts |= {f"modules/{name}.py": text for name, text in MODULES.items()}
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    for name, text in {**texts, "manifest.json": json.dumps({"sha256": hashes})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def write_text(folder: Path) -> Path:
    """Some bytes with bigram statistics to learn."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.txt").write_text("".join(f"{n * n % 97} and {n % 13}, " for n in range(600)))
    return folder
