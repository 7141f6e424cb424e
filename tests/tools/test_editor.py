"""The extension folder agrees with the language and the package: words, units, version, files that it names."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from partita.compiler.language.tables import tables
from samples.spec_texts import ROOT

EDITOR = ROOT / "tools/editor"


def read(name: str) -> Any:
    return json.loads((EDITOR / name).read_text("utf-8"))


def patterns(rule: Any) -> Iterator[tuple[str, str]]:
    """(scope, regular expression) of a grammar, captures apart."""
    for part in rule.values() if isinstance(rule, dict) else rule if isinstance(rule, list) else ():
        yield from patterns(part)
    if isinstance(rule, dict):
        yield from ((rule.get("name", ""), rule[key]) for key in ("match", "begin", "end") if key in rule)


def scopes(line: str) -> dict[str, str]:
    """What a line's words are coloured as, by the rules without captures that apply anywhere in it."""
    found: dict[str, str] = {}
    for scope, expression in patterns(read("syntaxes/partita.tmLanguage.json")):
        for match in re.finditer(expression, line):
            found.setdefault(match[0], scope)
    return found


def test_every_word_of_the_language_is_coloured():
    words = {t.literal for t in tables().terminals if t.literal and t.literal.isalpha()}
    coloured = {word for expression in patterns(read("syntaxes/partita.tmLanguage.json")) for word in words
                if re.search(rf"[(|]{word}[|)]", expression[1])}  # fmt: skip
    assert coloured == words


def test_the_rules_find_what_they_are_for():
    assert scopes("  return h + mlp(h)  # twice")["return"] == "keyword.control.partita"
    assert scopes("## what it is")["## what it is"].startswith("comment")
    assert "4 Mtokens" in scopes("  batch = 4 Mtokens")
    assert "3.35 TB/s" in scopes("  bandwidth = 3.35 TB/s")
    assert "block Layer" in scopes("block Layer[D] : x[D] -> [D] {")


def test_the_extension_is_whole():
    package = read("package.json")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert package["version"] == project["version"]
    own = package["contributes"]
    named = [package["main"], own["languages"][0]["configuration"], own["grammars"][0]["path"]]
    assert all((EDITOR / name).is_file() for name in named)
    assert own["languages"][0]["extensions"] == [".partita"]
    assert read("language-configuration.json")["comments"] == {"lineComment": "#"}
    command = own["configuration"]["properties"]["partita.command"]["default"]
    assert command == ["partita", "lsp"]
