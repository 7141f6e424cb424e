"""The interpreter of one device: frees before calls, accumulates over microbatches, gives the runtime's scalars."""

from __future__ import annotations

import pytest
import torch
from partita.runtime.execute import Executable
from partita.runtime.folder import BuildError, executable
from partita.runtime.program import Allocate, Build, Free, Initializer, Input, Parameter, Program, Run

ADD = "def run(args):\n    total, x = args\n    args.clear()\n    total.add_(x.sum())\n    return []\n"
STEP = "def run(args):\n    w, total, step = args\n    args.clear()\n    w.sub_(total * (step + 1))\n    return []\n"
START = "def run(args):\n    start, number = args\n    args.clear()\n    return [start + number]\n"
WEIGHT = Parameter("w", (), (), "f32", Initializer("ones"))
X = Input("x", (2,), ("batch",), "f32")
CLOCK = Input("step", (), (), "i64", "step")


def built(program: Program) -> Build:
    return Build("test", (WEIGHT,), (), {"step": program})


def summing(microbatches: int) -> Executable:
    program = Program(
        inputs=(X, CLOCK),
        prepare=(Allocate("total", (), "f32"),),
        microbatch=(Run("add", ("total", "x"), (), ("x",)),),
        update=(Run("move", ("w", "total", "step"), (), ()),),
        outputs={"total": "total"},
        microbatches=microbatches,
    )
    return executable(built(program), {"add": ADD, "move": STEP})


def test_microbatches_add_up_and_parameters_are_written_in_place() -> None:
    weight = torch.tensor(10.0)
    out = summing(3).run("step", {"w": weight}, [{"x": torch.full((2,), float(n))} for n in (1, 2, 3)], step=1)
    assert float(out["total"]) == 12.0
    assert float(weight) == 10.0 - 24.0


def test_the_store_gets_no_buffers() -> None:
    store = {"w": torch.tensor(1.0)}
    summing(1).run("step", store, [{"x": torch.ones(2)}])
    assert list(store) == ["w"]


def test_a_freed_buffer_is_the_modules_alone() -> None:
    program = Program((X,), (), (Run("keep", ("x",), ("y",), ("x",)), Free(("y",))), (), {}, 1)
    ours = executable(built(program), {"keep": START})
    seen: list[int] = []

    def keep(args: list[torch.Tensor]) -> list[torch.Tensor]:
        seen.append(len(args))
        return [args.pop()]

    assert Executable(ours.build, {"keep": keep}, ours.device).run("step", {}, [{"x": torch.ones(2)}]) == {}
    assert seen == [1]


def test_a_later_microbatch_starts_at_later_rows() -> None:
    start = Input("start:batch", (), (), "i64", "start:batch", whole=(2,))
    program = Program((X, start), (), (Run("start", ("start:batch",), ("y",), (), (5,)),), (), {"y": "y"}, 3)
    out = executable(built(program), {"start": START}).run("step", {}, [{"x": torch.ones(2)}] * 3, starts={"batch": 10})
    assert int(out["y"]) == 10 + 2 * 2 + 5


def test_a_program_that_calls_what_is_not_there_is_refused() -> None:
    program = Program((), (), (Run("lost", (), ()),), (), {}, 1)
    with pytest.raises(BuildError, match="lost"):
        executable(built(program), {})


def test_data_of_another_shape_is_refused() -> None:
    with pytest.raises(AssertionError, match="x is"):
        summing(1).run("step", {"w": torch.tensor(1.0)}, [{"x": torch.ones(3)}])
