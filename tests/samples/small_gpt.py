"""A language model as a graph, written operator by operator, so that tools and costs can be tested without a front end.

It has every kind of node that a picture must show: parameters, intercepts, a constant, the input, the label, the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, Dims, DType, Layer, Phase, Use
from partita.compiler.ops.build import Builder

F32, I64 = DType.F32, DType.I64


@dataclass(frozen=True)
class Sizes:
    """Of the model and of its batch."""

    batch: int = 2
    tokens: int = 8
    layers: int = 2
    width: int = 16
    heads: int = 2
    hidden: int = 32
    vocabulary: int = 50
    intercepts: bool = True


class SmallGPT:
    """Writes the graph; one method for each block."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.b = Builder(GraphBuilder("small_gpt"))
        self.batch, self.t, self.s = Dim("batch", sizes.batch), Dim("T", sizes.tokens), Dim("S", sizes.tokens)
        self.d, self.h, self.r = Dim("D", sizes.width), Dim("H", sizes.heads), Dim("R", 1)
        self.k, self.f = Dim("K", sizes.width // sizes.heads), Dim("F", sizes.hidden)
        self.v = Dim("V", sizes.vocabulary)

    def inside(self, name: str) -> str:
        return f"{self.b.context.path}.{name}" if self.b.context.path else name

    def parameter(self, name: str, dims: Dims, init: tuple[str | float, ...] = ("normal", 0.02)) -> Use:
        return self.b.parameter(self.inside(name), dims, F32, init)

    def linear(self, name: str, x: Use, source: Dims, target: Dims) -> Use:
        with self.b.within(path=self.inside(name)):
            product = self.b.one("dot", x, self.parameter("w", (*source, *target)), over=source)
            if not self.sizes.intercepts:
                return product
            return self.b.one("add", product, self.parameter("b", target, ("zeros",)), hint="y")

    def norm(self, name: str, x: Use) -> Use:
        with self.b.within(path=self.inside(name)):
            operands = [x, self.parameter("gain", (self.d,), ("ones",))]
            if self.sizes.intercepts:
                operands.append(self.parameter("b", (self.d,), ("zeros",)))
            return self.b("layer_norm", *operands, hint="y", D=(self.d,), eps=1e-5)[0]

    def attention(self, x: Use, starts: tuple[Use, Use]) -> Use:
        heads = (self.h, self.r, self.k)
        with self.b.within(path=self.inside("attn")):
            q, k, v = (self.linear(name, x, (self.d,), heads if name == "q" else (self.h, self.k)) for name in "qkv")
            seen = {self.t: self.s}
            y, _ = self.b(
                "attention", q, k.relabel(seen), v.relabel(seen), *starts,
                T=(self.t,), S=(self.s,), K=(self.k,), G=(self.h,), R=(self.r,),
                mask="causal", score=None, scale=0.35, drop=0.0,
            )  # fmt: skip
            return self.linear("o", y, heads, (self.d,))

    def mlp(self, x: Use) -> Use:
        with self.b.within(path=self.inside("mlp")):
            up = self.linear("up", x, (self.d,), (self.f,))
            return self.linear("down", self.b.one("gelu", up, hint="a"), (self.f,), (self.d,))

    def block(self, index: int, x: Use, starts: tuple[Use, Use]) -> Use:
        with self.b.within(path=f"blocks.{index}", layer=Layer("blocks", index)):
            h = self.b.one("add", x, self.attention(self.norm("ln1", x), starts), hint="h")
            return self.b.one("add", h, self.mlp(self.norm("ln2", h)), hint="y")

    def write(self) -> Graph:
        rows = (self.batch, self.t)
        with self.b.within(phase=Phase.PREPARE):
            starts = (self.b.one("start", hint="start.T", dim=self.t), self.b.one("start", hint="start.S", dim=self.s))
        tokens, target = self.b.input("tokens", rows, I64, self.v), self.b.input("target", rows, I64, self.v)
        with self.b.within(path="wte"):
            table = self.parameter("table", (self.v, self.d))
            x = self.b.one("gather", table, tokens, hint="y", dim=self.v)
        with self.b.within(path="wpe"):
            positions = self.parameter("table", (self.t, self.d))
        x = self.b.one("add", x, positions, hint="x")
        for index in range(self.sizes.layers):
            x = self.block(index, x, starts)
        logits = self.b.one("dot", self.norm("ln_f", x), table, hint="logits", over=(self.d,))
        each, _ = self.b("cross_entropy", logits, target, V=(self.v,))
        share = self.b.constant(1 / (self.sizes.batch * self.sizes.tokens), F32, hint="share")
        loss = self.b.one("mul", self.b.one("sum", each, over=rows), share, hint="loss")
        self.b.output("logits", logits)
        self.b.output("loss", loss)
        return self.b.finish()


def small_gpt(layers: int = 2, sizes: Sizes | None = None) -> Graph:
    """Token and position embeddings, blocks, a tied head, the mean cross-entropy."""
    return SmallGPT(sizes or Sizes(layers=layers)).write()
