"""Starts the processes of a mesh on this host: torchrun's own agent, and what became of each in words.

In: a build folder, the arguments of `python -m partita.runtime`, how many processes. Out: the exit code. If a process
ends too early the agent ends the others, and the fault says which rank it was and why. SIGINT and SIGTERM are handed
on, so that a run saves its checkpoint as it would alone.
"""

from __future__ import annotations

import logging
import signal
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from .fault import RuntimeFault
from .process import EXIT_CODES

PATIENCE_S = 600  # for a checkpoint after a signal


def launch(build: Path, count: int, arguments: Sequence[str]) -> int:
    """Run `python -m partita.runtime BUILD …` in `count` processes on this host; the exit code of all.

    Raises `RuntimeFault` E0532 if one of them fails.
    """
    return launch_module(f"{__package__}", count, [str(build), *arguments])


def launch_module(module: str, count: int, arguments: Sequence[str]) -> int:
    """Run `python -m MODULE …` in `count` processes on this host; the exit code of all.

    Raises `RuntimeFault` E0532 if one of them fails.
    """
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we say it ourselves
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
        signals_to_handle="SIGTERM,SIGINT",
        shutdown_timeout=PATIENCE_S,
    )
    words = ("-m", module, *arguments)
    try:
        codes = elastic_launch(config, sys.executable)(*words)
        return max(codes.values(), default=0) if all(isinstance(c, int) for c in codes.values()) else 0
    except SignalException as left:
        return EXIT_CODES.get(signal.Signals(left.sigval), 128 + left.sigval)
    except ChildFailedError as failed:
        raise fault_of(failed.failures) from None


def fault_of(failures: Mapping[int, ProcessFailure]) -> RuntimeFault:
    """Which process it was and why: one that was killed before one that failed, for the others then miss it.

    Those that got SIGTERM are the ones that the agent ended.
    """

    def order(item: tuple[int, ProcessFailure]) -> tuple[bool, bool, int, int]:
        rank, failure = item
        return failure.exitcode == -signal.SIGTERM, failure.exitcode >= 0, int(failure.timestamp), rank

    rank, failure = min(failures.items(), key=order)
    if failure.exitcode < 0:
        why = f"it was killed by {failure.signal_name()}"
        hint = "SIGKILL often means that memory ran out" if failure.signal_name() == "SIGKILL" else None
    else:
        why, hint = _said(failure), None
    return RuntimeFault("E0532", f"rank {rank} of the mesh ended: {why}", hint or "go on with --resume")


def _text(message: object) -> str:
    """What torch's record of a failure holds: a text, or a dict with it."""
    return str(cast("dict[str, object]", message).get("message", "")) if isinstance(message, dict) else str(message)


def _said(failure: ProcessFailure) -> str:
    message = _text(failure.message)
    for kind in ("RuntimeFault: ", "fault.RuntimeFault: "):
        message = message.removeprefix(kind)
    return message.strip() or f"exit code {failure.exitcode}"
