"""Entries E08, weight maps. See catalogue.py. Bad and mended specs are one map with a line changed."""

from .entry import Entry

_LINES: tuple[str, ...] = (
    "use std",
    "",
    "model Pair : x[D] -> [F] {",
    "  sizes {",
    "       D  F",
    "    s  4  6",
    "  }",
    "  a : Linear[D, D]",
    "  b : Linear[D, F](bias = false)",
    "  return b(a(x))",
    "}",
    "",
    'weights Pair "org/pair" {',
    '  "a.weight"[O, I] = a.w',
    '  "a.bias"[O]      = a.b',
    '  "b.weight"[F, D] = b.w',
    "}",
)


def _map(old: str = "", new: str = "") -> str:
    """The spec with some text of it changed."""
    text = "\n".join(_LINES) + "\n"
    assert old in text, f"{old} stands in the spec"
    return text.replace(old, new)


ENTRIES: tuple[Entry, ...] = (
    Entry(
        code="E0800",
        title="no weight map",
        what="The model has no map from its parameters to the tensors of others, or none that could be extended.",
        why='Declare one beside the model: weights Name "org/name" { … }.',
        bad=_map('"org/pair" {', '"org/pair" extends Pear {'),
        mended=_map(),
    ),
    Entry(
        code="E0801",
        title="a path that names no parameter",
        what="A step of the path is no instance, layer, member, parameter or state of what stands before it.",
        why="layers[l] is a layer of a chain, experts[e] a member of a bank; a path ends at a parameter or at a state "
        "of the model's own. What a `when` leaves out needs no tensor, unless it shares one with others.",
        bad=_map("= b.w", "= b.weight"),
        mended=_map(),
    ),
    Entry(
        code="E0802",
        title="a layout that does not fit",
        what="The axes of the layout are not those of the parameter.",
        why="Every axis of the parameter stands in the layout once, under the name that its owner or a block around it "
        "has for it. Both axes of a square matrix have one name outside, so the owner's names must tell them apart.",
        bad=_map('"a.weight"[O, I]', '"a.weight"[D, D]'),
        mended=_map(),
    ),
    Entry(
        code="E0803",
        title="mapped twice",
        what="Two entries map the same parameter or state, the same tensor, or set the same key.",
        why="A parameter is read from one place. Another name of theirs for the same tensor is `tied`.",
        bad=_map("= a.b\n", '= a.b\n  "c.weight"[F, D] = b.w\n'),
        mended=_map("= a.b\n", '= a.b\n  tied "c.weight"[F, D] = b.w\n'),
    ),
    Entry(
        code="E0804",
        title="a parameter without a tensor",
        what="The map does not say where a parameter, or a part of it, comes from; or it does for a part of a state.",
        why="A parameter that is not read would silently stay as it was drawn. A state may be left out as a whole: it "
        "begins as declared.",
        bad=_map('  "a.bias"[O]      = a.b\n'),
        mended=_map(),
    ),
    Entry(
        code="E0805",
        title="no value of a configuration",
        what="A configuration holds numbers, texts, true, false, none, lists of them and sections.",
        why="It is written as JSON for others to read.",
        bad=_map("= a.b\n", "= a.b\n  config { hidden_act = gelu }\n"),
        mended=_map("= a.b\n", '= a.b\n  config { hidden_act = "gelu" }\n'),
    ),
)
