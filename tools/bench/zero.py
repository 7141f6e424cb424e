"""`partita bench zero`: what processes really hold of a model's state under ZeRO's stages, beside the paper's formula.

In: how many processes, which stages, a size of the model. Out: bytes of parameters, gradients and optimizer state, of
the process that holds most, and the formula of Rajbhandari et al. 2019 (arXiv 1910.02054, section 5 and figure 1):
mixed-precision Adam keeps 2 bytes of parameter, 2 of gradient and 12 of state for each of Ψ parameters. With one
microbatch the gradients of stage 1 are scattered as they are made: it then holds what stage 2 does.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.ir.layout import Mesh
from ...compiler.partition.choices import Wishes
from ...compiler.pipeline import compile_recipe, open_spec
from ...runtime.launch import launch_module
from .zero_process import Holding

AXIS = "data"
PROCESSES = (2, 4)
STAGES = (0, 1, 2, 3)
CASES: Mapping[str, str] = MappingProxyType({"small": "held", "tiny": "held_tiny"})  # the recipes
# Of the 2 + 2 + 12 bytes a parameter, which each stage cuts among the processes: parameter, gradient, state.
CUT: Mapping[int, tuple[bool, bool, bool]] = MappingProxyType(
    {0: (False, False, False), 1: (False, False, True), 2: (False, True, True), 3: (True, True, True)}
)


@dataclass(frozen=True)
class Held:
    """What the process holds that holds most, and the formula's bytes."""

    processes: int
    stage: int
    weights: int
    holding: Holding
    formula_bytes: int

    @property
    def ratio(self) -> float:
        """Held over the formula's."""
        return self.holding.bytes / self.formula_bytes


def formula(weights: int, processes: int, stage: int) -> int:
    """Bytes of model state of one of so many processes."""
    parts = zip((2, 2, 12), CUT[stage], strict=True)
    return round(weights * sum(size / processes if cut else size for size, cut in parts))


def bench_zero(processes: Sequence[int], stages: Sequence[int], size: str) -> list[Held]:
    """Every stage on every number of processes. Raises `RuntimeFault` E0532."""
    with resources.as_file(resources.files("partita.specs").joinpath("recipes/bench_step.partita")) as path:
        spec = open_spec(path)
    return [_held(spec, count, stage, CASES[size]) for count in processes for stage in stages]


def _held(spec: Spec, count: int, stage: int, recipe: str) -> Held:
    with tempfile.TemporaryDirectory() as scratch:
        folder, result = Path(scratch) / "build", Path(scratch) / "held.json"
        wishes = Wishes(zero=stage)
        build = compile_recipe(spec, load_recipe(spec, recipe), folder, mesh=Mesh(((AXIS, count),)), wishes=wishes)
        launch_module(f"{__package__}.zero_process", count, [str(folder), str(result)])
        holding = Holding(**json.loads(result.read_text(encoding="utf-8")))
    weights = sum(math.prod(parameter.shape) for parameter in build.parameters)
    return Held(count, stage, weights, holding, formula(weights, count, stage))


def summary(found: Sequence[Held]) -> dict[str, object]:
    """The `--json` form."""
    return {"cases": [{**asdict(one), "ratio": one.ratio} for one in found]}
