"""`partita bench pipeline`: our pipelines against torch.distributed.pipelining, schedule by schedule, alternating.

In: schedules, numbers of processes, a size of the model. Out: for each peer the ratio of step times, and of the peak
of every process. Both sides have the same chunks, weights and microbatches: blocks are placed by our own program, and
the peer's stages hold the same layers. A process has one thread. Losses are compared before anything is timed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from ...compiler.cost.cluster import H100_NODES
from ...compiler.elaborate.load import Spec
from ...compiler.elaborate.models import elaborate_model
from ...compiler.elaborate.recipe import Plan, Recipe
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.ir.layout import PIPE
from ...compiler.pipeline import compile_recipe, open_spec, step_graph
from ...compiler.schedule.blocks import blocks_of
from ...compiler.schedule.forms import parse_form
from ...runtime.launch import launch_module
from .peers import Shape, has_chunked_loss
from .pipeline_contest import CHUNKED, PipelineContest, PipelineOutcome

# Relative, between losses in float32: see `parallel.py`.
TOLERANCE = 1e-4
LR = 1e-4
SCHEDULES: Mapping[str, str] = MappingProxyType(  # ours, and the peer's class
    {
        "gpipe": "ScheduleGPipe",
        "1f1b": "Schedule1F1B",
        "interleaved(2)": "ScheduleInterleaved1F1B",
        "zero_bubble": "ScheduleInterleavedZeroBubble",
        "zero_bubble_v": "ScheduleZBVZeroBubble",
    }
)
PROCESSES = (2, 4)
SPLIT = ("zero_bubble", "zero_bubble_v")  # in halves: PyTorch's chunked loss goes backward only once
HEAD = 1.5  # layers that the head and its loss are worth, where both are placed by hand


@dataclass(frozen=True)
class Piped:
    """Ours over theirs for one peer: below 1 we are faster, or smaller. Bytes are process by process."""

    schedule: str
    processes: int
    peer: str
    ratio_time: float
    ratios_memory: tuple[float, ...]
    gap: float
    ours_seconds: float
    peer_seconds: float
    ours_bytes: tuple[int, ...]
    peer_bytes: tuple[int, ...]

    @property
    def ratio_memory(self) -> float:
        """Of the processes that need most."""
        return max(self.ours_bytes) / max(self.peer_bytes)


def bench_pipeline(schedules: Sequence[str], processes: Sequence[int], size: str, rounds: int) -> list[Piped]:
    """Every schedule on every number of processes. Raises `RuntimeFault` E0532."""
    with resources.as_file(resources.files("partita.specs").joinpath("recipes/bench_pipeline.partita")) as path:
        spec = open_spec(path)
    return [case for count in processes for name in schedules for case in _cases(spec, name, count, size, rounds)]


def _cases(spec: Spec, schedule: str, processes: int, size: str, rounds: int) -> list[Piped]:
    found = contest(spec, schedule, processes, size, rounds)
    cases: list[Piped] = []
    ours = sorted(found.seconds[0])[rounds // 2]
    for at, peer in enumerate(found.names[1:], 1):
        gap, theirs = found.gap(at), sorted(found.seconds[at])[rounds // 2]
        assert gap <= TOLERANCE, f"losses differ by {gap:.1e}: {found.losses[0]} and {found.losses[at]}"
        name = peer.replace("PyTorch", SCHEDULES[schedule])
        time, memory = found.ratio_time(at), found.ratios_memory(at)
        cases.append(Piped(schedule, processes, name, time, memory, gap, ours, theirs, found.bytes[0], found.bytes[at]))
    return cases


def contest(spec: Spec, schedule: str, processes: int, size: str, rounds: int) -> PipelineOutcome:
    """Compile, start the processes, read what they measured."""
    recipe = load_recipe(spec, size)
    placement = parse_form(schedule).placement(processes)
    shape, layers = _shape(spec, recipe), tuple(even(_shape(spec, recipe).layers, len(placement)))
    plan = Plan(mesh=((PIPE, processes),), schedule=schedule)
    plan = replace(plan, balance=_balance(spec, recipe, layers))
    with tempfile.TemporaryDirectory() as scratch:
        folder, said, result = (Path(scratch) / name for name in ("build", "contest.json", "outcome.json"))
        compile_recipe(spec, replace(recipe, plan=plan), folder)
        chunked = has_chunked_loss() and schedule not in SPLIT
        peers = ("PyTorch", *(["PyTorch" + CHUNKED] if chunked else []))
        held = PipelineContest(
            str(folder), peers, shape, schedule, layers, placement, recipe.microbatches, LR, rounds, str(result)
        )
        said.write_text(json.dumps(asdict(held)), encoding="utf-8")
        launch_module(f"{__package__}.pipeline_contest", processes, [str(said)])
        return _outcome(result)


def even(layers: int, chunks: int) -> list[int]:
    """Layers for each chunk, of which the last has the head besides: as even as whole layers can be."""
    ends = [round((layers + HEAD) * chunk / chunks) for chunk in range(chunks)]
    ends = [max(end, chunk) for chunk, end in enumerate(ends)]
    ends = [min(end, layers - (chunks - chunk)) for chunk, end in enumerate(ends)]
    return [after - before for before, after in zip(ends, (*ends[1:], layers), strict=True)]


def _balance(spec: Spec, recipe: Recipe, layers: Sequence[int]) -> tuple[int, ...]:
    """The same chunks as numbers of our blocks: what stands before the layers is with the first, what behind with the
    last."""
    blocks = blocks_of(step_graph(spec, recipe), H100_NODES.machine, H100_NODES.levels[0].link)
    inner = [at for at, block in enumerate(blocks) if block.name.startswith("blocks.")]
    counts = list(layers)
    counts[0] += inner[0]
    counts[-1] += len(blocks) - 1 - inner[-1]
    return tuple(counts)


def _shape(spec: Spec, recipe: Recipe) -> Shape:
    _, facts = elaborate_model(spec, recipe.model.name, size=recipe.model.size)
    sizes = {key: dim.size or 0 for key, dim in facts.dims.items()}
    return Shape(*(sizes[key] for key in "LDHFVN"), tokens=recipe.dims["T"], rows=recipe.batch)


def _outcome(path: Path) -> PipelineOutcome:
    found = json.loads(path.read_text(encoding="utf-8"))
    nested = (tuple(map(tuple, found[key])) for key in ("seconds", "bytes", "losses"))
    return PipelineOutcome(tuple(found["names"]), *nested)


def summary(cases: Sequence[Piped]) -> dict[str, object]:
    """The `--json` form: every case, and the worst ratios."""
    return {
        "cases": [asdict(case) for case in cases],
        "worst_time": max(case.ratio_time for case in cases),
        "worst_memory": max(case.ratio_memory for case in cases),
        "worst_memory_of_a_process": max(ratio for case in cases for ratio in case.ratios_memory),
        "worst_gap": max(case.gap for case in cases),
    }
