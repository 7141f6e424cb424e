"""The parse tables: the cache is used, and whatever is wrong with it, the tables are built again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from partita.compiler.language import tables as module
from partita.compiler.language.tables import GRAMMAR, load_tables

SMALL = 'start: "a" b*\nb: NAME ["," NAME]\nNAME: /[a-z]+/\n%ignore " "\n'


def cached(folder: Path) -> Path:
    (path,) = folder.glob("grammar-*.json")
    return path


def test_cached_tables_are_the_built_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    built = load_tables(SMALL, tmp_path)
    monkeypatch.delattr(module, "build_tables")
    assert load_tables(SMALL, tmp_path) == built


@pytest.mark.parametrize("damage", ["", "{}", "null\n[]", "\x00", "[" * 100_000, '{"format": 1}\n{}'])
def test_a_damaged_cache_is_replaced(tmp_path: Path, damage: str):
    built = load_tables(SMALL, tmp_path)
    good = cached(tmp_path).read_text("utf-8")
    cached(tmp_path).write_text(damage, "utf-8")
    assert load_tables(SMALL, tmp_path) == built
    assert cached(tmp_path).read_text("utf-8") == good


def test_every_damaged_byte_is_noticed(tmp_path: Path):
    built = load_tables(SMALL, tmp_path)
    good = cached(tmp_path).read_bytes()
    for at in range(0, len(good), max(1, len(good) // 20)):
        cached(tmp_path).write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert load_tables(SMALL, tmp_path) == built


def test_targets_out_of_range_are_refused():
    data = module.build_tables(SMALL)
    data["states"][0]["NAME"] = 10_000
    with pytest.raises(ValueError, match="no state"):
        module.decode_tables(data)


def test_another_grammar_has_another_file(tmp_path: Path):
    load_tables(SMALL, tmp_path)
    load_tables(SMALL.replace("a-z", "A-Z"), tmp_path)
    assert len(list(tmp_path.glob("grammar-*.json"))) == 2


def test_a_folder_that_cannot_be_written_does_not_matter(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert load_tables(SMALL, tmp_path / "file" / "below").rules


def test_warm_parsing_never_loads_lark(tmp_path: Path):
    load_tables(GRAMMAR.read_text("utf-8"), tmp_path)
    code = (
        "import sys\nfrom partita.compiler.language.parse import parse\nfrom partita.compiler.base.span import Source\n"
        "assert not parse(Source('a', 'use std')).diagnostics\n"
        "print([name for name in ('lark', 'torch') if name in sys.modules])"
    )
    env = {"PARTITA_CACHE": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert json.loads(run.stdout) == []
