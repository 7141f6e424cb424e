"""Real processes, over gloo on the loopback: started here, ended here, each with a rank and a file to write to.

`run_processes` runs a function of a module in every process of a mesh and gives what each returned.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT_S = 120
ROOT = Path(__file__).resolve().parents[1]


def run_processes(folder: Path, count: int, function: str, **arguments: Any) -> list[Mapping[str, Any]]:
    """Call `module:function(**arguments)`, which returns tensors by name, in `count` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / "arguments.pt"
    torch.save(arguments, given)
    paths = os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "oracles.processes", str(folder), function, str(rank), str(count)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    said: list[str] = []
    try:
        said += [process.communicate(timeout=TIMEOUT_S)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), "\n".join(said)
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def _main(folder: Path, function: str, rank: int, count: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)(**torch.load(folder / "arguments.pt"))
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
