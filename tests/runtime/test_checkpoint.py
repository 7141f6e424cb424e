"""Checkpoints come back bit for bit, a crash at any file operation leaves the last good one, and nothing is pickled."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from partita.runtime import checkpoint
from partita.runtime.fault import RuntimeFault
from partita.runtime.program import Build, Initializer, Parameter, State
from partita.runtime.state import Store, empty_store, initial_store
from torch._C._distributed_c10d import HashStore

NORMAL = Initializer("normal", (1.0,))
BUILD = Build(
    "tiny",
    (
        Parameter("wte.table", (7, 3), ("V", "D"), "f32", NORMAL),
        Parameter("blocks.0.w", (3, 3), ("D", "O"), "bf16", NORMAL),
        Parameter("scale", (), (), "f64", Initializer("constant", (2.5,))),
    ),
    (State("adamw.m/wte.table", (7, 3), "f32", NORMAL),),
    {},
)


def _store(seed: int) -> Store:
    return initial_store(BUILD, seed)


def _equal(one: Store, other: Store) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_saved_and_loaded_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FILE_BYTES", 100)  # several files
    path = checkpoint.save(tmp_path / "c", BUILD, _store(1), step=5, seed=9)
    assert len(list(path.glob("*.safetensors"))) > 1
    store = empty_store(BUILD)
    scalars = checkpoint.load(path, BUILD, store)
    assert (scalars.step, scalars.seed, scalars.model) == (5, 9, "tiny")
    assert _equal(store, _store(1))


def test_with_a_process_group_of_one(tmp_path: Path) -> None:
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        path = checkpoint.save(tmp_path, BUILD, _store(1), step=1, seed=0)
        store = empty_store(BUILD)
        checkpoint.load(path, BUILD, store)
    finally:
        dist.destroy_process_group()
    assert _equal(store, _store(1))


def test_only_safetensors_and_json(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, BUILD, _store(1), step=1, seed=0)
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_keep_removes_the_oldest(tmp_path: Path) -> None:
    for step in (9, 10, 100000000, 99999999):
        checkpoint.save(tmp_path, BUILD, _store(step), step, seed=0, keep=2)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["step-99999999", "step-100000000"]
    assert checkpoint.latest(tmp_path).name == "step-100000000"


def test_parameters_alone(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, BUILD, _store(1), step=1, seed=0)
    store = {name: torch.zeros_like(t) for name, t in _store(0).items() if "/" not in name}
    checkpoint.load(path, BUILD, store)
    assert _equal(store, _store(1))


def test_another_model_is_refused_with_both_shapes(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, BUILD, _store(1), step=1, seed=0)
    other = replace(
        BUILD,
        parameters=(replace(BUILD.parameters[0], shape=(7, 4)), replace(BUILD.parameters[1], name="blocks.1.w")),
    )
    store = empty_store(other)
    before = {name: tensor.clone() for name, tensor in store.items()}
    with pytest.raises(RuntimeFault) as caught:
        checkpoint.load(path, other, store)
    assert caught.value.code == "E0511"
    for words in (
        "wte.table is [7, 3] there and [7, 4] here",
        "blocks.1.w [3, 3] is not in it",
        "blocks.0.w [3, 3] is not in this model",
    ):
        assert words in caught.value.message
    assert all(torch.equal(before[n].view(torch.uint8), store[n].view(torch.uint8)) for n in store if store[n].ndim)


@pytest.mark.parametrize(
    "changed", [{"format_version": 99}, {"tensors": 3}, {"tensors": {"a": ["x"]}}, {"step": "x"}, {"seed": None}]
)
def test_damaged_scalars(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = checkpoint.save(tmp_path, BUILD, _store(1), step=1, seed=0)
    file = path / checkpoint.SCALARS
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    with pytest.raises(RuntimeFault) as caught:
        checkpoint.load(path, BUILD, _store(0))
    assert caught.value.code == "E0513"


def test_damaged_tensors(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, BUILD, _store(1), step=1, seed=0)
    file = next(path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(RuntimeFault, match="damaged") as caught:
        checkpoint.load(path, BUILD, _store(0))
    assert caught.value.code == "E0513"
    file.unlink()
    with pytest.raises(RuntimeFault, match="damaged"):
        checkpoint.load(path, BUILD, _store(0))


def test_none_to_resume_from(tmp_path: Path) -> None:
    (tmp_path / "step-00000007").mkdir()  # without scalars: not ours
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(RuntimeFault) as caught:
            checkpoint.latest(folder)
        assert caught.value.code == "E0510"


class _Killed(BaseException):
    """The process is gone: from here on no file operation has an effect."""


def _patch_file_operations(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None]) -> None:
    """Call `before` ahead of each operation that changes files."""

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            before()
            return function(*args, **kwargs)

        return call

    for name in ("mkdir", "rename", "unlink", "rmdir", "fsync"):
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))
    opened = io.open

    def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if "w" in mode:
            before()
        return opened(file, mode, *args, **kwargs)

    monkeypatch.setattr(io, "open", open_)
    monkeypatch.setattr(builtins, "open", open_)


def _save_until(folder: Path, deadly: int) -> bool:
    """Save step 2 beside step 1, dying at the given file operation; whether it lived."""
    count = 0

    def before() -> None:
        nonlocal count
        count += 1
        if count >= deadly:
            raise _Killed

    with pytest.MonkeyPatch.context() as patch:
        _patch_file_operations(patch, before)
        try:
            checkpoint.save(folder, BUILD, _store(2), step=2, seed=0, keep=1)
        except (_Killed, RuntimeFault):
            return False
    return True


def test_a_kill_at_any_file_operation_leaves_a_good_one(tmp_path: Path) -> None:
    lived, deadly, outcomes = False, 0, set[int]()
    while not lived:
        deadly += 1
        folder = tmp_path / str(deadly)
        checkpoint.save(folder, BUILD, _store(1), step=1, seed=0)
        lived = _save_until(folder, deadly)
        store = empty_store(BUILD)
        step = checkpoint.load(checkpoint.latest(folder), BUILD, store).step
        assert _equal(store, _store(step)), f"killed at operation {deadly}"
        outcomes.add(step)
        if step == 1:  # the run goes on, over what the kill left
            checkpoint.save(folder, BUILD, _store(2), step=2, seed=0, keep=1)
        checkpoint.save(folder, BUILD, _store(3), step=3, seed=0, keep=1)
        assert [path.name for path in folder.iterdir()] == ["step-00000003"]
    assert deadly > 8 and outcomes == {1, 2}


def test_a_full_disk_is_said_and_the_previous_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, BUILD, _store(1), step=1, seed=0)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RuntimeFault, match="No space left on device") as caught:
            checkpoint.save(tmp_path, BUILD, _store(2), step=2, seed=0, keep=1)
    assert caught.value.code == "E0512" and "intact" in (caught.value.hint or "")
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_the_same_step_is_not_overwritten(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, BUILD, _store(1), step=1, seed=0)
    with pytest.raises(RuntimeFault, match="exists already"):
        checkpoint.save(tmp_path, BUILD, _store(2), step=1, seed=0)
    checkpoint.remove_all(tmp_path)
    assert not list(tmp_path.iterdir())
