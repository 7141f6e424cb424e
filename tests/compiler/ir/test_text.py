"""The text form: what is printed reads back as the same graph; what is no graph gives one diagnostic with its place."""

from __future__ import annotations

import pytest
from generators.graphs import graphs
from hypothesis import given, settings
from hypothesis import strategies as st
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.layout import Layout, Reduction
from partita.compiler.ir.text import parse_graph, print_graph
from partita.compiler.ir.types import Attr, Dim, DType, Layer, Node, Origin, Phase, TensorType

TINY = """graph tiny {
  microbatches 2
  dims batch = 4, T = ?, D = 8
  x = input() : f32[batch, T, D] {name, below = none, dims, dtype} @forward from a.partita:3
  blocks.0.h = add(x[batch, T, D], x[batch, T, D]) : f32[batch, T, D] @forward layer(blocks, 0) path(blocks.0)
  output h = blocks.0.h[batch, T, D]
}
"""


def test_it_prints_as_it_was_written() -> None:
    assert print_graph(parse_graph(TINY)) == TINY


@settings(max_examples=60)
@given(graphs())
def test_random_graphs_read_back(graph: Graph) -> None:
    assert parse_graph(print_graph(graph)) == graph


_names = st.text(min_size=1, max_size=6)
_dims = st.builds(Dim, st.sampled_from(["A", "f32", "none", "a b", "blocks.K", "é"]), st.just(3))
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _names, st.sampled_from(DType), _dims
)
_attrs = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


@given(_names, st.dictionaries(_names, _attrs, max_size=4), _names, st.sampled_from(Phase), st.none() | _names)
def test_any_name_and_attribute_reads_back(
    name: str, attrs: dict[str, Attr], path: str, phase: Phase, body: str | None
) -> None:
    out = TensorType((Dim("T", None), Dim("A", 3)), DType.BF16)
    origin = (Origin(name, 3), Origin("std/x.partita", 0))
    builder = GraphBuilder(name)
    node = builder.add(Node(name, path, (), (out, out), attrs, phase, body, path, Layer(path, 2), origin))
    builder.add(Node(f"{name}!", name, (node.out(1), node.out(0)), ()))
    builder.output(path, node.out(1))
    graph = builder.finish()
    back = parse_graph(print_graph(graph))
    assert back == graph
    assert [type(value) for value in back[name].attrs.values()] == [type(value) for value in attrs.values()]


def test_a_bare_key_says_what_the_line_says() -> None:
    long = TINY.replace(
        "{name, below = none, dims, dtype}", '{name = "x", below = none, dims = (batch, T, D), dtype = f32}'
    )
    assert parse_graph(long) == parse_graph(TINY)
    other = TINY.replace("{name, below = none, dims, dtype}", '{name = "port", below = none, dims = (D,), dtype = i64}')
    assert parse_graph(other) != parse_graph(TINY) and print_graph(parse_graph(other)) == other


BROKEN = {
    "nothing": "",
    "no brace": "graph tiny",
    "unknown operand": TINY.replace("add(x", "add(y"),
    "unknown dim": TINY.replace("add(x[batch, T", "add(x[batch, S"),
    "unknown phase": TINY.replace("@forward layer", "@foreward layer"),
    "unknown dtype": TINY.replace(": f32[batch, T, D] @", ": f33[batch, T, D] @"),
    "node twice": TINY.replace("blocks.0.h = add", "x = add"),
    "no such result": TINY.replace("add(x[", "add(x:1["),
    "more after": TINY + "graph",
    "stray character": TINY.replace("@forward", "%forward"),
    "huge number": TINY.replace("D = 8", "D = " + "9" * 5000),
    "deep tuple": TINY.replace("below = none", "below = " + "(" * 5000),
    "deep bodies": "graph a {\nbody b = " * 500,
    "bad escape": TINY.replace("{name", '{name = "\\q"'),
    "bare key": TINY.replace("below = none", "below"),
    "cut short": TINY[:200],
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_graph_is_a_diagnostic(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_graph(text)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E0901" and diagnostic.labels


def test_a_misspelt_operand_is_hinted_at() -> None:
    with pytest.raises(SpecError, match=r"did you mean `blocks\.0\.h`"):
        parse_graph(TINY.replace("output h = blocks.0.h", "output h = blocks.0.g"))


@given(st.integers(0, len(TINY)), st.integers(0, 12), st.text(max_size=4))
def test_damaged_text_never_ends_in_a_traceback(at: int, length: int, put: str) -> None:
    try:
        parse_graph(TINY[:at] + put + TINY[at + length :])
    except SpecError as error:
        assert str(error)


def test_layouts_read_back() -> None:
    batch, d = Dim("batch", 4), Dim("f32", 6)
    out = TensorType((batch, d), DType.F32)
    layouts = (Layout((("data",), ())), Layout(((), ("data", "a b")), (("tensor", Reduction.LSE),)))
    builder = GraphBuilder("laid")
    builder.add(Node("x", "f", (), (out, out), origin=(Origin("a.partita", 3),), layouts=layouts))
    graph = builder.finish()
    assert 'layout([batch: data], [f32: data "a b"] lse tensor)' in print_graph(graph)
    assert parse_graph(print_graph(graph)) == graph
