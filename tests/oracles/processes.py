"""Real processes, over gloo on the loopback: started here, ended here, each with a rank and a file to write to.

`run_processes` runs a function of a module in every process of a mesh and gives what each returned. The processes are
forked off a server that has loaded torch and has no threads (multiprocessing's `forkserver`): loading it anew in each
takes longer than most of what they do. What is started as a user starts it is tested in `test_train_mesh.py`.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist

TIMEOUT_S = 120
ROOT = Path(__file__).resolve().parents[1]
LOADED = ("oracles.processes", "oracles.spread", "oracles.training", "torch.distributed.pipelining", "torch._dynamo")
SURROUNDINGS = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


@cache
def _server() -> ForkServerContext:
    """The server that processes are forked off; begun once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*LOADED])
    paths = os.pathsep.join([str(ROOT), *(p for p in sys.path if p)])
    with patch.dict(os.environ, {**SURROUNDINGS, "PYTHONPATH": paths}):
        first = context.Process(target=os.getpid)  # the server begins with its first process
        first.start()
        first.join()
    return context


def run_processes(folder: Path, count: int, function: str, **arguments: Any) -> list[Mapping[str, Any]]:
    """Call `module:function(**arguments)`, which returns tensors by name, in `count` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(arguments, folder / "arguments.pt")
    server = _server()
    started = [server.Process(target=_main, args=(folder, function, rank, count)) for rank in range(count)]
    for process in started:
        process.start()
    try:
        for process in started:
            process.join(TIMEOUT_S)
    finally:
        for process in started:
            process.kill()
    said = "\n".join((folder / f"{rank}.txt").read_text() for rank in range(count))
    assert all(process.exitcode == 0 for process in started), said
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def launch_module(module: str, count: int, arguments: Sequence[str]) -> int:
    """`runtime.launch.launch_module` without its agent: `python -m MODULE …` in `count` processes."""
    with tempfile.TemporaryDirectory() as folder:
        run_processes(Path(folder), count, "oracles.processes:program", module=module, words=list(arguments))
    return 0


def program(module: str, words: Sequence[str]) -> dict[str, torch.Tensor]:
    """What `python -m MODULE WORDS` does."""
    sys.argv = [module, *words]
    assert importlib.import_module(module).main() == 0, f"{module} failed"
    return {}


def _main(folder: Path, function: str, rank: int, count: int) -> None:
    with (folder / f"{rank}.txt").open("wb") as said:
        for descriptor in (1, 2):
            os.dup2(said.fileno(), descriptor)
    os.environ.update(SURROUNDINGS)
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
