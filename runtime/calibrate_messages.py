"""Times collectives among processes of this host, by kind and size: what prices of layouts are made of.

`torchrun --nproc-per-node 2 -m partita.runtime.calibrate_messages OUT.json cpu 16777216`, as `partita calibrate` does
with `--processes 2`. In: a file, a device, the most bytes; a process group. Out, from the first process: a JSON list of
[kind, processes, bytes, seconds]. What is timed is what a program's instruction does, staging and waiting included; the
slowest process counts, the best run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from .collectives import Processes
from .layout import Mesh
from .mesh import highest, join_mesh, leads
from .process import own_device, process_group
from .program import Collective, CollectiveKind

AXIS = "here"
KINDS: tuple[CollectiveKind, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
LEAST_BYTES = 256
RUNS = 30
BUDGET_S = 0.3  # of a kind and size, after its first run


def main(words: list[str]) -> int:
    """Times everything; the first process writes."""
    out, name, most_bytes = words
    device = own_device(name)
    torch.set_num_threads(1)
    with process_group(device):
        place = join_mesh(Mesh(((AXIS, dist.get_world_size()),)), device)
        assert place is not None, "several processes"
        found = [*timed(place.processes, device, int(most_bytes))]
        if leads():
            Path(out).write_text(json.dumps(found))
    return 0


def timed(processes: Processes, device: torch.device, most_bytes: int) -> Iterator[tuple[str, int, int, float]]:
    """Kind, processes, bytes of what is whole (all-to-all: of what one has), seconds; sizes four times one another."""
    count = processes.mesh.size
    sizes = [LEAST_BYTES << n for n in range(0, 64, 2) if LEAST_BYTES << n <= most_bytes]
    for kind in KINDS:
        for size in sizes:
            side = max(count, size // 4 // count // count * count)  # float32, both dims even
            whole = (side, count)
            made = whole if kind in ("all_reduce", "all_gather") else (side // count, count)
            sent = Collective(
                kind, AXIS, ("x",), ("y",), (made,), "f32", dims=(0,), sizes=(side,), join=1, join_size=count
            )
            cut = {"all_gather": (side // count, count), "all_to_all": (side, 1)}.get(kind, whole)
            x = torch.zeros(cut, device=device)
            bytes_ = 4 * side * (1 if kind == "all_to_all" else count)
            yield kind, count, bytes_, _best(processes, sent, x)


def _best(processes: Processes, sent: Collective, x: torch.Tensor) -> float:
    """Of several runs the shortest, each as long as the slowest process takes. All processes run equally often."""
    best, spent = float("inf"), -float("inf")
    for _ in range(RUNS):
        dist.barrier()
        begin = time.perf_counter()
        processes.begin(sent, [x]).results()
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        seconds = highest(time.perf_counter() - begin)
        best = min(best, seconds)
        spent = max(spent, 0.0) + seconds if spent >= 0 else 0.0  # the first run opens connections
        if spent > BUDGET_S:
            break
    return best


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
