"""The parser: its trees, its agreement with lark, its bounds on any text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark import Lark, Token, Tree
from partita.compiler.base.diagnostic import SpecError, render_all
from partita.compiler.base.span import Source
from partita.compiler.language import syntax as s
from partita.compiler.language.machine import MAX_DEPTH
from partita.compiler.language.parse import MAX_CHARACTERS, MAX_ERRORS, parse, parse_or_raise, read_source
from partita.compiler.language.tables import GRAMMAR

ROOT = Path(__file__).resolve().parents[3]
SPECS = sorted(path for path in (ROOT / "specs").rglob("*.partita") if path.parent.name != "invalid")
GPT2 = (ROOT / "specs/models/gpt2.partita").read_text("utf-8")
STATEMENTS = ["y = x + 1", "a : Linear[D, (H K)](bias = false) when deep", "return y", "dim M = K / 2", "next h = y"]


def tree(text: str) -> s.File:
    return parse_or_raise(Source("test", text))


def only(text: str, kind: type) -> s.Node:
    found = [node for node in s.walk(tree(text)) if isinstance(node, kind)]
    return found[0]


def depth(node: s.Node) -> int:
    level, deepest = [node], 0
    while level:
        level, deepest = [child for parent in level for child in s.children(parent)], deepest + 1
    return deepest


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_specs_parse(path: Path):
    parsed = parse(read_source(path))
    assert not parsed.diagnostics, render_all(parsed.diagnostics)
    for node in s.walk(parsed.file):
        assert 0 <= node.span.start <= node.span.end <= len(node.span.source.text)
        for child in s.children(node):
            assert node.span.start <= child.span.start <= child.span.end <= node.span.end


def test_precedence():
    value = only("fn f(a, b) = -a ^ 2 + b * 3 < 4 and not a or b", s.Fn)
    assert isinstance(value, s.Fn)
    outer = value.body
    assert isinstance(outer, s.BoolOp)
    assert outer.op == "or"
    conj = outer.left
    assert isinstance(conj, s.BoolOp)
    assert isinstance(conj.left, s.Compare)
    total = conj.left.left
    assert isinstance(total, s.Binary)
    assert isinstance(total.left, s.Unary)
    assert isinstance(total.left.operand, s.Binary)
    assert total.left.operand.op == "^"
    assert total.op_span.text == "+"


def test_everything_of_an_instance():
    node = only(
        "block A[D] : x[D] -> [D] {\n  b : chain l in L of q.B[D, G = 2 * D](x, p = 1) when deep\n}", s.Instance
    )
    assert isinstance(node, s.Instance)
    assert node.repeat is not None
    assert (node.repeat.kind, str(node.repeat.index)) == ("chain", "l")
    assert node.constructor.name.text == "q.B"
    assert [type(item) for item in node.constructor.dims] == [s.DimRef, s.DimBind]
    assert [type(item) for item in node.constructor.args] == [s.Ref, s.KwArg]
    assert isinstance(node.condition, s.Ref)


def test_brackets_written_and_not_written_differ():
    fn = only("fn f(a, b[], c[D]) -> [] = a", s.Fn)
    assert isinstance(fn, s.Fn)
    assert [option.dims if option.dims is None else len(option.dims) for option in fn.options] == [None, 0, 1]


def test_words_of_the_language_are_names_where_they_can_be():
    parsed = parse(Source("test", "train t {\n  dim = next(tokens)\n  state { of = 8 }\n}\n"))
    assert parsed.diagnostics == ()


def test_newlines_end_statements_or_do_not():
    text = "block A[D] : x[D] -> [D] {\n  y = x\n    + 1 +\n    2\n  z = f(y,\n\n    3)\n  # end\n\n  return z\n}\n"
    block = tree(text).declarations[0]
    assert isinstance(block, s.Block)
    assert [type(statement) for statement in block.body.statements] == [s.Assign, s.Assign, s.Return]


def test_labels_numbers_units_strings():
    record = tree('train t {\n  a = M.0.5B\n  b = 32_768 ktokens\n  "c.*" = "x\\"\\n"\n  d = 1e-5\n}').declarations[0]
    assert isinstance(record, s.Record)
    member, number, string, small = (entry.value for entry in record.entries if isinstance(entry, s.RecordSet))
    assert isinstance(member, s.Member)
    assert member.name.text == "0.5B"
    assert isinstance(number, s.Number)
    assert (number.value, number.unit) == (32768, "ktokens")
    assert isinstance(string, s.String)
    assert string.value == 'x"\n'
    assert isinstance(small, s.Number)
    assert small.value == 1e-5


# ---- lark is the oracle: on a text without errors it finds the same tokens and the same shape


class _Newlines:
    """language.md's filter, for lark's own parser; brackets and continuing tokens only."""

    always_accept = ("_NL",)

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        nesting, last = 0, ""
        for token in stream:
            nesting += {"(": 1, "[": 1, ")": -1, "]": -1}.get(str(token), 0)
            ended = last.endswith(tuple(",+-*/%^=<>~:")) or last in ("and", "or", "not", "then", "else")
            if token.type == "_NL" and (nesting or ended):
                continue
            last = str(token)
            yield token


@pytest.fixture(scope="module")
def lark() -> Lark:
    return Lark(GRAMMAR.read_text("utf-8"), parser="lalr", strict=True, postlex=_Newlines(), maybe_placeholders=True)


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_agrees_with_lark(path: Path, lark: Lark):
    theirs = lark.parse(path.read_text("utf-8").rstrip() + "\n")
    words = [str(leaf) for leaf in theirs.scan_values(lambda value: isinstance(value, Token))]
    wanted = {
        "param",
        "binop",
        "dim_binop",
        "call",
        "view",
        "inst",
        "rset",
        "wmap",
        "wtied",
        "ref",
        "dim_ref",
        "number",
    }
    counts = {name: len(list(theirs.find_data(name))) for name in wanted}
    ours = list(s.walk(parse_or_raise(read_source(path))))

    def count(*kinds: type) -> int:
        return sum(isinstance(node, kinds) for node in ours)

    cells = [cell for node in ours if isinstance(node, s.SizeRow) for cell in node.cells]
    assert isinstance(theirs, Tree)
    assert counts["call"] == count(s.Call)
    assert counts["view"] == count(s.View)
    assert counts["param"] == count(s.Param)
    assert counts["inst"] == count(s.Instance)
    assert counts["rset"] == count(s.RecordSet)
    assert counts["wmap"] + counts["wtied"] == count(s.WeightMap)
    assert counts["dim_ref"] == count(s.DimRef)
    assert counts["binop"] == sum(isinstance(node, s.Binary) and node.op != "^" for node in ours)
    assert counts["dim_binop"] == count(s.DimBinary)
    assert counts["ref"] == count(s.Ref) - sum(isinstance(cell, s.Ref) for cell in cells)
    assert counts["number"] == count(s.Number) - sum(isinstance(cell, s.Number) for cell in cells)
    names = {node.name for node in ours if isinstance(node, s.Ref | s.DimRef)}
    assert names <= set(words)


# ---- recovery


def test_several_errors_in_one_run():
    text = (
        "block A[D] : x[D] -> [D] {\n  y = x x\n  z = )\n  w = @\n  return y\n}\n\n"
        "block B[D : x[D] -> [D] {\n  return x\n}\n\nblock C[D] : x[D] -> [D] {\n  return 1 1\n}\n"
    )
    found = parse(Source("test", text)).diagnostics
    assert [item.code for item in found] == ["E0003", "E0001", "E0005", "E0001", "E0003"]
    assert [item.span.line for item in found if item.span] == [2, 3, 4, 8, 13]


def test_what_could_be_read_is_there():
    text = "block A[D] : x[D] -> [D] {\n  y = x x\n  return y\n}\n\nfn f(x) = x\n"
    names = [getattr(node, "name", None) for node in parse(Source("test", text)).file.declarations]
    assert [str(name) for name in names] == ["A", "f"]


def test_a_declaration_inside_an_open_body_is_a_missing_brace():
    text = "block A[D] : x[D] -> [D] {\n  return x\n\nblock B[D] : x[D] -> [D] {\n  return x\n}\n"
    (found,) = parse(Source("test", text)).diagnostics
    assert found.code == "E0007"
    assert [label.span.line for label in found.labels] == [1, 4]


@pytest.mark.parametrize("line", [line for line in GPT2.splitlines() if line.endswith(" {")])
def test_a_missing_brace_is_one_error(line: str):
    (found,) = parse(Source("test", GPT2.replace(line, line.removesuffix(" {"), 1))).diagnostics
    assert "`{`" in found.title
    assert found.span and found.span.line == GPT2.splitlines().index(line) + 1


# ---- any text gives a tree or diagnostics, in bounded depth


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A spec with pieces cut out, doubled, or replaced."""
    text = draw(st.sampled_from([GPT2, *(path.read_text("utf-8") for path in SPECS[:6])]))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 12))
        piece = draw(
            st.sampled_from(
                ["", "{", "}", "(", ")", "[", "]", '"', "\n", ",", "=", " x ", "@", "\x00", "->", "9" * 40, "é"]
            )
        )
        text = text[:at] + piece + text[at + length :]
    return text


def check_total(text: str) -> None:
    parsed = parse(Source("test", text))
    assert len(parsed.diagnostics) <= MAX_ERRORS
    assert depth(parsed.file) <= MAX_DEPTH + 5
    assert render_all(parsed.diagnostics) or not parsed.diagnostics
    for item in parsed.diagnostics:
        assert item.span is not None
        assert 0 <= item.span.start <= item.span.end <= len(text) + 1


@settings(max_examples=150, deadline=None)
@given(mutated())
def test_mutated_specs_give_diagnostics(text: str):
    check_total(text)


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=80)
    | st.lists(
        st.sampled_from([*'{}()[],=:\n1xD"#~', "->", "|>", "if", "then", "else", "and", "not", "fn", "block", "model"]),
        max_size=60,
    ).map(" ".join)
)
def test_random_text_gives_diagnostics(text: str):
    check_total(text)


HOSTILE = {
    "parentheses": "fn f(x) = " + "(" * 90_000,
    "braces": "{" * 90_000,
    "negations": "fn f(x) = " + "-" * 90_000 + "x",
    "a long sum": "fn f(x) = x" + " + x" * 20_000,
    "long calls": "fn f(x) = x" + "(x)" * 20_000,
    "views": "fn f(x) = x" + "[T]" * 20_000,
    "conditions": "fn f(x) = " + "if x then " * 9_000,
    "dims": "fn f(x) = x[" + "(D " * 20_000,
    "records": "train t {" + "a {" * 20_000,
    "newlines": "\n" * 90_000 + "+",
    "quotes": '"' * 90_000,
    "a long number": "fn f(x) = " + "9" * 90_000,
    "errors": "block A : x -> [D] {\n" + "x y\n" * 20_000,
    "blocks": "block a\n" * 12_000,
    "too long": "\n" * (MAX_CHARACTERS + 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text(name: str):
    check_total(HOSTILE[name])
    assert parse(Source("test", HOSTILE[name])).diagnostics


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "bytes.partita").write_bytes(b"use \xff\xfe")
    for path, code in (("bytes.partita", "E0011"), ("missing.partita", "E0012"), (".", "E0012")):
        with pytest.raises(SpecError) as caught:
            read_source(tmp_path / path)
        assert caught.value.diagnostics[0].code == code


@pytest.mark.parametrize("statement", STATEMENTS)
def test_nodes_compare_by_what_they_say(statement: str):
    one = tree("block A[D] : x[D] -> [D] {\n  " + statement + "\n}\n")
    two = tree("\n# moved\nblock  A[ D ] : x[D]\n -> [D] {\n\n    " + statement + "   # comment\n}\n")
    assert one == two
    assert hash(one) == hash(two)
