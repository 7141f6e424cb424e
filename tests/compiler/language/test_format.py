"""The canonical form: formatting twice changes nothing, the tree stays, comments stay."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.base.span import Source
from partita.compiler.language.format import format
from partita.compiler.language.parse import parse_or_raise

ROOT = Path(__file__).resolve().parents[3]
SPECS = sorted(path for path in (ROOT / "specs").rglob("*.partita") if path.parent.name != "invalid")


def tree(text: str):
    return parse_or_raise(Source("test", text))


def check(text: str) -> str:
    """The canonical form of a text, with everything that must hold of it."""
    formatted = format(text)
    assert format(formatted) == formatted
    assert tree(formatted) == tree(text)
    assert sorted(comment.text for comment in tree(formatted).comments) == sorted(
        comment.text for comment in tree(text).comments
    )
    assert not re.search(r"[ \t]\n|\n\n\n", formatted)
    return formatted


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_specs_are_canonical(path: Path):
    text = path.read_text("utf-8")
    assert check(text) == text


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_line_breaks_do_not_count(path: Path):
    """Continuations may be joined or broken anew: breaking after every comma in brackets gives the same form."""
    text = "\n".join(line if "#" in line else line.replace(", ", ",\n") for line in path.read_text("utf-8").split("\n"))
    assert format(text) == format(path.read_text("utf-8"))


def test_layout():
    text = """use   std # why
block A[D,H,]( a=1 , # first
   b = 2):x[T,D]->[T,D]{ # header
  # lead
  up:Linear[D,H]


  longer : chain L of Linear[(H  3),D] # trail
  y=((up( x, # inner
     3)))
  # dangling
}
model M : -> [D] { sizes { A Bcd # cols
  r 10_000 2
  small 3 4 # row
  }
  return x[(A B) -> A*(B+2)], -(-x), not (a and b), (x |> f) |> g, (if a then b else c) + 1
}
train t { model = M.r
 data { a = 1, b = "x" } # after
 p { x = 1, # in p
   y = 2 } }
"""
    assert (
        check(text)
        == """use std  # why
# first
block A[D, H](a = 1, b = 2) : x[T, D] -> [T, D] {  # header
  # lead
  up : Linear[D, H]

  longer : chain L of Linear[(H 3), D]  # trail
  # inner
  y = up(x, 3)
  # dangling
}
model M : -> [D] {
  sizes {
           A       Bcd  # cols
    r      10_000  2
    small  3       4  # row
  }
  return x[(A B) -> A * (B + 2)], --x, not (a and b), x |> f |> g, (if a then b else c) + 1
}
train t {
  model = M.r
  data { a = 1, b = "x" }  # after
  p {
    x = 1  # in p
    y = 2
  }
}
"""
    )


def test_long_lines_are_broken():
    names = ", ".join(f"argument_{index}" for index in range(20))
    pipe = " |> ".join(f"stage_{index}(x, y)" for index in range(12))
    total = " + ".join(f"term_{index} * x" for index in range(16))
    lines = (f"fn f({names}) {{", f"a = g({names})", f"b = {pipe}", f"c = {total}", f"return ({total}) * 2", "}")
    text = "\n".join(lines)
    formatted = check(text)
    assert max(map(len, formatted.split("\n"))) <= 120


def test_errors_are_raised_not_formatted():
    with pytest.raises(SpecError):
        format("block {")


def test_nothing():
    assert format("") == ""
    assert format("\n\n") == ""
    assert format("# only\n") == "# only\n"


# ---- generated texts

NAMES = st.sampled_from(["x", "y", "D", "ln1", "gain", "a_rather_long_name", "next", "dim"])
EXPRESSIONS = st.recursive(
    st.one_of(NAMES, st.sampled_from(["1", "2.5e-3", "1_000", "80 GiB", "true", "none", '"a\\"b"'])),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["+", "-", "*", "/", "%", "^", "<", "and", "or"]), inner),
        st.builds("(-{})".format, inner),
        st.builds("(not {})".format, inner),
        st.builds("(if {} then {} else {})".format, inner, inner, inner),
        st.builds("({} |> {})".format, inner, NAMES),
        st.builds("{}({}, p = {})".format, NAMES, inner, inner),
        st.builds("({})[T -> (A {}), D = {}]".format, inner, NAMES, inner),
        st.builds("({}).b".format, inner),
        st.builds("[{}, {}]".format, inner, inner),
    ),
    max_leaves=25,
)
COMMENTS = st.sampled_from(["", "", "", "  # note", "\n  # own line", "\n\n  ## two\n"])
STATEMENTS = st.one_of(
    st.builds("{} = {}".format, st.just("v"), EXPRESSIONS),
    st.builds("p : Linear[D, {}]({})".format, NAMES, EXPRESSIONS),
    st.builds("param w[D] ~ {}".format, EXPRESSIONS),
    st.builds("return {}, {}".format, EXPRESSIONS, EXPRESSIONS),
)


@st.composite
def bodies(draw: st.DrawFn) -> str:
    lines = draw(st.lists(st.tuples(STATEMENTS, COMMENTS), max_size=6))
    inside = "".join(f"  {statement}{comment}\n" for statement, comment in lines)
    value = draw(EXPRESSIONS)
    return f"block A[D] : x[D] -> [D] {{\n{inside}}}\nfn f(x) = {value}\ntrain t {{ a = {value} }}\n"


@settings(max_examples=120, deadline=None)
@given(bodies())
def test_generated_texts(text: str):
    check(text)
