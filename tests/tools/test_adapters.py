"""`export --merged`: adapters folded into the weights, under the base's names; the function stays the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from partita.compiler.elaborate.models import elaborate_model
from partita.compiler.interpret import interpret
from partita.compiler.ir.types import DType
from partita.runtime import checkpoint
from partita.runtime.checkpoint import Scalars
from partita.tools.cli import main
from partita.tools.specs import open_spec
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

ADAPTED = """use models.llama3
use std

model Tiny(rank = 2) = Llama3 {
  sizes {
        L  D  H  G  F   V
    xs  2  8  4  2  16  32
  }
  adapt layers.0.attn.o, layers.*.attn.q, layers.*.attn.v, layers.*.mlp.down, head : LoRA[R = rank](alpha = 3.0)
}
"""
# What an adapter may be that is no product with what is taken, added to what is given.
OTHERS = {
    "gain": "block Odd[I, O] : x[I], y[O] -> [O] {\n  param g[O] ~ normal(1)\n  return y * g\n}\n",
    "bias": "block Odd[I, O] : x[I], y[O] -> [O] {\n  param b[O] ~ normal(1)\n  return y + b\n}\n",
    "bend": "block Odd[I, O] : x[I], y[O] -> [O] {\n  param a[I, O] ~ normal(1)\n  return y + tanh(dot[I](x, a))\n}\n",
}


def stored(spec: Path, folder: Path, model: str | None = None) -> dict[str, torch.Tensor]:
    """A checkpoint of a model's random parameters, all of them away from zero."""
    graph, facts = elaborate_model(open_spec(str(spec)), model, dtype=DType.F64)
    generator = torch.Generator().manual_seed(0)
    made = {
        node.id: torch.randn([d.size or 0 for d in node.outs[0].dims], generator=generator, dtype=torch.float64) * 0.3
        for node in graph.nodes("parameter")
    }
    shapes = {name: list(one.shape) for name, one in made.items()}
    checkpoint.save_parts(folder, Scalars(facts.model, 0, 0, shapes), iter([made]))
    return made


def test_transformers_reads_what_was_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Dims of their own, grouped heads, one layer alone, a layer that ends the model."""
    (tmp_path / "tiny.partita").write_text(ADAPTED, "utf-8")
    made = stored(tmp_path / "tiny.partita", tmp_path / "ck")
    words = [str(tmp_path / "tiny.partita"), str(tmp_path / "ck"), "-o", str(tmp_path / "hf")]
    assert main(["export", *words]) == 1
    assert "--merged folds adapters" in capsys.readouterr().err
    assert main(["export", *words, "--merged"]) == 0
    assert "21 tensors, 1,704 parameters" in capsys.readouterr().out
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float64)
    graph, _ = elaborate_model(open_spec(words[0]), dims={"batch": 2, "T": 6}, dtype=DType.F64)
    tokens = np.random.default_rng(1).integers(0, 32, (2, 6))
    ours = interpret(graph, {**{name: one.numpy() for name, one in made.items()}, "tokens": tokens})["logits"]
    with torch.no_grad():
        found = theirs(torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(found, ours, atol=1e-6 * np.abs(ours).max())


def small(text: str, adapter: str) -> str:
    return f"""use std

{text}
model Base : x[D] -> y[F] {{
  sizes {{
       D  F
    s  3  4
  }}
  head : Linear[D, F]
  return head(x)
}}

model Tuned = Base {{
  adapt head : {adapter}
}}

weights Base "org/base" {{
  "w"[F, D] = head.w
  "b"[F]    = head.b
}}
"""


def test_the_weight_is_what_it_was_and_the_product(tmp_path: Path) -> None:
    (tmp_path / "a.partita").write_text(small("", "LoRA[R = 2](alpha = 6.0)"), "utf-8")
    made = stored(tmp_path / "a.partita", tmp_path / "ck", "Tuned")
    words = ["export", str(tmp_path / "a.partita"), str(tmp_path / "ck"), "-o", str(tmp_path / "out")]
    assert main([*words, "--model", "Tuned", "--merged"]) == 0
    found = load_file(tmp_path / "out/model.safetensors")
    wanted = made["head.w"] + 3.0 * made["head.adapter.a"] @ made["head.adapter.b"]
    torch.testing.assert_close(found["w"].T, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(found["b"], made["head.b"], rtol=0, atol=0)


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_product_is_not_merged(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.partita").write_text(small(OTHERS[kind], "Odd"), "utf-8")
    stored(tmp_path / "a.partita", tmp_path / "ck", "Tuned")
    words = ["export", str(tmp_path / "a.partita"), str(tmp_path / "ck"), "-o", str(tmp_path / "out")]
    assert main([*words, "--model", "Tuned", "--merged"]) == 2
    assert "head" in (said := capsys.readouterr().err) and "cannot be merged" in said
    assert not (tmp_path / "out").exists()


def test_a_model_without_adapters_has_nothing_to_merge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.partita").write_text(small("", "LoRA[R = 2]"), "utf-8")
    stored(tmp_path / "a.partita", tmp_path / "ck", "Base")
    words = ["export", str(tmp_path / "a.partita"), str(tmp_path / "ck"), "-o", str(tmp_path / "out")]
    assert main([*words, "--model", "Base", "--merged"]) == 2
    assert "no adapter" in capsys.readouterr().err
