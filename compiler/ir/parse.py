"""Reads the text form of a graph: bounded, and with one clear diagnostic where the text is not a graph.

In: text as `print_graph` writes it, by hand or by a tool. Out: the graph. A statement is a line; `#` begins a comment.
The reader only checks that the text can be a graph at all (names exist, once each); `verify` says whether it is sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..base.diagnostic import Diagnostic, SpecError, did_you_mean
from ..base.span import Source
from .graph import Graph, GraphBuilder
from .layout import Axes, Layout, Reduction
from .tokens import Cursor, tokens
from .types import Attr, Dim, Dims, DType, Layer, Node, Origin, Phase, Runs, TensorType, Use

MAX_CHARACTERS = 1 << 28
MAX_DEPTH = 32  # of bodies in bodies, of tuples in tuples

_DTYPES = MappingProxyType({dtype.value: dtype for dtype in DType})
_PHASES = MappingProxyType({phase.value: phase for phase in Phase})
_REDUCTIONS = MappingProxyType({how.value: how for how in Reduction})
_WORDS: Mapping[str, Attr] = MappingProxyType(
    {"true": True, "false": False, "none": None, "inf": float("inf"), "nan": float("nan")}
)


def parse_graph(text: str, path: str = "<graph>") -> Graph:
    """The graph that the text describes; raises SpecError (E0901) with the place where it describes none."""
    source = Source(path, text)
    if len(text) > MAX_CHARACTERS:
        raise SpecError(Diagnostic("E0901", f"{path} is too long for a graph: {len(text)} characters"))
    reader = _Reader(source, list(tokens(source)))
    reader.skip_lines()
    graph = reader.graph(0)
    reader.skip_lines()
    if reader.kind != "end":
        reader.fail("the text goes on after the graph")
    return graph


def said_already(name: str, outs: tuple[TensorType, ...]) -> Mapping[str, Attr]:
    """What the attributes of a leaf repeat, by key: its id, and the dims and dtype of its first result."""
    return {"name": name, "dims": outs[0].dims, "dtype": outs[0].dtype} if outs else {"name": name}


@dataclass
class _Reader(Cursor):
    """One method a construct."""

    sizes: dict[str, Dim] = field(default_factory=dict[str, Dim])
    dims_seen: dict[Dim, Dim] = field(default_factory=dict[Dim, Dim])

    # ---- the graph

    def graph(self, depth: int) -> Graph:
        """`graph NAME { statements }`."""
        if depth > MAX_DEPTH:
            self.fail(f"bodies in bodies deeper than {MAX_DEPTH}")
        self.take("graph")
        builder = GraphBuilder(self.name())
        outer, self.sizes = self.sizes, {}
        self.take("{")
        self.end_line()
        while not self.accept("}"):
            self.statement(builder, depth)
            self.end_line()
        self.sizes = outer
        return builder.finish()

    def statement(self, builder: GraphBuilder, depth: int) -> None:
        if self.kind == "string":
            self.node(builder)
        elif self.accept("microbatches"):
            builder.microbatches = self.integer(1)
        elif self.accept("dims"):
            self.table()
        elif self.accept("output"):
            name = self.name()
            self.take("=")
            builder.output(name, self.use(builder))
        elif self.accept("body"):
            key = self.name()
            self.take("=")
            builder.body(key, self.graph(depth + 1))
        else:
            self.node(builder)

    def table(self) -> None:
        """`dims batch = 4, T = ?`."""
        while True:
            name = self.name()
            self.take("=")
            self.sizes[name] = self.sized(name)
            if not self.accept(","):
                return

    def sized(self, name: str) -> Dim:
        """`4`, or `8 runs(E = 4, 2, batch)`."""
        size = self.size()
        for word in ("runs", "part"):
            if self.accept(word):
                return self.one_dim(Dim(name, size, self.runs(word == "part")))
        return self.one_dim(Dim(name, size))

    def runs(self, part: bool) -> Runs:
        self.take("(")
        by = self.name()
        self.take("=")
        found = Dim(by, self.size())
        self.take(",")
        each = self.integer()
        lists: list[str] = []
        while self.accept(","):
            lists.append(self.name())
        self.take(")")
        return Runs(found, each, tuple(lists), part)

    def size(self) -> int | None:
        return None if self.accept("?") else self.integer()

    def node(self, builder: GraphBuilder) -> None:
        """`ID = OP(uses) : types {attrs} body(KEY) @PHASE layer(CHAIN, I) path(PATH) host layout(…) from FILE:LINE`."""
        name = self.name()
        if name in builder:
            self.fail(f"the node {name} is here already", back=1)
        self.take("=")
        op = self.name()
        uses = tuple(self.sequence("(", ")", lambda: self.use(builder)))
        self.take(":")
        outs = self.types()
        attrs = self.attrs(said_already(name, outs)) if self.text == "{" else {}
        body = self.bracketed() if self.accept("body") else None
        self.take("@")
        phase = _PHASES.get(self.text)
        if phase is None:
            self.fail(f"no phase `{self.text}`", did_you_mean(self.text, _PHASES))
        self.at += 1
        layer = self.layer() if self.accept("layer") else None
        path = self.bracketed() if self.accept("path") else ""
        host = self.accept("host")
        layouts = tuple(self.layouts(outs)) if self.accept("layout") else ()
        origin = tuple(self.places()) if self.accept("from") else ()
        builder.add(Node(name, op, uses, outs, attrs, phase, body, path, layer, origin, layouts, host))

    def layer(self) -> Layer:
        self.take("(")
        chain = self.name()
        self.take(",")
        index = self.integer()
        self.take(")")
        return Layer(chain, index)

    def layouts(self, outs: tuple[TensorType, ...]) -> Iterator[Layout]:
        """`([batch: data, V: data tensor] sum context, …)`, one for each result."""
        self.take("(")
        for number, out in enumerate(outs):
            if number:
                self.take(",")
            cut = dict(self.sequence("[", "]", self.cut_dim))
            names = [d.name for d in out.dims]
            if not set(cut) <= set(names):
                self.fail("a layout cuts a dim that the result lacks", back=1)
            owed: list[tuple[str, Reduction]] = []
            while self.text in _REDUCTIONS:
                self.at += 1
                owed.append((self.name(), _REDUCTIONS[self.tokens[self.at - 2].text]))
            yield Layout(tuple(cut.get(name, ()) for name in names), tuple(owed))
        self.take(")")

    def cut_dim(self) -> tuple[str, Axes]:
        """`V: data tensor`."""
        name = self.name()
        self.take(":")
        axes: list[str] = []
        while self.kind in ("name", "string"):
            axes.append(self.name())
        return name, tuple(axes)

    def places(self) -> Iterator[Origin]:
        while True:
            file = self.name()
            self.take(":")
            yield Origin(file, self.integer())
            if not self.accept(","):
                return

    # ---- values

    def use(self, builder: GraphBuilder) -> Use:
        """`NODE:OUTPUT[dims] as DTYPE`; the output is 0 and the dtype the producer's where they are not written."""
        name = self.name()
        if name not in builder:
            self.fail(f"no node `{name}` before this line", did_you_mean(name, [n.id for n in builder]), back=1)
        output = self.integer() if self.accept(":") else 0
        dims = self.dim_list()
        if self.accept("as"):
            return Use(name, output, dims, self.dtype())
        outs = builder[name].outs
        if output >= len(outs):
            self.fail(f"`{name}` has {len(outs)} results, not {output + 1}")
        return Use(name, output, dims, outs[output].dtype)

    def dtype(self) -> DType:
        if self.text not in _DTYPES:
            self.fail(f"no dtype `{self.text}`", did_you_mean(self.text, _DTYPES))
        self.at += 1
        return _DTYPES[self.tokens[self.at - 1].text]

    def types(self) -> tuple[TensorType, ...]:
        """`f32[batch, T], i64[]`, or `()` for none."""
        if self.accept("("):
            self.take(")")
            return ()
        found = [TensorType(dtype=self.dtype(), dims=self.dim_list())]
        while self.accept(","):
            found.append(TensorType(dtype=self.dtype(), dims=self.dim_list()))
        return tuple(found)

    def dim_list(self) -> Dims:
        return tuple(self.sequence("[", "]", self.dim))

    def dim(self) -> Dim:
        """A name whose size stands in the table, or `NAME = SIZE`."""
        name = self.name()
        if self.accept("="):
            return self.sized(name)
        if name not in self.sizes:
            self.fail(f"no dim `{name}` in the table", did_you_mean(name, self.sizes), back=1)
        return self.sizes[name]

    def one_dim(self, dim: Dim) -> Dim:
        return self.dims_seen.setdefault(dim, dim)

    def attrs(self, said: Mapping[str, Attr]) -> dict[str, Attr]:
        """`{key = value, …}`; a bare key has the value that the line says already."""

        def pair() -> tuple[str, Attr]:
            key = self.name()
            if self.text in (",", "}") and key in said:
                return key, said[key]
            self.take("=")
            return key, self.attr(0)

        return dict(self.sequence("{", "}", pair))

    def attr(self, depth: int) -> Attr:
        """A number, a text in quotes, a dtype, a dim, true, false, none, or a tuple of such."""
        if depth > MAX_DEPTH:
            self.fail(f"tuples in tuples deeper than {MAX_DEPTH}")
        if self.kind == "number":
            return self.number()
        if self.kind == "string":
            return self.string()
        if self.text == "(":
            return tuple(self.sequence("(", ")", lambda: self.attr(depth + 1)))
        if self.kind != "name":
            self.fail("expected a value")
        if self.accept("dim"):
            self.take("(")
            dim = self.dim()
            self.take(")")
            return dim
        if self.text in _WORDS:
            self.at += 1
            return _WORDS[self.tokens[self.at - 1].text]
        return self.dtype() if self.text in _DTYPES else self.dim()
