"""The surroundings of a run: signals are noted once, the group of one needs no network and is taken down."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from partita.runtime import process
from partita.runtime.process import leave_on_signals, process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate

CPU = torch.device("cpu")


def test_the_second_signal_goes_to_the_handler_from_before() -> None:
    caught: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    try:
        with leave_on_signals() as leave:
            assert leave.exit_code == 0
            os.kill(os.getpid(), signal.SIGTERM)
            assert leave.exit_code == 143 and not caught
            os.kill(os.getpid(), signal.SIGTERM)
            assert caught == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_thread_leaves_the_handlers_alone() -> None:
    codes: list[int] = []

    def body() -> None:
        with leave_on_signals() as leave:
            codes.append(leave.exit_code)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert codes == [0] and signal.getsignal(signal.SIGINT) is before


def test_a_group_of_one_comes_and_goes() -> None:
    with process_group(CPU):
        assert dist.get_world_size() == 1
        with process_group(CPU):  # the one that is there is used and stays
            pass
        assert dist.is_initialized()
    assert not dist.is_initialized()


def test_without_any_network_there_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Unable to find interface")

    monkeypatch.setattr(process.dist, "init_process_group", fail)
    entered: list[Callable[[], bool]] = []
    with process_group(CPU):
        entered.append(dist.is_initialized)
    assert len(entered) == 1 and not entered[0]()


def gloo_threads() -> int:
    return sum("gloo" in (task / "comm").read_text() for task in Path("/proc/self/task").iterdir())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are seen where Linux lists them")
def test_no_thread_outlives_its_group() -> None:
    def used() -> int:
        mesh = init_device_mesh("cpu", (1,))
        assert isinstance(DTensor.from_local(torch.ones(2), mesh, [Replicate()]).detach(), DTensor), "it is remembered"
        dist.all_reduce(torch.ones(1))
        return gloo_threads()

    before = gloo_threads()
    with process_group(CPU):
        assert used() > before
    assert gloo_threads() == before
