"""A build's JSON reads back the same, prints the same again, and anything else is refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from generators.bigram import bigram_build
from hypothesis import given
from hypothesis import strategies as st
from partita.runtime.layout import Mesh
from partita.runtime.program import (
    Allocate,
    Build,
    Collective,
    Free,
    Initializer,
    Input,
    Instruction,
    Parameter,
    Program,
    Run,
    Shard,
    State,
    Wait,
)
from partita.runtime.program_json import ProgramFormatError, from_json, to_json

NAMES = st.text(max_size=8)
SEVERAL = st.lists(NAMES, max_size=3).map(tuple)
SHAPES = st.lists(st.integers(0, 2**40), max_size=4).map(tuple)
INITIALIZERS = st.builds(Initializer, NAMES, st.lists(st.floats(allow_nan=False), max_size=2).map(tuple))
INSTRUCTIONS: st.SearchStrategy[Instruction] = st.one_of(
    st.builds(Run, NAMES, SEVERAL, SEVERAL, SEVERAL, SHAPES),
    st.builds(Allocate, NAMES, SHAPES, NAMES),
    st.builds(Free, SEVERAL),
    st.builds(Wait, SEVERAL),
    st.builds(Shard, NAMES, NAMES, NAMES, SHAPES, NAMES, st.integers(0, 3), st.integers(0, 9)),
    st.builds(
        Collective,
        st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]),
        NAMES,
        SEVERAL,
        SEVERAL,
        st.lists(SHAPES, max_size=2).map(tuple),
        NAMES,
        st.sampled_from(["sum", "max"]),
    ),
)
LISTS = st.lists(INSTRUCTIONS, max_size=3).map(tuple)
INPUTS = st.builds(Input, NAMES, SHAPES, SEVERAL, NAMES, NAMES, st.none() | st.integers(0), SHAPES, SEVERAL)
MESHES = st.lists(st.tuples(NAMES, st.integers(1, 8)), max_size=2).map(lambda axes: Mesh(tuple(axes)))
PROGRAMS = st.builds(
    Program,
    st.lists(INPUTS, max_size=2).map(tuple),
    LISTS,
    LISTS,
    LISTS,
    st.dictionaries(NAMES, NAMES, max_size=2),
    st.integers(1),
)
BUILDS = st.builds(
    Build,
    NAMES,
    st.lists(st.builds(Parameter, NAMES, SHAPES, SEVERAL, NAMES, INITIALIZERS, st.booleans(), SEVERAL), max_size=2).map(
        tuple
    ),
    st.lists(st.builds(State, NAMES, SHAPES, NAMES, INITIALIZERS, SEVERAL), max_size=2).map(tuple),
    st.dictionaries(NAMES, PROGRAMS, max_size=2),
    mesh=MESHES,
    variants=st.lists(st.dictionaries(NAMES, PROGRAMS, max_size=1), max_size=1).map(tuple),
    classes=st.lists(st.integers(0, 1), max_size=2).map(tuple),
)


@given(BUILDS)
def test_json_round_trips(build: Build) -> None:
    text = to_json(build)
    assert from_json(text) == build
    assert to_json(from_json(text)) == text


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", "null", '{"format_version": 99}', "\ud800"])
def test_what_is_no_program(text: str) -> None:
    with pytest.raises(ProgramFormatError):
        from_json(text)


@given(st.data())
def test_damage_gives_a_fault_or_a_build(data: st.DataObject) -> None:
    plain: Any = json.loads(to_json(bigram_build()))
    at, key = plain, data.draw(st.sampled_from(sorted(plain)))
    while isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
    at[key] = data.draw(st.sampled_from([None, 3, "x", [], {}, [3], {"op": "x"}]))
    with contextlib.suppress(ProgramFormatError):
        from_json(json.dumps(plain))
