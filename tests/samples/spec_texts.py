"""Specs for tests: the models of the repository and small texts."""

from __future__ import annotations

from pathlib import Path

from partita.compiler.base.diagnostic import SpecError, render_all
from partita.compiler.base.span import Source
from partita.compiler.elaborate.load import Spec, load
from partita.compiler.language.parse import read_source

ROOT = Path(__file__).resolve().parents[2]


def model_spec(name: str) -> Spec:
    """specs/models/NAME.partita"""
    return opened(read_source(ROOT / f"specs/models/{name}.partita"))


def text_spec(text: str) -> Spec:
    """A spec in a text."""
    return opened(Source("test.partita", text))


def opened(source: Source) -> Spec:
    spec, found = load(source)
    if spec is None:
        raise SpecError(found)
    assert not found, render_all(found)
    return spec
