"""`partita bench slices`: two real processes cut a small row, and the slices that are advised make it up."""

from __future__ import annotations

from argparse import ArgumentTypeError
from importlib import resources

import pytest
from oracles.processes import launch_module
from partita.compiler.cost.cluster import Cluster, Level, Link
from partita.compiler.cost.roofline import Machine
from partita.compiler.elaborate.recipes import load_recipe
from partita.compiler.ir.types import DType
from partita.compiler.pipeline import open_spec
from partita.tools.bench import slices
from partita.tools.bench.command import slices_of
from partita.tools.bench.slices import ADVISED, TOLERANCE, Sliced, advised, as_json, bench_slices, table

MACHINE = Machine({DType.F32: 5e10}, 1e10, 2e10, 5e-6)


def no_other(*_: object) -> tuple[int, ...]:
    """Than the equal ones."""
    return 32, 32


def test_two_processes_cut_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "launch_module", launch_module)
    monkeypatch.setattr(slices, "advised", no_other)
    cases = bench_slices([2], 1, "tiny_long", [2, ADVISED])
    assert [case.what for case in cases] == ["whole", "2 equal"]
    assert all(sum(case.lengths) == 64 for case in cases)
    assert all(case.gap < TOLERANCE and case.seconds > 0 and min(case.bytes) > 0 for case in cases)
    assert cases[0].ratio == 1.0


def test_the_advised_slices_make_up_the_row() -> None:
    """The later they come, the more they attend to, and the shorter they are."""
    with resources.as_file(resources.files("partita.specs").joinpath("recipes/bench_pipeline.partita")) as path:
        spec = open_spec(path)
    lengths = advised(spec, load_recipe(spec, "long"), 4, Cluster(MACHINE, 0, (Level(4, Link(1e9, 1e-6)),)))
    assert sum(lengths) == 2048
    assert len(lengths) > 2
    assert list(lengths) == sorted(lengths, reverse=True)


def test_the_least_is_told_by_number_of_processes() -> None:
    cases = [Sliced(n, "2 equal", (8, 8), 0.5, ratio, (10, 20), 0.0) for n, ratio in ((2, 0.8), (2, 0.7), (4, 0.6))]
    assert as_json(cases)["least"] == {"2": 0.7, "4": 0.6}
    assert table(cases).splitlines()[1].split() == ["2", "2", "equal", "500", "ms", "0.800", "20", "B", "8,", "8"]


def test_slices_are_named_by_number() -> None:
    assert slices_of("1,4") == (1, 4)
    assert slices_of("16,advised") == (16, ADVISED)
    for words in ("3", "0", "", "4,", "best"):
        with pytest.raises(ArgumentTypeError, match="one of 1, 2, 4"):
            slices_of(words)
