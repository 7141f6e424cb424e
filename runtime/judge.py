"""Whether a training may go on after a run of an update: its loss and its gradients finite, its loss no spike.

In: the recipe, and what each run gave. Out: what is wrong with it, if anything is that the recipe does not pass over.
Where the loss is scaled, an overflow is none: a smaller scale mends it, until there is no smaller one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from .recipe import Spikes, Training, Turn
from .spikes import Watcher

SMALLEST_SCALE = 2.0**-14  # of a loss: below it, gradients overflow whatever the scale
Outputs = Mapping[str, torch.Tensor]


@dataclass(slots=True)
class Judge:
    """`watcher` knows the losses of the last steps: those of the first update, where there are several."""

    training: Training
    watcher: Watcher = field(init=False)

    def __post_init__(self) -> None:
        self.watcher = Watcher(self.training.on_spike or Spikes())

    @property
    def skips_spikes(self) -> bool:
        """Whether a spike updates nothing, and the training goes on."""
        return self.training.on_spike is not None and self.training.on_spike.action == "skip"

    def bound(self, turn: Turn) -> float:
        """The highest loss that updates anything."""
        spikes = self.training.on_spike
        holds = spikes is not None and spikes.action != "warn" and turn is self.training.turns[0]
        return self.watcher.bound() if holds else math.inf

    def refused(self, outputs: Outputs) -> bool:
        """Whether the run wrote nothing, so that it can be had again."""
        return "skipped" in outputs and bool(outputs["skipped"])

    def spiked(self, turn: Turn, outputs: Outputs) -> bool:
        """Whether the run was refused because its loss, finite, is above the bound."""
        loss = float(outputs["loss"])
        return self.refused(outputs) and math.isfinite(loss) and loss > self.bound(turn)

    def fault(self, turn: Turn, outputs: Outputs) -> str | None:
        """What is wrong; None where the training goes on."""
        if self.spiked(turn, outputs):
            return None if self.skips_spikes else "the loss is far above the last ones"
        refused, loss = self.refused(outputs), float(outputs["loss"])
        if refused and self.training.on_nan == "skip":
            return None
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        scale = float(outputs["loss_scale"]) if "loss_scale" in outputs else 0.0
        return "the gradients are not finite" if refused and scale < SMALLEST_SCALE else None
