"""What else a recipe says holds on a mesh as on one device: types, overflows, dropout, frozen parts, dumps, hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracles.pipelines import Piped, assert_same_piped
from partita.compiler.elaborate.recipe import Recompute
from partita.runtime.program import Collective

PIPE, THREE, TWO, CUT = (("pipe", 2),), (("pipe", 3),), (("data", 2),), (("tensor", 2),)
BOTH, ACTIVATIONS = ("optimizer", "activations"), ("activations",)
DROPPED = {"model": "GPT2(drop = 0.3)"}
F32 = 1e-5  # sums of float32 in another order


@pytest.mark.parametrize(
    "what",
    [
        Piped("t5", "T5", PIPE, "zero_bubble", 2, precision="mixed(compute = bf16)", near=F32, offload=("optimizer",)),
        Piped("lora", "LlamaLoRA", PIPE, "zero_bubble_v", 2, keys={"params": '["*.adapter.*"]'}, offload=ACTIVATIONS),
        Piped("gpt2", "GPT2", THREE, "1f1b", 2, keys=DROPPED, recompute=Recompute("full"), offload=BOTH),
        Piped("mixtral", "Mixtral", TWO, recompute=Recompute("full"), offload=BOTH),
        Piped("mamba", "Mamba", CUT, recompute=Recompute("selective"), offload=BOTH),
        Piped("gpt2", "GPT2", PIPE, "token_slices(2)", 2, keys=DROPPED, offload=ACTIVATIONS),
    ],
    ids=["bf16-offloaded", "frozen", "dropout-recomputed", "experts-offloaded", "scan-offloaded", "dropout-slices"],
)
def test_what_a_recipe_says_holds_on_a_mesh(what: Piped, tmp_path: Path) -> None:
    assert_same_piped(what, tmp_path)


def test_all_stages_skip_an_overflow_and_tell_each_other_nothing_but_numbers(tmp_path: Path) -> None:
    """The scale falls on every stage; a tied table's copies stay equal; a gradient stays with its layer."""
    f16 = "mixed(compute = f16, scale = dynamic(start = 65536e9, backoff = 1e-9))"
    what = Piped("gpt2", "GPT2", PIPE, "zero_bubble", 2, keys={"on_nan": "skip"}, precision=f16, near=F32)
    step = assert_same_piped(what, tmp_path).build.programs["step"]
    along = [one for one in step.instructions() if isinstance(one, Collective) and one.axis == "pipe"]
    assert along and all(one.shapes == ((),) for one in along)


def test_stages_give_what_is_dumped_of_them(tmp_path: Path) -> None:
    """Of the last microbatch; of a table on both ends the gradient in all, on both."""
    dump = ("wte.gather", "blocks.1.mlp.up.dot", "grad/blocks.0.attn.k.add", "sum/grad/wte.table", "ln_f.gain")
    built = assert_same_piped(Piped("gpt2", "GPT2", PIPE, microbatches=2, dump=dump), tmp_path, steps=1).build
    first, last = (set(built.programs_of(rank)["step"].outputs) & {f"dump/{name}" for name in dump} for rank in (0, 1))
    assert first == {"dump/wte.gather", "dump/grad/blocks.0.attn.k.add", "dump/sum/grad/wte.table"}
    assert last == {"dump/blocks.1.mlp.up.dot", "dump/sum/grad/wte.table", "dump/ln_f.gain"}
