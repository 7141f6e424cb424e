"""A device's budget while it trains: CUDA's allocator is capped at it, and a step that is measured above it stops.

In: the bytes of a budget, or None; of a step its measured peak. Out: nothing, or E0527 that names whose the memory was
to be.
"""

from __future__ import annotations

import torch

from .fault import RuntimeFault
from .memory import owners_of
from .program import Build
from .state import Store

MIB = 1 << 20


def cap_memory(device: torch.device, budget_bytes: int | None) -> None:
    """Let CUDA's allocator give this process no more than a budget."""
    if budget_bytes is not None and device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, budget_bytes / whole), device)


def keep_to(budget_bytes: int | None, peak_bytes: int, step: int, build: Build) -> None:
    """Raises `RuntimeFault` E0527 where a step, counted from 1, held more on the device than its budget."""
    if budget_bytes is None or peak_bytes <= budget_bytes:
        return
    sizes = owners_of(build.predictions)
    whose = f"; {sizes[0][0]} were to have {sizes[0][1] / MIB:,.6g} MiB of it" if sizes else ""
    took = f"step {step} took {peak_bytes / MIB:,.6g} MiB"
    raise RuntimeFault(
        "E0527", f"{took}, but the budget is {budget_bytes / MIB:,.6g} MiB{whose}", "recompute or offload more"
    )


def on_device(build: Build, store: Store) -> list[torch.Tensor]:
    """The tensors of a store, but for those that lie on the host."""
    host = {item.name for item in (*build.parameters, *build.states) if item.host}
    return [tensor for name, tensor in store.items() if name not in host]
