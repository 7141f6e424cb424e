"""The training record survives JSON and refuses what is not one, naming the place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from partita.runtime.fault import RuntimeFault
from partita.runtime.recipe import (
    Checkpoints,
    Column,
    DataSource,
    Evaluation,
    Rows,
    Training,
    from_plain,
    to_plain,
)

FULL = Training(
    source=DataSource("tokens", ("a/*.bin", "b.bin"), dtype="uint16", end=2, folder="specs"),
    rows=Rows("chunk", 8),
    columns=(Column("tokens"), Column("target", "next", "tokens")),
    steps=10,
    batch=4,
    seed=7,
    evaluate=Evaluation(every=5, source=DataSource("corpus", ("python-docs",))),
    checkpoint=Checkpoints(every=2, keep=1),
)


def test_plain_json_round_trips() -> None:
    assert from_plain(json.loads(json.dumps(to_plain(FULL)))) == FULL


def test_defaults_may_be_left_out() -> None:
    plain = {
        "source": {"kind": "corpus", "paths": ["python-docs"]},
        "rows": {"kind": "chunk", "length": 4},
        "columns": [{"name": "tokens"}],
        "steps": 1,
        "batch": 2,
    }
    assert from_plain(plain).tokens_per_step == 8


def _changed(*path: str, value: Any) -> dict[str, Any]:
    plain = json.loads(json.dumps(to_plain(FULL)))
    at = plain
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return plain


@pytest.mark.parametrize(
    ("plain", "word"),
    [
        (_changed("steps", value=0), "recipe.steps"),
        (_changed("steps", value="10"), "recipe.steps"),
        (_changed("batch", value=True), "recipe.batch"),
        (_changed("rows", "lenght", value=3), "lenght"),
        (_changed("rows", value=3), "recipe.rows"),
        (_changed("rows", value={"kind": "chunk"}), "lacks length"),
        (_changed("columns", value=[]), "recipe.columns"),
        (_changed("columns", value={}), "recipe.columns"),
        (_changed("evaluate", "share", value=1.5), "share"),
        (_changed("evaluate", "source", "paths", value="x"), "recipe.evaluate.source.paths"),
        (_changed("checkpoint", "keep", value=-1), "keep"),
    ],
)
def test_what_is_wrong_is_named(plain: dict[str, Any], word: str) -> None:
    with pytest.raises(RuntimeFault) as caught:
        from_plain(plain)
    assert caught.value.code == "E0500"
    assert word in caught.value.message
