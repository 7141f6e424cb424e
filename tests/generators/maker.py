"""What the templates of random graphs draw with: applies operators, and keeps dims and values to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from partita.compiler.ir.graph import GraphBuilder
from partita.compiler.ir.types import Attr, Dim, Dims, DType, Layer, Node, Origin, Phase, Use
from partita.compiler.ops.registry import REGISTRY

from .bodies import body_of

SIZES = (1, 2, 3, 4, 5, 7)
MOST_ELEMENTS = 400
FLOAT = DType.F32


@dataclass
class Maker:
    """Applies operators to edges, as gradient rules do, and keeps what has been made."""

    draw: st.DrawFn
    batch: Dim | None
    builder: GraphBuilder = field(default_factory=lambda: GraphBuilder("random"))
    dims: list[Dim] = field(default_factory=list[Dim])
    pool: list[Use] = field(default_factory=list[Use])
    layer: Layer | None = None
    made: int = 1

    def __call__(
        self, op: str, *uses: Use, hint: str | None = None, body: str | None = None, **attrs: Attr
    ) -> tuple[Use, ...]:
        outs = REGISTRY[op].infer(tuple(use.type for use in uses), attrs)
        once = op in {"parameter", "seed", "step", "start"}
        phase = Phase.PREPARE if once else Phase.FORWARD
        path = f"{self.layer.chain}.{self.layer.index}" if self.layer else ""
        name = self.builder.fresh(f"{path}.{hint or op}" if path else hint or op)
        origin = (Origin("random.partita", self.made),)
        node = Node(name, op, uses, outs, attrs, phase, body, path, self.layer, origin)
        self.builder.add(node)
        self.made += 1
        return tuple(node.out(index) for index in range(len(outs)))

    def one(self, op: str, *uses: Use, **attrs: Any) -> Use:
        return self(op, *uses, **attrs)[0]

    def constant(self, value: bool | int | float, dims: Dims = (), dtype: DType = FLOAT) -> Use:
        return self.one("constant", value=value, dims=dims, dtype=dtype)

    def start(self, dim: Dim) -> Use:
        return self.one("start", dim=dim)

    # ---- choices

    def dim(self, size: int | None = None) -> Dim:
        """A new dim."""
        size = self.draw(st.sampled_from(SIZES)) if size is None else size
        made = Dim(f"{'ABCDEFGH'[len(self.dims) % 8]}{len(self.dims) // 8 or ''}", size)
        self.dims.append(made)
        return made

    def some_dims(self, most: int = 3, least: int = 0) -> Dims:
        """A few of the dims so far (never the batch) in some order, few elements in all."""
        found = self.draw(st.lists(st.sampled_from(self.dims), min_size=least, max_size=most, unique=True))
        while elements(found) > 60 and len(found) > least:
            found.pop()
        return tuple(found)

    def value(self, least: int = 0) -> Use:
        """A value made before, with so many dims beside the batch; a new parameter where there is none."""
        fits = [use for use in self.pool if sum(dim != self.batch for dim in use.dims) >= least]
        if not fits:
            self.keep(parameter(self, least))
            fits = self.pool[-1:]
        return self.draw(st.sampled_from(fits))

    def subset(self, dims: Sequence[Dim], least: int = 0) -> Dims:
        """Some of the dims, never the batch."""
        free = [dim for dim in dims if dim != self.batch]
        if len(free) < least:
            return ()
        return tuple(self.draw(st.lists(st.sampled_from(free), min_size=least, unique=True))) if free else ()

    def keep(self, *uses: Use) -> None:
        """Puts values into the pool, squashed by tanh where they may have grown."""
        for use in uses:
            if use.dtype.is_float and elements(use.dims) <= MOST_ELEMENTS:
                self.pool.append(use)

    def tame(self, use: Use) -> Use:
        return self.one("tanh", use)

    def positive(self, use: Use) -> Use:
        """0.5 + tanh(x)²: away from 0."""
        small = self.tame(use)
        return self.one("add", self.one("mul", small, small), self.constant(0.5))


def elements(dims: Sequence[Dim]) -> int:
    total = 1
    for dim in dims:
        assert dim.size is not None
        total *= dim.size
    return total


def parameter(m: Maker, least: int = 0) -> Use:
    while least > len(m.dims):
        m.dim()
    dims = m.some_dims(least=max(least, m.draw(st.integers(0, 1))))
    return m(
        "parameter", hint="w", init=("normal", 0.5), trained=m.draw(st.integers(0, 4)) > 0, dims=dims, dtype=FLOAT
    )[0]


def kernel(m: Maker, op: str, *uses: Use, **attrs: Any) -> tuple[Use, ...]:
    """A kernel function with its body where one is written down (`bodies.py`)."""
    body = body_of(op, uses, attrs)
    if body is None:
        return m(op, *uses, **attrs)
    key = f"{op}.{m.made}"
    m.builder.body(key, body)
    return m(op, *uses, body=key, **attrs)


Template = Callable[[Maker], None]
