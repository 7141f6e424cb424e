"""A loss for any model: what it gives, weighed by random numbers and added up.

In: a forward graph. Out: the same with a probe for each output (the input `probe/<name>`) and the output `loss`,
the sum of every output times its probe. Its gradient is the whole Jacobian's, seen from a random direction.
"""

from __future__ import annotations

from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ops.build import Builder


def probed(graph: Graph) -> Graph:
    """loss = Σ over outputs o: Σ probe_o · o"""
    builder = GraphBuilder(graph.name, graph.microbatches)
    builder.extend(graph)
    for key, body in graph.bodies.items():
        builder.body(key, body)
    b = Builder(builder)
    terms = [b.constant(0.0, next(iter(graph.outputs.values())).dtype)]
    for name, use in graph.outputs.items():
        builder.output(name, use)
        product = b.one("mul", use, b.input(f"probe/{name}", use.dims, use.dtype))
        terms.append(b.one("sum", product, over=use.dims) if use.dims else product)
    b.output("loss", b.one("add", *terms))
    return b.finish()
