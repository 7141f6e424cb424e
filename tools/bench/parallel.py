"""`partita bench parallel`: our training step on two processes against PyTorch's own parallelism, alternating.

Each case is a mesh of two with a plan, and the peers that do the same by hand. The same weights and batches; losses of
twenty steps are compared before anything is timed. A process has one thread: two cores are then all that they use.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.models import elaborate_model
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.ir.layout import Mesh
from ...compiler.partition.choices import Wishes
from ...compiler.pipeline import compile_recipe, open_spec
from ...runtime.launch import launch_module
from .contest import Contest, Outcome
from .peers import Shape, has_chunked_loss

# Relative, between the losses of twenty steps in float32. The sums are in another order, and Adam's first steps divide
# gradients by their own size: where one is nothing but rounding, so is the step.
TOLERANCE = 1e-4
LR = 1e-4


@dataclass(frozen=True)
class Plan:
    """An axis of two, what is asked of the partitioner, and who does the same."""

    axis: str
    wishes: Wishes
    peers: tuple[str, ...]


CHUNKED = ", chunked loss"
PLANS: Mapping[str, Plan] = MappingProxyType(
    {
        "data": Plan("data", Wishes(zero=0), ("DDP", "DDP" + CHUNKED)),
        "zero2": Plan("data", Wishes(zero=2), ("FSDP2 kept", "FSDP2 kept" + CHUNKED)),
        "zero3": Plan("data", Wishes(zero=3), ("FSDP2", "FSDP2" + CHUNKED)),
        "tensor": Plan("tensor", Wishes(pins={"H": ("tensor",), "F": ("tensor",), "V": ("tensor",)}), ("DTensor",)),
    }
)


@dataclass(frozen=True)
class Parallel:
    """Ours over theirs for one peer: below 1 we are faster, or smaller. `gap`: the largest relative one of losses."""

    name: str
    peer: str
    ratio_time: float
    ratio_memory: float
    gap: float
    ours_seconds: float
    peer_seconds: float
    ours_bytes: int
    peer_bytes: int


def bench_parallel(plans: Sequence[str], sizes: Sequence[str], rounds: int) -> list[Parallel]:
    """Every plan with every size of the model against every peer of the plan. Raises `RuntimeFault` E0532."""
    with resources.as_file(resources.files("partita.specs").joinpath("recipes/bench_step.partita")) as path:
        spec = open_spec(path)
    return [case for size in sizes for plan in plans for case in _cases(spec, size, plan, rounds)]


def _cases(spec: Spec, size: str, name: str, rounds: int) -> list[Parallel]:
    plan = PLANS[name]
    peers = tuple(peer for peer in plan.peers if has_chunked_loss() or CHUNKED not in peer)
    found = contest(spec, size, plan, peers, rounds)
    ours = sorted(found.seconds[0])[rounds // 2]
    cases: list[Parallel] = []
    for at, peer in enumerate(found.names[1:], 1):
        gap, theirs = found.gap(at), sorted(found.seconds[at])[rounds // 2]
        assert gap <= TOLERANCE, f"losses differ by {gap:.1e}: {found.losses[0]} and {found.losses[at]}"
        time, memory = found.ratio_time(at), found.bytes[0] / found.bytes[at]
        cases.append(Parallel(f"{size} {name}", peer, time, memory, gap, ours, theirs, found.bytes[0], found.bytes[at]))
    return cases


def contest(spec: Spec, size: str, plan: Plan, peers: Sequence[str], rounds: int) -> Outcome:
    """Compile, start two processes, read what they measured."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, said, result = (Path(scratch) / name for name in ("build", "contest.json", "outcome.json"))
        recipe = load_recipe(spec, size)
        _, facts = elaborate_model(spec, recipe.model.name, size=recipe.model.size)
        sizes = {key: dim.size or 0 for key, dim in facts.dims.items()}
        shape = Shape(*(sizes[key] for key in "LDHFVN"), tokens=recipe.dims["T"], rows=recipe.batch)
        compile_recipe(spec, recipe, folder, mesh=Mesh(((plan.axis, 2),)), wishes=plan.wishes)
        held = Contest(str(folder), tuple(peers), shape, LR, rounds, str(result))
        said.write_text(json.dumps(asdict(held)), encoding="utf-8")
        launch_module(f"{__package__}.contest", 2, [str(said)])
        return _outcome(result)


def _outcome(path: Path) -> Outcome:
    found = json.loads(path.read_text(encoding="utf-8"))
    nested = {key: tuple(map(tuple, found[key])) for key in ("seconds", "losses")}
    return Outcome(tuple(found["names"]), nested["seconds"], tuple(found["bytes"]), nested["losses"])


def summary(cases: Sequence[Parallel]) -> dict[str, object]:
    """The `--json` form: every case, and the worst ratios."""
    return {
        "cases": [asdict(case) for case in cases],
        "worst_time": max(case.ratio_time for case in cases),
        "worst_memory": max(case.ratio_memory for case in cases),
        "worst_gap": max(case.gap for case in cases),
    }
