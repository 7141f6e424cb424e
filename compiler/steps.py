"""Many steps of one recipe: what they share on the way from its text to a step is made once.

In: a spec, and recipes that differ in their rows and in what they compute again. Out: their steps, as `pipeline` makes
them without a budget. The planner prices hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .elaborate.load import Spec
from .elaborate.loss import elaborate_loss
from .elaborate.recipe import Recipe
from .ir.graph import Graph
from .ir.levels import GRADIENT, LOSS
from .passes import run_passes
from .passes.rematerialize import Rematerialize
from .pipeline import step_passes


@dataclass
class Steps:
    """Steps of one recipe that differ in rows, slices and what is computed again: the way to there is gone once."""

    spec: Spec
    device: str = "cpu"
    _begun: dict[tuple[int, int, str, bool], Graph] = field(default_factory=dict[tuple[int, int, str, bool], Graph])

    def fused(self, recipe: Recipe) -> Graph:
        """As `step_graph`, but without a budget. Raises SpecError."""
        return self._made(recipe, True)

    def unfused(self, recipe: Recipe) -> Graph:
        """As `unfused_step`."""
        return self._made(recipe, False)

    def _made(self, recipe: Recipe, fuse_loss: bool) -> Graph:
        passes = step_passes(self.spec, recipe, self.device, fuse_loss)
        at = next(at for at, one in enumerate(passes) if isinstance(one, Rematerialize))
        key = (recipe.batch, recipe.microbatches, "" if recipe.plan is None else recipe.plan.schedule, fuse_loss)
        if key not in self._begun:
            self._begun[key] = run_passes(elaborate_loss(self.spec, recipe)[0], passes[:at], LOSS)
        return run_passes(self._begun[key], passes[at:], GRADIENT)
