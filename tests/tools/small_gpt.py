"""A two-layer language model as a graph, written node by node, so that the tools can be tested without a front end.

It has every kind of node that a picture must show: parameters, intercepts, a constant, the input, the label, the loss.
"""

from partita.compiler.ir.graph import Graph, GraphBuilder
from partita.compiler.ir.types import Attr, Dim, DType, Layer, Node, Phase, TensorType, Use

BATCH, T, S = Dim("batch", 2), Dim("T", 8), Dim("S", 8)
D, H, K, F, V = Dim("D", 16), Dim("H", 2), Dim("K", 8), Dim("F", 32), Dim("V", 50)


class Writer:
    """Adds nodes with less ceremony than `GraphBuilder`."""

    def __init__(self, name: str) -> None:
        self.builder = GraphBuilder(name)
        self.path = ""
        self.layer: Layer | None = None

    def add(
        self,
        name: str,
        op: str,
        uses: tuple[Use, ...],
        dims: tuple[Dim, ...],
        /,
        dtype: DType = DType.F32,
        **attrs: Attr,
    ) -> Use:
        prefix = f"{self.path}." if self.path else ""
        phase = Phase.PREPARE if op == "parameter" else Phase.FORWARD
        out = TensorType(dims, dtype)
        if op in ("parameter", "input", "constant"):
            attrs = {"dims": dims, "dtype": dtype, **attrs}
        node = Node(prefix + name, op, uses, (out,), attrs, phase, None, self.path, self.layer)
        return self.builder.add(node).out()

    def parameter(self, name: str, *dims: Dim, init: tuple[Attr, ...] = ("normal", 0.02)) -> Use:
        return self.add(name, "parameter", (), dims, init=init, trained=True)

    def linear(self, name: str, x: Use, source: tuple[Dim, ...], target: tuple[Dim, ...]) -> Use:
        outer, self.path = self.path, f"{self.path}.{name}" if self.path else name
        weight, bias = self.parameter("w", *source, *target), self.parameter("b", *target, init=("zeros",))
        kept = tuple(d for d in x.dims if d not in source)
        product = self.add("dot", "dot", (x, weight), (*kept, *target), over=source)
        result = self.add("y", "add", (product, bias), (*kept, *target))
        self.path = outer
        return result

    def norm(self, name: str, x: Use) -> Use:
        outer, self.path = self.path, f"{self.path}.{name}" if self.path else name
        gain, bias = self.parameter("gain", D, init=("ones",)), self.parameter("b", D, init=("zeros",))
        result = self.add("y", "layer_norm", (x, gain, bias), x.dims, D=(D,), eps=1e-5)
        self.path = outer
        return result


def block(writer: Writer, x: Use) -> Use:
    """One transformer block; the writer's path says which."""
    here = writer.path
    normal = writer.norm("ln1", x)
    writer.path = f"{here}.attn"
    query, key, value = (writer.linear(name, normal, (D,), (H, K)) for name in "qkv")
    seen = {T: S}
    mixed = writer.add(
        "attention", "attention", (query, key.relabel(seen), value.relabel(seen)), (BATCH, T, H, K),
        T=(T,), S=(S,), K=(K,), G=(H,), R=(), mask="causal", score=None, scale=0.35, drop=0.0,
    )  # fmt: skip
    out = writer.linear("o", mixed, (H, K), (D,))
    writer.path = here
    h = writer.add("h", "add", (x, out), (BATCH, T, D))
    normal = writer.norm("ln2", h)
    writer.path = f"{here}.mlp"
    up = writer.linear("up", normal, (D,), (F,))
    active = writer.add("a", "gelu", (up,), (BATCH, T, F))
    down = writer.linear("down", active, (F,), (D,))
    writer.path = here
    return writer.add("y", "add", (h, down), (BATCH, T, D))


def small_gpt(layers: int = 2) -> Graph:
    """Token and position embeddings, blocks, a tied head, the mean cross-entropy."""
    w = Writer("small_gpt")
    tokens = w.add("tokens", "input", (), (BATCH, T), dtype=DType.I64, name="tokens", below=V)
    target = w.add("target", "input", (), (BATCH, T), dtype=DType.I64, name="target", below=V)
    table = w.parameter("wte.table", V, D)
    embedded = w.add("wte.y", "gather", (table, tokens), (BATCH, T, D), dim=V)
    positions = w.parameter("wpe.table", T, D)
    x = w.add("x", "add", (embedded, positions), (BATCH, T, D))
    for index in range(layers):
        w.path, w.layer = f"blocks.{index}", Layer("blocks", index)
        x = block(w, x)
    w.path, w.layer = "", None
    x = w.norm("ln_f", x)
    logits = w.add("logits", "dot", (x, table), (BATCH, T, V), over=(D,))
    each = w.add("cross_entropy", "cross_entropy", (logits, target), (BATCH, T), V=(V,))
    total = w.add("sum", "sum", (each,), (), over=(BATCH, T))
    share = w.add("one_in_16", "constant", (), (), value=1 / 16)
    loss = w.add("loss", "mul", (total, share), ())
    w.builder.output("logits", logits)
    w.builder.output("loss", loss)
    return w.builder.finish()
