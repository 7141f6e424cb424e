"""The rules of the picture, as properties of what is drawn and of its DOT source."""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path

import pytest
from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType, Node, Phase, TensorType
from partita.compiler.passes.differentiate import Differentiate
from partita.compiler.passes.offsets import Offsets
from partita.tools.describe import computes, own_name, short_name
from partita.tools.fold import fold
from partita.tools.lettering import width_pt
from partita.tools.picture import ABREAST, Kind, instances, picture
from partita.tools.render import draw, to_dot
from samples.small_gpt import small_gpt

NODE_LINE = re.compile(r'^\s*("(?:[^"\\]|\\.)*"|[\w.]+) \[label=<')
NAME = r'("(?:[^"\\]|\\.)*"|[\w.]+)'
DASHED = r'(?: \[color="#\w+" (?:constraint=false )?penwidth=[\d.]+ style=dashed\])?'
EDGE_LINE = re.compile(rf"^\s*{NAME}:box -> {NAME}:box{DASHED}\s*$")


def node_lines(dot: str) -> list[str]:
    return [line for line in dot.splitlines() if NODE_LINE.match(line) and not line.strip().startswith("graph")]


def node_ids(dot: str) -> list[str]:
    found = [NODE_LINE.match(line) for line in node_lines(dot)]
    return [match[1].strip('"') for match in found if match]


def edges(dot: str) -> list[tuple[str, str]]:
    found = [EDGE_LINE.match(line) for line in dot.splitlines() if "->" in line and "style=invis" not in line]
    assert all(found), "an edge carries more than its two ends"
    return [(match[1].strip('"'), match[2].strip('"')) for match in found if match]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return small_gpt()


def test_each_node_is_drawn_once(graph: Graph) -> None:
    assert Counter(node_ids(to_dot(picture(graph)))) == Counter(node.id for node in graph)


def test_each_operand_is_one_unlabelled_directed_edge(graph: Graph) -> None:
    assert Counter(edges(to_dot(picture(graph)))) == Counter((u.node, n.id) for n in graph for u in n.uses)


def test_the_name_stands_outside_the_box(graph: Graph) -> None:
    named = 0
    for line in node_lines(to_dot(picture(graph))):
        inside, *outside = re.findall(r"<TD[^>]*>(.*?)</TD>", line)
        boxed, *bare = re.findall(r"<TD[^>]*>", line)
        assert len(bare) <= 1 and 'BORDER="' in boxed and all("BORDER" not in cell for cell in bare)
        assert "<B>" not in inside
        named += any("<B>" in cell for cell in outside)
    assert named == sum(bool(box.name) for box in picture(graph).boxes) > 20


def test_a_name_that_nobody_gave_is_not_told(graph: Graph) -> None:
    names = {box.key: box.name for box in picture(graph).boxes}
    assert names["blocks.0.attn.o.dot"] == "" and names["blocks.0.attn.q.w"] == "w" and names["blocks.0.h"] == "h"
    out = TensorType((), DType.F32)
    assert [own_name(Node(name, op, (), (out,))) for name, op in (("add.12", "add"), ("const.1", "constant"))] == [
        "",
        "",
    ]


def test_every_kind_has_its_box(graph: Graph) -> None:
    boxes = {box.key: box for box in picture(graph).boxes}
    assert boxes["blocks.0.attn.q.w"].kind is Kind.PARAMETER
    assert boxes["blocks.0.attn.q.b"].inside == "parameter = zeros"
    assert boxes["share"].inside == "0.0625"
    assert boxes["target"].inside == "label, ids in V"
    assert boxes["tokens"].inside == "input, ids in V"
    assert boxes["loss"].kind is Kind.OUTPUT
    assert boxes["blocks.1.h"].name == "h"


def test_what_nodes_compute(graph: Graph) -> None:
    said = {node.id: computes(node) for node in graph}
    assert said["blocks.0.attn.o.dot"] == "dot over H R K"
    assert said["x"] == "+"
    assert said["blocks.0.attn.attention"] == "attention, causal"
    assert said["loss"] == "×"
    assert not [words for words in said.values() if "_" in words]
    assert short_name("blocks.0.attn.q.w", "blocks.0.attn") == "q.w"


def test_frames_follow_the_blocks(graph: Graph) -> None:
    labels = [frame.label for frame in picture(graph).frames]
    assert labels[:5] == ["wte", "wpe", "blocks.0", "ln1", "attn"]
    assert instances("blocks.0.attn.q") == ("blocks.0", "attn", "q")


def test_the_same_graph_gives_the_same_text(graph: Graph) -> None:
    assert to_dot(picture(graph)) == to_dot(picture(small_gpt()))
    assert to_dot(fold(graph)) == to_dot(fold(small_gpt()))


@pytest.mark.parametrize("layers", [1, 2, 12])
def test_a_folded_chain_is_drawn_once(layers: int) -> None:
    drawn = fold(small_gpt(layers))
    names = [box.name for box in drawn.boxes if box.frame]
    assert names == ["ln1", "attn", "h", "ln2", "mlp", "y"]
    assert [frame.label for frame in drawn.frames] == [f"blocks ×{layers}"]
    assert len(node_ids(to_dot(drawn))) == len(drawn.boxes) == len({box.key for box in drawn.boxes})


def test_folded_arrows_have_no_cycle_and_join_the_boxes(graph: Graph) -> None:
    drawn = fold(graph)
    order = {box.key: index for index, box in enumerate(drawn.boxes)}
    assert all(tail in order and head in order for tail, head in drawn.arrows)
    assert len(set(drawn.arrows)) == len(drawn.arrows)
    reached = {head for _, head in drawn.arrows} | {tail for tail, _ in drawn.arrows}
    assert reached == set(order)


def test_starts_that_are_known_are_not_drawn() -> None:
    t, one = Dim("T", 4), TensorType((), DType.I64)
    builder = GraphBuilder("g")
    start = builder.add(Node("start.T", "start", (), (one,), {"dim": t}, Phase.PREPARE))
    index = TensorType((t,), DType.I64)
    builder.add(Node("index", "index", (start.out(),), (index,), {"dim": t}))
    graph = builder.finish()
    assert [box.inside for box in picture(graph).boxes] == ["start of T", "index of T"]
    known = Offsets()(graph)
    for drawn in (picture(known), fold(known)):
        assert [box.inside for box in drawn.boxes] == ["index of T"] and not drawn.arrows


def test_a_box_that_stands_for_many_tells_the_telling() -> None:
    drawn = {box.name: box.inside for box in fold(small_gpt()).boxes}
    assert drawn["attn"] == "3 × dot · attention, causal · dot"
    assert drawn["mlp"].startswith("dot · gelu") and drawn["mlp"].endswith("· dot")
    assert drawn["ln1"] == "layer norm" and drawn["h"] == "+"


def test_an_svg_holds_the_words_in_the_middle_of_boxes_wide_enough(tmp_path: Path, graph: Graph) -> None:
    path = tmp_path / "graph.svg"
    draw(to_dot(fold(graph)), path)
    found = re.findall(
        r'd="M([^"]*)"[^>]*/>\s*<text [^>]*text-anchor="middle" x="([\d.]+)"[^>]*>([^<]*)<', path.read_text()
    )
    assert len(found) > 10
    for shape, middle, words in found:
        across = [float(x) for x in re.findall(r"(-?[\d.]+),-", shape)]
        assert abs((min(across) + max(across)) / 2 - float(middle)) < 0.1
        assert max(across) - min(across) >= width_pt(html.unescape(words).replace("\xa0", " "), 11)
    assert 'font-family="Arial"' not in path.read_text()


def test_hostile_names_are_text() -> None:
    builder = GraphBuilder('a<b>&"')
    out = TensorType((Dim("T<", 2),), DType.F32)
    node = builder.add(Node('x<&">:y', "input", (), (out,), {"name": "x"}))
    builder.add(Node("y\\", "exp", (node.out(),), (out,)))
    dot = to_dot(picture(builder.finish()))
    assert "<b>" not in dot.split("\n", 1)[1] and "x&lt;&amp;&quot;&gt;" in dot


def test_phases_are_coloured_and_framed() -> None:
    builder = GraphBuilder("step")
    out = TensorType((Dim("D", 2),), DType.F32)
    w = builder.add(Node("w", "parameter", (), (out,), {"init": ("zeros",)}, Phase.PREPARE))
    y = builder.add(Node("y", "exp", (w.out(),), (out,)))
    g = builder.add(Node("g", "mul", (y.out(), y.out()), (out,), phase=Phase.BACKWARD))
    builder.add(Node("u", "assign", (g.out(),), (), {"target": "w"}, Phase.UPDATE))
    drawn = picture(builder.finish())
    assert [frame.label for frame in drawn.frames] == ["forward", "backward", "update"]
    dot = to_dot(drawn)
    assert (
        all(phase in dot for phase in ("prepare", "forward", "backward", "update"))
        and edges(dot).count(("y", "g")) == 2
    )


def test_a_whole_step_stands_in_columns_and_its_updates_in_rows() -> None:
    builder = GraphBuilder("step")
    out, count = TensorType((Dim("D", 2),), DType.F32), 2 * ABREAST
    for index in range(count):
        attrs = {"init": ("zeros",), "of": f"w{index}", "role": "m"}
        state = builder.add(Node(f"m{index}", "state", (), (out,), attrs, Phase.PREPARE))
        builder.add(Node(f"u{index}", "assign", (state.out(),), (), {"target": f"w{index}"}, Phase.UPDATE))
    drawn = picture(builder.finish())
    assert drawn.below == tuple((f"u{index}", f"m{index + ABREAST}") for index in range(count - ABREAST))
    dot = to_dot(drawn)
    assert dot.count("style=invis") == ABREAST and len(edges("\n".join(node_lines(dot)))) == 0


def test_layers_stand_below_each_other(graph: Graph) -> None:
    below = picture(graph).below
    leaves = [node.id for node in graph if node.layer is not None and node.layer.index == 1 and not node.uses]
    assert below == tuple(("blocks.0.y", leaf) for leaf in leaves) and len(below) > 10


def test_a_whole_step_has_whole_names_and_no_frames_but_phases() -> None:
    drawn = picture(Differentiate()(small_gpt()))
    names = {box.key: box.name for box in drawn.boxes}
    assert names["blocks.0.attn.q.w"] == "blocks.0.attn.q.w" and names["blocks.0.attn.o.dot"] == ""
    assert {frame.label for frame in drawn.frames} <= {"prepare", "forward", "backward"}


@pytest.mark.parametrize("kind", ["svg", "png", "dot"])
def test_it_is_drawn(kind: str, tmp_path: Path, graph: Graph) -> None:
    path = tmp_path / f"graph.{kind}"
    draw(to_dot(fold(graph)), path)
    head = path.read_bytes()
    assert {"svg": b"<svg", "png": b"PNG", "dot": b"digraph"}[kind] in head
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
