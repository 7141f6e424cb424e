"""`partita verify`: sound forms agree, and a fault planted in any pass is found there, at the node that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from partita.compiler.elaborate.recipe import Plan
from partita.compiler.ir.types import Use
from partita.compiler.lower import kernels
from partita.compiler.ops.registry import REGISTRY
from partita.compiler.partition import rewrite
from partita.compiler.passes import differentiate, localize, microbatch, rematerialize, rules, simplify, update
from partita.compiler.schedule import stages
from partita.runtime import virtual
from partita.tools.specs import open_spec, recipe_of
from partita.tools.verify.chain import Chain, Fault
from partita.tools.verify.program import Verification

SMALL = """
use std

model Small : tokens[T] in V -> logits[T, V] {
  sizes {
        D  F   H  V
    xs  8  12  2  11
  }
  embed : Embedding[V, D]
  norm  : LayerNorm[D]
  attn  : Attention[D, H](mask = causal, bias = true)
  mlp   : MLP[D, F](act = gelu, bias = true)
  head  : Linear[D, V]

  x = embed(tokens)
  h = x + dropout(attn(norm(x)), 0.2)
  return head(dropout(mlp(h), 0.2))
}

train small {
  model = Small.xs
  dims  = [T = 6]
  data { read = corpus("python-docs"), rows = chunk(T), target = next(tokens) }
  loss         = mean(cross_entropy[V](logits, target))
  batch        = 4
  microbatches = 2
  steps        = 10
  optimizer    = adamw(decay = 0.1)
  lr           = 0.01
  clip         = 0.01
}
"""
MESH = (("data", 2), ("tensor", 2))
PIPED = (("data", 2), ("pipe", 2))
PINS = (("F", "tensor"), ("V", "tensor"), ("H", "tensor"))


@pytest.fixture(scope="module")
def spec_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("specs") / "small.partita"
    path.write_text(SMALL)
    return str(path)


def chains(path: str, mesh: tuple[tuple[str, int], ...]) -> Iterator[Chain]:
    spec = open_spec(path)
    recipe = recipe_of(spec, (), None)
    assert recipe is not None
    pins = PINS if "tensor" in dict(mesh) else ()
    offload = ("optimizer", "activations") if mesh == PIPED else ()
    return Verification(spec, recipe, Plan(mesh, pins, offload=offload) if mesh else None).chains()


def fault_of(path: str, mesh: tuple[tuple[str, int], ...] = ()) -> Fault:
    """The fault of the first program that has one."""
    found = next((chain.fault for chain in chains(path, mesh) if chain.fault is not None), None)
    assert found is not None, "the fault is found"
    return found


# ---- sound


@pytest.mark.parametrize("mesh", [(), MESH, PIPED])
def test_sound_forms_agree(spec_path: str, mesh: tuple[tuple[str, int], ...]) -> None:
    for chain in chains(spec_path, mesh):
        assert chain.fault is None, chain.fault
        assert chain.lines[-1].name == ("lower" if mesh != PIPED else "host" if chain.name == "step" else "stages")
        assert "initial tensors" in chain.lines[-1].note
        assert ("random values bit for bit" in chain.lines[-1].note) is (chain.name == "step")
        assert max(line.error for line in chain.lines) < 1e-10


# ---- faults


def spoiled_rule(op: str, broken: Callable[..., Any]) -> dict[str, Any]:
    """The table of operators with one gradient rule that is wrong."""
    true: Any = REGISTRY[op].gradient
    return {**REGISTRY, op: replace(REGISTRY[op], gradient=partial(broken, true))}


def negated(true: Any, b: Any, node: Any, g: Any, wanted: Any) -> list[Use | None]:
    first, *others = true(b, node, g, wanted)
    return [b("neg", first)[0], *others]


def plant_gradient(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(differentiate, "REGISTRY", spoiled_rule("gelu", negated))


def plant_simplify(patch: pytest.MonkeyPatch) -> None:
    """A product of two with a scalar is its other operand."""

    def first(node: Any, find: Any) -> Use | None:
        use = node.uses[0]
        return use if use.type == node.outs[0] and node.id.startswith("loss") else None

    broken = tuple(replace(rule, apply=first) if rule.name == "times one" else rule for rule in rules.RULES)
    patch.setattr(simplify, "RULES", broken)


def plant_rematerialize(patch: pytest.MonkeyPatch) -> None:
    """What is computed again draws anew."""
    cloning: Any = rematerialize._Cloning  # pyright: ignore[reportPrivateUsage]
    true = cloning._again

    def again(self: Any, use: Use) -> Use:
        found = true(self, use)
        node = self.builder[found.node]
        if node.op != "random" or str(node.attrs["key"]).endswith("!"):
            return found
        fresh = replace(node, id=f"{node.id}!", attrs={**node.attrs, "key": f"{node.attrs['key']}!"})
        return replace(found, node=(fresh.id if fresh.id in self.builder else self.builder.add(fresh).id))

    patch.setattr(cloning, "_again", again)


def plant_update(patch: pytest.MonkeyPatch) -> None:
    """The norm is that of the first gradient alone."""
    step: Any = update._Step  # pyright: ignore[reportPrivateUsage]
    true = step._norm

    def norm(self: Any, gradients: Any) -> Use | None:
        return true(self, dict(list(gradients.items())[:1]))

    patch.setattr(step, "_norm", norm)


def plant_microbatch(patch: pytest.MonkeyPatch) -> None:
    """A gelu becomes a silu."""
    true = microbatch._resized  # pyright: ignore[reportPrivateUsage]

    def resized(node: Any, sizes: Any) -> Any:
        return true(replace(node, op="silu") if node.op == "gelu" else node, sizes)

    patch.setattr(microbatch, "_resized", resized)


def plant_partition(patch: pytest.MonkeyPatch) -> None:
    """Sums that are owed are forgotten where a product reads them."""
    writer: Any = rewrite._Rewrite  # pyright: ignore[reportPrivateUsage]
    true = writer._fit

    def fit(self: Any, use: Use, wanted: Any, reader: Any) -> Use:
        return use if self._layout(use.value).partial and reader.op == "add" else true(self, use, wanted, reader)

    patch.setattr(writer, "_fit", fit)


def plant_start(patch: pytest.MonkeyPatch) -> None:
    """Every part of a dim begins where the whole does."""
    local: Any = localize._Local  # pyright: ignore[reportPrivateUsage]

    def shifted(self: Any, node: Any, use: Use, dim: Any, axes: Any) -> Use:
        return use

    patch.setattr(local, "_shifted", shifted)


def plant_look_up(patch: pytest.MonkeyPatch) -> None:
    """Ids that lie elsewhere count as what is found in their place."""
    local: Any = localize._Local  # pyright: ignore[reportPrivateUsage]

    true = local._look_up

    def look_up(self: Any, node: Any, dim: Any, axes: Any) -> None:
        write = localize._Writer(self.builder, node)  # pyright: ignore[reportPrivateUsage]
        last = write.integer((self._dim(dim, axes).size or 1) - 1)
        if node.op == "cross_entropy_backward":
            true(self, node, dim, axes)
            return
        *others, ids = node.uses
        self.instead[node.id, 0] = write(node.op, *others, write("minimum", ids, last), **dict(node.attrs))

    patch.setattr(local, "_look_up", look_up)


def plant_reduction(patch: pytest.MonkeyPatch) -> None:
    """Devices keep the largest term in the place of the sum."""
    local: Any = localize._Local  # pyright: ignore[reportPrivateUsage]
    true = local._collective

    def collective(self: Any, node: Any) -> Any:
        found = true(self, node)
        wrong = found.op == "all_reduce" and found.outs[0].dims
        return replace(found, attrs={**found.attrs, "reduction": "max"}) if wrong else found

    patch.setattr(local, "_collective", collective)


def plant_collective(patch: pytest.MonkeyPatch) -> None:
    """The cluster adds the first term twice."""

    def twice(first: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return first + first

    patch.setattr(virtual, "JOINED", {"sum": twice, "max": torch.maximum})


def plant_kernel(patch: pytest.MonkeyPatch) -> None:
    """A kernel computes something else."""
    from partita.compiler.lower import modules

    patch.setattr(modules, "RULES", {**kernels.RULES, "gelu": kernels.RULES["silu"]})


def plant_initial(patch: pytest.MonkeyPatch) -> None:
    """A device draws its part as if it were the whole."""
    from partita.runtime import state

    true = state.initial_values

    def values(*given: Any, offsets: Any, sizes: Any) -> torch.Tensor:
        return true(*given, offsets=[0] * len(offsets), sizes=sizes)

    patch.setattr(state, "initial_values", values)


def plant_message(patch: pytest.MonkeyPatch) -> None:
    """A stage sends the negative of what the next one reads."""
    draft: Any = stages._Draft  # pyright: ignore[reportPrivateUsage]
    true = draft._send

    def send(self: Any, *given: Any) -> None:
        true(self, *given)
        sent = self.nodes.pop()
        (use,) = sent.uses
        made = self._put(replace(sent, id=f"{sent.id}/neg", op="neg", attrs={}, outs=(use.type,)))
        self._put(replace(sent, uses=(made.out(),)))

    patch.setattr(draft, "_send", send)


@pytest.mark.parametrize(
    ("plant", "after", "at", "mesh"),
    [
        (plant_gradient, "differentiate", "mlp", ()),
        (plant_simplify, "simplify", "loss", ()),
        (plant_rematerialize, "rematerialize", "grad/", ()),
        (plant_update, "update", "grad_norm", ()),
        (plant_microbatch, "microbatch", "mlp", ()),
        (plant_kernel, "lower", "mlp", ()),
        (plant_partition, "partition", "", MESH),
        (plant_start, "localize", "random", MESH),
        (plant_look_up, "localize", "embed", MESH),
        (plant_reduction, "localize", "all_reduce/", MESH),
        (plant_collective, "lower", "all_reduce/", MESH),
        (plant_initial, "lower", "embed.table", MESH),
        (plant_message, "stages", "h", (("pipe", 2),)),
    ],
    ids=lambda one: one.__name__.removeprefix("plant_") if callable(one) else "",
)
def test_a_planted_fault_is_found_where_it_is(
    plant: Callable[[pytest.MonkeyPatch], None],
    after: str,
    at: str,
    mesh: tuple[tuple[str, int], ...],
    spec_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    found = fault_of(spec_path, mesh)
    assert found.after == after
    assert found.node is not None and at in found.node.id
    assert found.node.origin or after in ("lower", "simplify", "update")
