"""Small models by hand, for tests that look at structure."""

from __future__ import annotations

from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Dim, DType, Layer, Origin, Use
from partita.compiler.ops.build import Builder


def deep_stack(layers: int, parallel: bool = False, tied: bool = False, batch: int = 4, width: int = 8) -> Graph:
    """h = h + f(h), where f(h) = tanh(h w); `parallel` adds a second such branch of the same h, as PaLM does.

    Loss: the mean of all elements. Parallel: x is a parameter, so that it has a cotangent.
    """
    builder = Builder(GraphBuilder("stack"))
    rows, d = Dim("batch", batch), Dim("D", width)
    x = builder.parameter("x", (rows, d), DType.F32) if parallel else builder.input("x", (rows, d), DType.F32)
    shared = builder.parameter("w", (d, Dim("E", width)), DType.F32) if tied else None
    for at in range(layers):
        layer = {"path": f"blocks.{at}", "layer": Layer("blocks", at), "origin": (Origin("stack.partita", 3),)}
        with builder.within(**layer):
            branches = [
                _branch(builder, x, f"blocks.{at}.{name}", shared) for name in (["w", "u"] if parallel else ["w"])
            ]
            x = builder.one("add", x, *branches, hint="h")
    total = builder.one("sum", x, over=(rows, d))
    loss = builder.one("mul", total, builder.constant(1 / (batch * width), DType.F32), hint="loss")
    builder.output("loss", loss)
    return builder.finish()


def _branch(builder: Builder, x: Use, name: str, shared: Use | None) -> Use:
    d = x.dims[-1]
    wide = Dim("E", d.size)
    w = shared or builder.parameter(name, (d, wide), DType.F32, ("normal", 0.3))
    f = builder.one("dot", x, w, over=(d,), hint="f")
    return builder.one("tanh", f.relabel({wide: d}))
