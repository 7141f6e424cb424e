"""A plan as text: the `plan` record that people read, edit, pin and commit.

In: a priced plan, the recipe that it is for. Out: a record in the language; its keys are those of a recipe's `plan`
section, so that it stands there, or in a file of its own, as it is. Also a line of words for each plan.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..elaborate.models import BATCH
from ..elaborate.recipe import Recipe
from ..partition.choices import DATA
from .priced import Priced

_CALLED = re.compile(r"[a-z_]+(\(\d+(, \d+)*\))?")  # what stands in a record without quotes


def record(priced: Priced, recipe: Recipe) -> str:
    """The record, in canonical form."""
    pairs = [("for", recipe.name), *keys(priced, recipe)]
    width = max(len(key) for key, _ in pairs)
    lines = [f"  {key:{width}} = {value}" for key, value in pairs]
    return "\n".join([f"plan {recipe.name} {{", *lines, "}"]) + "\n"


def keys(priced: Priced, recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Keys and values of the plan section."""
    choice, plan = priced.choice, recipe.plan
    axes = choice.mesh.axes
    if axes:
        yield "mesh", _listed(f"{name} = {size}" for name, size in axes)
    pins = [f"{dim} -> {axis or 'none'}" for dim, axis in (() if plan is None else plan.pins)]
    cuts = [(BATCH, DATA)] if choice.data > 1 and BATCH in dict(choice.unit.cuts) else []
    pins += [pin for pin in (f"{dim} -> {axis}" for dim, axis in (*cuts, *choice.unit.cuts)) if pin not in pins]
    if choice.unit.devices > 1 and choice.data == 1 and not any(pin.startswith(f"{BATCH} ") for pin in pins):
        pins.append(f"{BATCH} -> none")  # the axes that cut tensors leave the rows together
    if pins:
        yield "pin", _listed(pins)
    yield "microbatches", str(choice.microbatches)
    if choice.pipe > 1:
        called = _CALLED.fullmatch(choice.schedule)
        yield "schedule", choice.schedule if called else f'"{choice.schedule}"'
        yield "balance", _listed(map(str, priced.balance))
    if choice.data > 1:
        yield "zero", str(choice.zero)
    if choice.unit.recompute != "cheap":
        yield "recompute", _recompute(priced)
    if choice.offload:
        yield "offload", choice.offload[0] if len(choice.offload) == 1 else _listed(choice.offload)
    if plan is not None and plan.budget_bytes is not None:
        yield "budget", budget_text(plan.budget_bytes)


def words(priced: Priced) -> str:
    """A plan in a line."""
    choice = priced.choice
    parts = [", ".join(f"{name} {size}" for name, size in choice.mesh.axes) or "one device"]
    many = "microbatch" if choice.microbatches == 1 else "microbatches"
    parts.append(f"{choice.microbatches} {many} of {choice.unit.rows} {'row' if choice.unit.rows == 1 else 'rows'}")
    if choice.pipe > 1:
        parts.append(choice.schedule)
    if choice.data > 1:
        parts.append(f"ZeRO {choice.zero}")
    if choice.unit.recompute != "cheap":
        parts.append(f"recompute {_recompute(priced)}")
    if choice.offload:
        parts.append(f"{' and '.join(choice.offload)} on the host")
    return "; ".join(parts)


def _recompute(priced: Priced) -> str:
    within = priced.budget_bytes
    return priced.choice.unit.recompute if within is None else f"budget({budget_text(within)})"


def budget_text(size_bytes: int) -> str:
    """Bytes as the language writes them, exactly."""
    return f"{size_bytes / (1 << 20):.10g} MiB"


def _listed(items: Iterable[str]) -> str:
    return f"[{', '.join(items)}]"
