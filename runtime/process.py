"""The surroundings of a run: the process group and the signals that ask it to leave.

Under torchrun the group comes from its environment; alone it is a group of one, without any network. The first SIGINT
or SIGTERM is noted, so that a step can be finished and saved; a second one ends the process at once.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def own_device(name: str | None) -> torch.device:
    """The device of this process: of several on a host, under torchrun, each has the GPU of its local rank."""
    device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and ":" not in str(device) and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device


@contextmanager
def process_group(device: torch.device, timeout_s: float | None = None) -> Generator[None]:
    """A process group for the time of the block: the one that is there, torchrun's, or one of a single process."""
    if dist.is_initialized():
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if "WORLD_SIZE" in os.environ and "RANK" in os.environ:
        dist.init_process_group(backend, timeout=None if timeout_s is None else timedelta(seconds=timeout_s))
    else:
        try:
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
        except RuntimeError:  # gloo wants an address even for itself; a machine without one needs no group to be alone
            yield
            return
    try:
        yield
    finally:
        dist.destroy_process_group()
        _forget_groups()


def _forget_groups() -> None:
    """Let go of process groups: gloo's threads end with the last that holds theirs.

    A thread that still lives when the interpreter ends may let go of a tensor then, which aborts the process
    (github.com/pytorch/pytorch/pull/179291). DTensor remembers the meshes of all that it has seen.
    """
    if "torch.distributed.tensor" in sys.modules:  # which not every run loads
        debug = importlib.import_module("torch.distributed.tensor.debug")
        debug._clear_sharding_prop_cache()  # there is no public way
    gc.collect()


@dataclass(slots=True)
class Leave:
    """Whether a signal asked the run to leave, and which."""

    signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells say; 0 if none came."""
        return EXIT_CODES[self.signal] if self.signal else 0


@contextmanager
def leave_on_signals() -> Generator[Leave]:
    """Note SIGINT and SIGTERM for the time of the block; the handlers from before come back after the first."""
    leave = Leave()
    if threading.current_thread() is not threading.main_thread():
        yield leave
        return
    before = {number: signal.getsignal(number) for number in EXIT_CODES}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        leave.signal = signal.Signals(number)
        restore()

    for number in EXIT_CODES:
        signal.signal(number, note)
    try:
        yield leave
    finally:
        restore()
