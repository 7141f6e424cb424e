"""specs/invalid: a spec for each error, and beside it the exact text that it gives.

`PARTITA_ACCEPT=1 pytest tests/compiler/language/test_invalid.py` writes the texts anew; read the diff first.
"""

import os
from pathlib import Path

import pytest
from partita.compiler.base.catalogue import catalogue
from partita.compiler.base.diagnostic import Diagnostic, SpecError, render_all
from partita.compiler.base.span import Source
from partita.compiler.language.parse import read_source
from partita.compiler.pipeline import check_text, compile_recipe
from partita.tools.specs import bind

INVALID = Path(__file__).resolve().parents[3] / "specs/invalid"
SPECS = sorted(INVALID.glob("*.partita"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_gives_exactly_this(path: Path):
    source = read_source(path)
    found = check_text(source.text, str(path)) or compiled(source)
    text = render_all(found).replace(str(path), path.name) + "\n"
    expected = path.with_suffix(".txt")
    if os.environ.get("PARTITA_ACCEPT"):
        expected.write_text(text, "utf-8")
    assert text == expected.read_text("utf-8")
    assert path.name.split("-")[0] in [item.code for item in found]


def compiled(source: Source) -> tuple[Diagnostic, ...]:
    """What compiling its recipe says of a spec without errors."""
    bound = bind(source, (), None)
    assert bound.recipe is not None, "nothing is wrong with this spec"
    try:
        compile_recipe(bound.spec, bound.recipe, None)
    except SpecError as error:
        return tuple(error.diagnostics)
    return ()


def test_every_syntax_error_has_a_spec():
    codes = {entry.code for entry in catalogue().values() if entry.code.startswith("E00") and entry.bad}
    assert codes <= {path.name.split("-")[0] for path in SPECS}


def test_every_text_has_its_spec():
    assert {path.stem for path in INVALID.glob("*.txt")} == {path.stem for path in SPECS}
