"""The syntax tree: one frozen dataclass for each rule of grammar.lark, and what text it stands for.

In: nothing but spans. Out: the types that `parse` makes, `format` prints and `elaborate` reads. Nodes compare
by what they say, not by where they say it (`span` and a number's spelling are left out of `==`), so
`parse(format(x)) == parse(x)` is a plain comparison; key tables by `id(node)` or by span, not by node.
Sequences are tuples; `None` marks an optional part that is not written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

from ..base.span import Span


@dataclass(frozen=True, slots=True)
class Node:
    """Anything in the tree."""

    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A name where it is written: `ln1`, `D`, or a label such as `8B`; `*` in the paths of init and adapt."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class QName(Node):
    """`Linear`, `std.Linear`: names with dots between them."""

    parts: tuple[Name, ...]

    @property
    def text(self) -> str:
        return ".".join(part.text for part in self.parts)

    def __str__(self) -> str:
        return self.text


# ---- dims: what stands between [ ] after a name


@dataclass(frozen=True, slots=True)
class DimRef(Node):
    """`D`"""

    name: str


@dataclass(frozen=True, slots=True)
class DimNumber(Node):
    """`2` (a whole number, mostly; the grammar allows any)"""

    value: int | float
    text: str = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DimBinary(Node):
    """`Y / P`, `1 + M`"""

    op: Literal["+", "-", "*", "/", "%"]
    left: Dim
    right: Dim


@dataclass(frozen=True, slots=True)
class DimGroup(Node):
    """`(H K)`: several axes that stand for one, the first slowest. At least two parts."""

    parts: tuple[Dim, ...]


@dataclass(frozen=True, slots=True)
class DimBind(Node):
    """`G = H / 2` in a `dim` statement or among a constructor's dims"""

    name: Name
    dim: Dim


@dataclass(frozen=True, slots=True)
class DimArrow(Node):
    """`T -> S`, `H -> (G R)`, `1 + M -> T`: an item of a view"""

    source: Dim
    target: Dim


# ---- expressions


@dataclass(frozen=True, slots=True)
class Ref(Node):
    """`x`: a value, a dim's size, an instance, a function, an option: names decide"""

    name: str


@dataclass(frozen=True, slots=True)
class Number(Node):
    """`3`, `1e-5`, `250_000`, `80 GiB`; a whole number is an int, all others are floats"""

    value: int | float
    unit: str | None
    text: str = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class String(Node):
    """`"data/*.bin"`; `value` has its escapes resolved"""

    value: str


@dataclass(frozen=True, slots=True)
class Bool(Node):
    """`true`, `false`"""

    value: bool


@dataclass(frozen=True, slots=True)
class NoneLit(Node):
    """`none`"""


@dataclass(frozen=True, slots=True)
class TupleLit(Node):
    """`(0.9, 0.95)`: at least two"""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class ListLit(Node):
    """`["*.gain", "*.b"]`, `[H -> tensor, L -> pipe]`, `[pipe = 2, tensor = 4]`"""

    items: tuple[ListItem, ...]


@dataclass(frozen=True, slots=True)
class Arrow(Node):
    """`H -> tensor`: an item of a list"""

    source: Expr
    target: Expr


@dataclass(frozen=True, slots=True)
class At(Node):
    """`T = 0`, `V = ids` as an item of a view; `pipe = 2` as an item of a list"""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`-x`, `not x`"""

    op: Literal["-", "not"]
    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`a + b`, `a ^ b`"""

    op: Literal["+", "-", "*", "/", "%", "^"]
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False)  # of the operator itself, which a message points at


@dataclass(frozen=True, slots=True)
class Compare(Node):
    """`a < b`; comparisons do not chain"""

    op: Literal["==", "!=", "<=", ">=", "<", ">"]
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class BoolOp(Node):
    """`a and b`, `a or b`"""

    op: Literal["and", "or"]
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class IfThenElse(Node):
    """`if bias then y + b else y`: chosen while compiling"""

    condition: Expr
    then: Expr
    otherwise: Expr


@dataclass(frozen=True, slots=True)
class Pipe(Node):
    """`x |> f`: the left side becomes the first argument of the right one"""

    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class View(Node):
    """`x[T -> S]`, `x[T = 0]`; also the dims of an application: the `dot[D]` of `dot[D](x, w)`"""

    target: Expr
    items: tuple[ViewItem, ...]


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`f(x, p = 0.1)`; positional and named arguments in the order they are written"""

    callee: Expr
    args: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class KwArg(Node):
    """`bias = false` among the arguments of a call or a constructor"""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Member(Node):
    """`wte.table`, `Llama3.8B`"""

    target: Expr
    name: Name


# ---- statements of a body


@dataclass(frozen=True, slots=True)
class Body(Node):
    """`{ … }`: statements, one a line"""

    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Sizes(Node):
    """`sizes { L D  small 12 768 }`: named variants, a column a dim or option"""

    columns: tuple[Name, ...]
    rows: tuple[SizeRow, ...]


@dataclass(frozen=True, slots=True)
class SizeRow(Node):
    """`small 12 768`; a row may be longer or shorter than the columns, which is an error found later"""

    label: Name
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class DimDef(Node):
    """`dim P = 2, M = K / 2`"""

    bindings: tuple[DimBind, ...]


@dataclass(frozen=True, slots=True)
class Check(Node):
    """`check H % G == 0, "query heads {H} must be a multiple of {G}"`"""

    condition: Expr
    message: String


@dataclass(frozen=True, slots=True)
class Param(Node):
    """`param b[O] ~ zeros when bias`"""

    name: Name
    dims: tuple[Dim, ...]
    init: Expr
    condition: Expr | None


@dataclass(frozen=True, slots=True)
class State(Node):
    """`state mu[C] = 0 when track`"""

    name: Name
    dims: tuple[Dim, ...]
    init: Expr
    condition: Expr | None


@dataclass(frozen=True, slots=True)
class Repeat(Node):
    """`chain L of`, `chain l in L of`, `bank E of`; `index` is the l"""

    kind: Literal["chain", "bank"]
    index: Name | None
    count: Dim


@dataclass(frozen=True, slots=True)
class Constructor(Node):
    """`Attention[D, H, G = 1](mask = causal)`; also the base of a derived model"""

    name: QName
    dims: tuple[Dim | DimBind, ...]
    args: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Instance(Node):
    """`ln1 : LayerNorm[D]`, `blocks : chain L of Block[D](drop) when deep`"""

    name: Name
    repeat: Repeat | None
    constructor: Constructor
    condition: Expr | None


@dataclass(frozen=True, slots=True)
class Path(Node):
    """`blocks.*.attn.o.w`; a step may be `*`"""

    steps: tuple[Name, ...]

    @property
    def text(self) -> str:
        return ".".join(step.text for step in self.steps)


@dataclass(frozen=True, slots=True)
class Init(Node):
    """`init blocks.*.attn.o.w, blocks.*.mlp.down.w ~ normal(0.01)`"""

    paths: tuple[Path, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Adapt(Node):
    """`adapt layers.*.attn.q : LoRA[R = 16]`"""

    paths: tuple[Path, ...]
    constructor: Constructor


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """`h = x + f(x)`, `a, b = split[K -> N + M](x)`"""

    targets: tuple[Name, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Carry(Node):
    """`h = zeros[C]` after `carry`"""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Scan(Node):
    """`scan t in T carry h = zeros[C], c = zeros[C] { … }`"""

    index: Name
    dim: Name
    carries: tuple[Carry, ...]
    body: Body


@dataclass(frozen=True, slots=True)
class Next(Node):
    """`next h = n`: the carry's or state's next value"""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Emit(Node):
    """`emit y = out`: stacked over the scan's dim"""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Tap(Node):
    """`tap used = where(pick, 1, 0)`: for the recipe's loss and the logs"""

    name: Name
    value: Expr


@dataclass(frozen=True, slots=True)
class Return(Node):
    """`return y, z`"""

    values: tuple[Expr, ...]


# ---- functions, blocks and models


@dataclass(frozen=True, slots=True)
class Formal(Node):
    """`K = D / H` among a block's or function's dims"""

    name: Name
    default: Dim | None


@dataclass(frozen=True, slots=True)
class Option(Node):
    """`mask: fn = full`, `x`, `g[D]`: an option of a block, an argument or option of a function.

    `dims` is None where no brackets are written and () for `g[]`.
    """

    name: Name
    dims: tuple[Dim, ...] | None
    type: Name | None
    default: Expr | None


@dataclass(frozen=True, slots=True)
class Port(Node):
    """`x[T, D]`, `tokens[T] in V`, `keep[T, S] in bool = true`: an input of a block; `dims` as in Option"""

    name: Name
    dims: tuple[Dim, ...] | None
    domain: Name | None
    default: Expr | None


@dataclass(frozen=True, slots=True)
class Out(Node):
    """`[T, D]`, `logits[T, V]`, `ids[T] in V`: an output"""

    name: Name | None
    dims: tuple[Dim, ...]
    domain: Name | None


@dataclass(frozen=True, slots=True)
class Signature(Node):
    """`x[T, D], mem[S, D] -> [T, D]`"""

    ports: tuple[Port, ...]
    outs: tuple[Out, ...]


@dataclass(frozen=True, slots=True)
class Kernel(Node):
    """`kernel`, `kernel "my_ops:f" backward "my_ops:f_backward"`"""

    forward: String | None
    backward: String | None


@dataclass(frozen=True, slots=True)
class Use(Node):
    """`use std`"""

    name: QName


@dataclass(frozen=True, slots=True)
class Fn(Node):
    """`fn f[D](x, p = 0.1) -> [D] kernel = x * p`; the body is an expression, a Body, or nothing (an opaque kernel)"""

    name: Name
    formals: tuple[Formal, ...]
    options: tuple[Option, ...]
    outs: tuple[Out, ...] | None
    kernel: Kernel | None
    body: Expr | Body | None


@dataclass(frozen=True, slots=True)
class Block(Node):
    """`block Linear[I, O](bias = true) : x[I] -> [O] { … }`"""

    name: Name
    formals: tuple[Formal, ...]
    options: tuple[Option, ...]
    signature: Signature
    body: Body


@dataclass(frozen=True, slots=True)
class Model(Node):
    """`model GPT2(drop = 0.1) : tokens[T] in V -> logits[T, V] { … }`"""

    name: Name
    options: tuple[Option, ...]
    signature: Signature
    body: Body


@dataclass(frozen=True, slots=True)
class Derived(Node):
    """`model LlamaLoRA(rank = 16) = Llama3(…) { … }`"""

    name: Name
    options: tuple[Option, ...]
    base: Constructor
    body: Body


# ---- weight maps


@dataclass(frozen=True, slots=True)
class Weights(Node):
    """`weights GPT2 "openai-community/gpt2" { … }`, `weights Llama3.8B "…" { … }`, `weights B "…" extends A { … }`"""

    model: Name
    size: Name | None
    source: String
    base: WeightBase | None
    entries: tuple[WeightEntry, ...]


@dataclass(frozen=True, slots=True)
class WeightBase(Node):
    """`extends Llama`, `extends DeepSeek.V2`: the map of a model, or of one of its sizes"""

    model: Name
    size: Name | None

    @property
    def text(self) -> str:
        return f"{self.model}.{self.size}" if self.size else self.model.text


@dataclass(frozen=True, slots=True)
class WeightMap(Node):
    """`"attn.weight"[D, (3 H K)] = (q.w, k.w, v.w)`: their name and layout, our parameters

    `tied "lm_head.weight"[V, D] = embed.table when tied`: a second name of theirs for what another entry maps.
    """

    name: String
    layout: tuple[Dim, ...]
    paths: tuple[WeightPath, ...]
    tied: bool
    condition: Expr | None


@dataclass(frozen=True, slots=True)
class WeightPath(Node):
    """`blocks[l].attn.q.w`"""

    root: Name
    steps: tuple[Name | WeightIndex, ...]


@dataclass(frozen=True, slots=True)
class WeightIndex(Node):
    """`[l]`"""

    dim: Dim


@dataclass(frozen=True, slots=True)
class WeightSkip(Node):
    """`skip "lm_head.weight"`"""

    pattern: String


@dataclass(frozen=True, slots=True)
class WeightFor(Node):
    """`for l in L { … }`"""

    index: Name
    dim: Dim
    entries: tuple[WeightEntry, ...]


@dataclass(frozen=True, slots=True)
class WeightConfig(Node):
    """`config { n_embd = D, "activation_function" = "gelu_new" }`: the configuration that goes with their names"""

    entries: tuple[RecordEntry, ...]


# ---- records


@dataclass(frozen=True, slots=True)
class Record(Node):
    """`train b extends a { … }`, `cluster c { … }`, `plan p { … }`"""

    kind: Name
    name: Name
    base: Name | None
    entries: tuple[RecordEntry, ...]


@dataclass(frozen=True, slots=True)
class RecordSet(Node):
    """`batch = 4 Mtokens`, `"*.gain" = adamw(decay = 0)`"""

    key: Name | String
    value: Expr


@dataclass(frozen=True, slots=True)
class RecordSub(Node):
    """`checkpoint { … }`, `device H100 { … }`; `argument` is the H100"""

    key: Name
    argument: Expr | None
    entries: tuple[RecordEntry, ...]


# ---- a file


@dataclass(frozen=True, slots=True)
class Comment(Node):
    """`# …` to the end of its line, as written; `##` documents the declaration below it"""

    text: str


@dataclass(frozen=True, slots=True)
class File(Node):
    """A whole text: its declarations, and apart from them its comments in order"""

    declarations: tuple[Declaration, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False)


# ---- unions: what may stand where. Real unions, so `isinstance(node, Expr)` works.

Dim: TypeAlias = DimRef | DimNumber | DimBinary | DimGroup
ViewItem: TypeAlias = Dim | DimArrow | At
Expr: TypeAlias = (
    Ref | Number | String | Bool | NoneLit | TupleLit | ListLit | Unary | Binary | Compare | BoolOp
    | IfThenElse | Pipe | View | Call | Member
)  # fmt: skip
ListItem: TypeAlias = Expr | Arrow | At
Argument: TypeAlias = Expr | KwArg
Cell: TypeAlias = Number | String | Bool | NoneLit | Ref
Statement: TypeAlias = (
    Sizes | DimDef | Check | Param | State | Instance | Init | Adapt | Assign | Scan | Next | Emit | Tap | Return
)
WeightEntry: TypeAlias = WeightMap | WeightSkip | WeightFor | WeightConfig
RecordEntry: TypeAlias = RecordSet | RecordSub
Declaration: TypeAlias = Use | Fn | Block | Model | Derived | Weights | Record


def children(node: Node) -> Iterator[Node]:
    """A node's direct children in the order of its fields."""
    for item in fields(node):
        value = getattr(node, item.name)
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, Node):
                yield child


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, parents first. Uses no recursion, so depth does not matter."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(tuple(children(current))))
