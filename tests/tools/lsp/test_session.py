"""A real session: an editor starts `partita lsp` and speaks with it over its standard input and output."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

GOOD = """use std

model Small : tokens[T] in V -> logits[T, V] {
  sizes {
          D   V
    tiny  64  256
  }
  embed : Embedding[V, D]
  return dot[D](embed(tokens), embed.table)
}
"""


class Editor:
    """The least that a client must speak: framed JSON, requests with numbers, notifications."""

    def __init__(self, to: IO[bytes], of: IO[bytes]) -> None:
        self.to, self.of, self.number = to, of, 0
        self.heard: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.to.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.to.flush()

    def tell(self, method: str, **params: Any) -> None:
        self.send({"method": method, "params": params})

    def ask(self, method: str, **params: Any) -> Any:
        """The result of a request."""
        self.number += 1
        self.send({"id": self.number, "method": method, "params": params})
        while True:
            message = self.hear()
            if message.get("id") == self.number and "method" not in message:
                assert "error" not in message, message
                return message["result"]
            self.heard.append(message)

    def hear(self) -> dict[str, Any]:
        """The next message of the server."""
        length = 0
        while (line := self.of.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        assert length, "the server is gone"
        return json.loads(self.of.read(length))

    def diagnostics(self, uri: str) -> list[dict[str, Any]]:
        """Those that are published next for a text."""
        while True:
            message = self.heard.pop(0) if self.heard else self.hear()
            if message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == uri:
                return message["params"]["diagnostics"]

    def open(self, uri: str, text: str) -> list[dict[str, Any]]:
        self.tell(
            "textDocument/didOpen", textDocument={"uri": uri, "languageId": "partita", "version": 1, "text": text}
        )
        return self.diagnostics(uri)

    def change(self, uri: str, text: str) -> list[dict[str, Any]]:
        self.tell("textDocument/didChange", textDocument={"uri": uri, "version": 2}, contentChanges=[{"text": text}])
        return self.diagnostics(uri)

    def at(self, method: str, uri: str, text: str, mark: str) -> Any:
        """Ask about the place before a piece of a text."""
        before = text[: text.index(mark)]
        place = {"line": before.count("\n"), "character": len(before) - before.rfind("\n") - 1}
        return self.ask(method, textDocument={"uri": uri}, position=place)


@pytest.fixture
def editor() -> Iterator[Editor]:
    """An editor that has shaken hands; the server is ended as an editor ends it, or by its process id."""
    command = [sys.executable, "-m", "partita.tools.cli", "lsp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            client = Editor(server.stdin, server.stdout)
            answer = client.ask("initialize", processId=None, rootUri=None, capabilities={})
            assert answer["serverInfo"]["name"] == "partita"
            able = answer["capabilities"]
            names = ("hoverProvider", "definitionProvider", "completionProvider", "documentFormattingProvider")
            assert all(able[name] for name in names)
            client.tell("initialized")
            yield client
            client.ask("shutdown")
            client.tell("exit")
            assert server.wait(60) == 0
        finally:
            server.kill()


def test_a_session(editor: Editor, tmp_path: Path):
    uri = (tmp_path / "small.partita").as_uri()
    assert editor.open(uri, GOOD) == []

    faulty = GOOD.replace("embed.table", "embde.table").replace("tokens[T]", "tokens[T] ", 1)
    (found,) = editor.change(uri, faulty)
    assert found["code"] == "E0101"
    assert "did you mean `embed`?" in found["message"]
    assert found["range"]["start"] == {"line": 8, "character": faulty.splitlines()[8].index("embde")}

    half = GOOD[: GOOD.index("(tokens)")] + "("
    assert any(item["code"].startswith("E00") for item in editor.change(uri, half))
    labels = {item["label"] for item in editor.at("textDocument/completion", uri, half + "\n", "\n\n") or []}
    assert isinstance(labels, set)

    assert editor.change(uri, GOOD) == []
    told = editor.at("textDocument/hover", uri, GOOD, "embed(tokens)")
    assert "16,384 parameters" in told["contents"]["value"]
    place = editor.at("textDocument/definition", uri, GOOD, "Embedding[V")
    assert place["uri"].endswith("/specs/std/linear.partita")
    text = Path(place["uri"].removeprefix("file://")).read_text("utf-8").splitlines()
    start = place["range"]["start"]
    assert text[start["line"]][start["character"] :].startswith("Embedding")
    labels = {item["label"] for item in editor.at("textDocument/completion", uri, GOOD, "embed(tokens)")}
    assert {"embed", "tokens", "gelu", "D"} <= labels

    ugly = GOOD.replace("  return", "      return").replace("embed : E", "embed:E")
    assert editor.change(uri, ugly) == []
    (edit,) = editor.ask(
        "textDocument/formatting", textDocument={"uri": uri}, options={"tabSize": 2, "insertSpaces": True}
    )
    assert edit["newText"] == GOOD


def test_files_that_use_each_other(editor: Editor, tmp_path: Path):
    """What an open text uses is taken from the editor, not from the disk."""
    used, using = tmp_path / "blocks.partita", tmp_path / "main.partita"
    used.write_text("fn old(x) = x\n", "utf-8")
    text = "use blocks\n\nfn f(x) = new(x)\n"
    (found,) = editor.open(using.as_uri(), text)
    assert found["code"] == "E0101"
    assert editor.open(used.as_uri(), "fn new(x) = x\n") == []
    assert editor.diagnostics(using.as_uri()) == []
    place = editor.at("textDocument/definition", using.as_uri(), text, "new(x)")
    assert place["uri"] == used.as_uri()


def test_columns_count_as_the_editor_counts(editor: Editor, tmp_path: Path):
    """In UTF-16 units: what lies beyond the basic plane takes two."""
    text = 'train a {\n  data { read = text("\U0001f642"), nonsense = 1 }\n}\n'
    found = editor.open((tmp_path / "a.partita").as_uri(), text)
    (bad,) = [item for item in found if "nonsense" in item["message"]]
    line = text.splitlines()[1]
    assert bad["range"]["start"]["character"] == line.rindex("1") + 1
