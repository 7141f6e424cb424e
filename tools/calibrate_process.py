"""One process of `partita calibrate --processes N`: its kernels while the others time theirs, then messages.

In: a JSON file (a `Task`) that says what to time, and where to. Out: the machine's table, written by the first process.
A process has its part of the host's cores, one at the least, as each of a mesh has; so its kernels are timed beside
others that use the same memory.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ..compiler.cost.cluster import Message
from ..compiler.cost.table import Table
from ..runtime.calibrate import Effort, calibrate
from ..runtime.calibrate_messages import sizes_of_groups, timed_among
from ..runtime.machine import measure
from ..runtime.mesh import leads
from ..runtime.process import own_device, process_group
from .calibration import bare_table, cores, probes_of, threads_of, write_table


@dataclass(frozen=True)
class Task:
    """What is timed. most_bytes: of a message."""

    device: str
    dtypes: tuple[str, ...]
    effort: Effort
    most_bytes: int
    out: str

    def write(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_task(path: Path) -> Task:
    """What `write` wrote."""
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    effort = Effort(**said["effort"])
    return Task(said["device"], tuple(said["dtypes"]), effort, said["most_bytes"], said["out"])


def table_of_processes(task: Task, device: torch.device) -> Table:
    """Kernels in all processes at once, then messages among some and all of them. Every process calls it."""
    count = dist.get_world_size()
    dist.barrier()
    bare = bare_table(str(device), [measure(str(device), dtype) for dtype in task.dtypes])
    dist.barrier()
    points = calibrate(str(device), task.dtypes, effort=task.effort)
    dist.barrier()
    shared = cores() if device.type == "cpu" else 0
    room = shared // threads_of(count) or count
    sizes = sizes_of_groups(count)
    found = [one for size in sizes for one in timed_among(size, device, task.most_bytes, size > room)]
    messages = tuple(Message(one.kind, one.processes, one.bytes_, one.seconds) for one in found)
    probes = probes_of(count)
    return replace(bare, points=tuple(points), messages=messages, processes=count, cores=shared, probes=probes)


def main() -> int:
    """Reads the task, does it, and writes the table."""
    task = read_task(Path(sys.argv[1]))
    device = own_device(task.device)
    with process_group(device):
        torch.set_num_threads(threads_of(dist.get_world_size()))
        table = table_of_processes(task, device)
        if leads():
            write_table(table, Path(task.out))
        dist.barrier()  # whoever leaves first takes its connections along
    return 0


if __name__ == "__main__":
    sys.exit(main())
