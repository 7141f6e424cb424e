"""One process of `partita bench slices`: the same step in other token slices, in turn, beside the other processes.

In: a JSON file (a `SlicesContest`) with the builds. Out: a `SlicesOutcome` as JSON, written by the first process: of
each build the seconds of each round, those of the slowest process; the peak of each process; the loss.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ...runtime.allocator import keep_freed_memory
from ...runtime.folder import load
from ...runtime.mesh import Place, join_mesh
from ...runtime.process import own_device, process_group
from ...runtime.state import initial_store
from .contest import alternate
from .measure import peak_bytes
from .pipeline_contest import SEED, by_process


@dataclass(frozen=True)
class SlicesContest:
    """Builds on one mesh, of one recipe but for its slices; timed rounds; where the outcome goes."""

    builds: tuple[str, ...]
    rounds: int
    result: str


@dataclass(frozen=True)
class SlicesOutcome:
    """Build by build."""

    seconds: tuple[tuple[float, ...], ...]
    bytes: tuple[tuple[int, ...], ...]
    losses: tuple[float, ...]


def hold(contest: SlicesContest) -> SlicesOutcome:
    """Losses and times first, then memory, one build after another."""
    device = own_device("cpu")
    place = join_mesh(load(contest.builds[0], device).build.mesh, device)
    assert place is not None, "a pipeline has several processes"
    makes = [partial(_step, build, place, device) for build in contest.builds]
    running = [make() for make in makes]
    losses = tuple(float(step()) for step in running)
    seconds = alternate(running, contest.rounds)
    del running
    peaks = [by_process(peak_bytes(make, device)) for make in makes]
    return SlicesOutcome(tuple(map(tuple, seconds)), tuple(peaks), losses)


def _step(folder: str, place: Place, device: torch.device) -> Callable[[], torch.Tensor]:
    """A step of a build on the same ids each time."""
    mine = replace(load(folder, device), communicator=place.processes)
    store = initial_store(mine.build, SEED, device, place.rank)
    program, generator = mine.programs["step"], torch.Generator().manual_seed(SEED)
    rows = [item for item in program.inputs if item.source == "data"]
    data = [
        {item.name: torch.randint(item.below or 2, item.shape, generator=generator) for item in rows}
        for _ in range(program.microbatches)
    ]
    return lambda: mine.run("step", store, data)["loss"]


def main() -> int:
    """Reads the contest, holds it, and writes the outcome."""
    keep_freed_memory()
    torch.set_num_threads(1)  # a core for each process, where there are as many
    said: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    said["builds"] = tuple(said["builds"])
    contest = SlicesContest(**said)
    with process_group(torch.device("cpu")):
        found = hold(contest)
        if dist.get_rank() == 0:
            Path(contest.result).write_text(json.dumps(asdict(found)), encoding="utf-8")
        dist.barrier()
    return 0


if __name__ == "__main__":
    sys.exit(main())
