"""Sources open what was named and nothing else; what is wrong with a file is said with its name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from partita.runtime import sources
from partita.runtime.fault import RuntimeFault
from partita.runtime.recipe import DataSource
from partita.runtime.sources import check_range, open_source


def _text(*paths: str) -> DataSource:
    return DataSource("text", paths)


def test_files_are_one_stream_sorted_by_path(tmp_path: Path) -> None:
    for name, content in (("b.txt", b"defg"), ("a.txt", b"abc"), ("c.txt", b""), ("d.txt", b"h")):
        (tmp_path / name).write_bytes(content)
    stream = open_source(_text("*.txt", "a.txt"), tmp_path)
    assert len(stream) == 8
    for start in range(8):
        for length in range(1, 8 - start + 1):
            assert bytes(stream.read(start, length).tolist()) == b"abcdefgh"[start : start + length]
    assert stream.place(4).endswith("b.txt, id 1")


def test_tokens_are_mapped(tmp_path: Path) -> None:
    ids = np.arange(1000, dtype="<u2") * 60
    ids.tofile(tmp_path / "x.bin")
    stream = open_source(DataSource("tokens", ("x.bin",), dtype="uint16"), tmp_path)
    assert isinstance(stream.parts[0], np.memmap)
    assert stream.read(990, 10).tolist() == ids[990:].tolist()


def test_built_in_text() -> None:
    stream = open_source(DataSource("corpus", ("python-docs",)))
    assert len(stream) > 300_000
    assert b"assert" in bytes(stream.read(0, 2000).tolist())


def _code(source: DataSource, root: Path) -> tuple[str, str]:
    with pytest.raises(RuntimeFault) as caught:
        open_source(source, root)
    return caught.value.code, caught.value.message


def test_missing_empty_and_unreadable(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "odd.bin").write_bytes(b"abc")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.txt")
    assert _code(_text("no.txt"), tmp_path)[0] == "E0501"
    assert _code(_text("folder"), tmp_path)[0] == "E0501"
    assert _code(_text(""), tmp_path)[0] == "E0501"
    assert _code(_text("empty.txt"), tmp_path) == ("E0502", f"the data is empty: {tmp_path.resolve() / 'empty.txt'}")
    assert _code(DataSource("tokens", ("odd.bin",), dtype="uint16"), tmp_path)[0] == "E0506"
    assert _code(DataSource("tokens", ("odd.bin",), dtype="float9"), tmp_path)[0] == "E0505"
    assert _code(_text("pipe.txt"), tmp_path)[0] == "E0506"
    assert _code(DataSource("corpus", ("moby-dick",)), tmp_path)[0] == "E0505"


def test_no_path_leaves_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "out").symlink_to(tmp_path)
    (root / "loop.txt").symlink_to(root / "loop.txt")
    (root / "own.txt").write_text("own")
    (root / "inside.txt").symlink_to(root / "own.txt")
    for pattern in ("../secret.txt", str(tmp_path / "secret.txt"), "link.txt", "out/secret.txt", "x/../../secret.txt"):
        assert _code(_text(pattern), root)[0] == "E0504"
    assert _code(_text("loop.txt"), root)[0] in ("E0501", "E0506")
    assert len(open_source(_text("inside.txt"), root)) == 3


def test_an_id_out_of_range_is_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CHECK_BYTES", 8)
    np.array([1, 2, 3], "<u2").tofile(tmp_path / "a.bin")
    np.array([4, 5, 6, 7, 8, 9, 10], "<u2").tofile(tmp_path / "b.bin")
    stream = open_source(DataSource("tokens", ("*.bin",), dtype="uint16"), tmp_path)
    check_range(stream, 11)
    with pytest.raises(RuntimeFault, match=r"id 9 is out of range: .* 0 to 8 .*b\.bin, id 5") as caught:
        check_range(stream, 9)
    assert caught.value.code == "E0503"
    np.array([4, -1], "<i4").tofile(tmp_path / "c.bin")
    signed = open_source(DataSource("tokens", ("c.bin",), dtype="int32"), tmp_path)
    with pytest.raises(RuntimeFault, match="id -1"):
        check_range(signed, 100)
