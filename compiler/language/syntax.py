"""The syntax tree: one frozen dataclass for each rule of grammar.lark, and what text it stands for.

In: nothing but spans. Out: the types that `parse` makes, `format` prints and `elaborate` reads. Nodes compare
by what they say, not by where they say it (`span` and a number's spelling are left out of `==`), so
`parse(format(x)) == parse(x)` is a plain comparison; key tables by `id(node)` or by span, not by node.
Sequences are tuples; `None` marks an optional part that is not written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias, TypeVar, cast, dataclass_transform

from ..base.span import Span

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def node(cls: type[T]) -> type[T]:
    """A frozen dataclass whose `==`, hash and `repr` are Node's: to write them for each class costs time."""
    return dataclass(frozen=True, slots=True, eq=False, repr=False)(cls)


@node
class Node:
    """Anything in the tree. Fields that are not compared are not shown either."""

    span: Span = field(compare=False, repr=False)

    def __eq__(self, other: object) -> bool:
        return self.__class__ is other.__class__ and self.said() == cast(Node, other).said()

    def __hash__(self) -> int:
        return hash(self.said())

    def __repr__(self) -> str:
        names = [item.name for item in fields(self) if item.compare]
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in zip(names, self.said(), strict=True))})"

    def said(self) -> tuple[object, ...]:
        """What the node says: the values of its fields that are compared."""
        return tuple(getattr(self, item.name) for item in fields(self) if item.compare)


@node
class Name(Node):
    """A name where it is written: `ln1`, `D`, or a label such as `8B`; `*` in the paths of init and adapt."""

    text: str

    def __str__(self) -> str:
        return self.text


@node
class QName(Node):
    """`Linear`, `std.Linear`: names with dots between them."""

    parts: tuple[Name, ...]

    @property
    def text(self) -> str:
        return ".".join(part.text for part in self.parts)

    def __str__(self) -> str:
        return self.text


# ---- dims: what stands between [ ] after a name


@node
class DimRef(Node):
    """`D`"""

    name: str


@node
class DimNumber(Node):
    """`2` (a whole number, mostly; the grammar allows any)"""

    value: int | float
    text: str = field(compare=False, repr=False)


@node
class DimBinary(Node):
    """`Y / P`, `1 + M`"""

    op: Literal["+", "-", "*", "/", "%"]
    left: Dim
    right: Dim


@node
class DimGroup(Node):
    """`(H K)`: several axes that stand for one, the first slowest. At least two parts."""

    parts: tuple[Dim, ...]


@node
class DimBind(Node):
    """`G = H / 2` in a `dim` statement or among a constructor's dims"""

    name: Name
    dim: Dim


@node
class DimArrow(Node):
    """`T -> S`, `H -> (G R)`, `1 + M -> T`: an item of a view"""

    source: Dim
    target: Dim


# ---- expressions


@node
class Ref(Node):
    """`x`: a value, a dim's size, an instance, a function, an option: names decide"""

    name: str


@node
class Number(Node):
    """`3`, `1e-5`, `250_000`, `80 GiB`; a whole number is an int, all others are floats"""

    value: int | float
    unit: str | None
    text: str = field(compare=False, repr=False)


@node
class String(Node):
    """`"data/*.bin"`; `value` has its escapes resolved"""

    value: str


@node
class Bool(Node):
    """`true`, `false`"""

    value: bool


@node
class NoneLit(Node):
    """`none`"""


@node
class TupleLit(Node):
    """`(0.9, 0.95)`: at least two"""

    items: tuple[Expr, ...]


@node
class ListLit(Node):
    """`["*.gain", "*.b"]`, `[H -> tensor, L -> pipe]`, `[pipe = 2, tensor = 4]`"""

    items: tuple[ListItem, ...]


@node
class Arrow(Node):
    """`H -> tensor`: an item of a list"""

    source: Expr
    target: Expr


@node
class At(Node):
    """`T = 0`, `V = ids` as an item of a view; `pipe = 2` as an item of a list"""

    name: Name
    value: Expr


@node
class Unary(Node):
    """`-x`, `not x`"""

    op: Literal["-", "not"]
    operand: Expr


@node
class Binary(Node):
    """`a + b`, `a ^ b`"""

    op: Literal["+", "-", "*", "/", "%", "^"]
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False)  # of the operator itself, which a message points at


@node
class Compare(Node):
    """`a < b`; comparisons do not chain"""

    op: Literal["==", "!=", "<=", ">=", "<", ">"]
    left: Expr
    right: Expr
    op_span: Span = field(compare=False, repr=False)


@node
class BoolOp(Node):
    """`a and b`, `a or b`"""

    op: Literal["and", "or"]
    left: Expr
    right: Expr


@node
class IfThenElse(Node):
    """`if bias then y + b else y`: chosen while compiling"""

    condition: Expr
    then: Expr
    otherwise: Expr


@node
class Pipe(Node):
    """`x |> f`: the left side becomes the first argument of the right one"""

    left: Expr
    right: Expr


@node
class View(Node):
    """`x[T -> S]`, `x[T = 0]`; also the dims of an application: the `dot[D]` of `dot[D](x, w)`"""

    target: Expr
    items: tuple[ViewItem, ...]


@node
class Call(Node):
    """`f(x, p = 0.1)`; positional and named arguments in the order they are written"""

    callee: Expr
    args: tuple[Argument, ...]


@node
class KwArg(Node):
    """`bias = false` among the arguments of a call or a constructor"""

    name: Name
    value: Expr


@node
class Member(Node):
    """`wte.table`, `Llama3.8B`"""

    target: Expr
    name: Name


# ---- statements of a body


@node
class Body(Node):
    """`{ … }`: statements, one a line"""

    statements: tuple[Statement, ...]


@node
class Sizes(Node):
    """`sizes { L D  small 12 768 }`: named variants, a column a dim or option"""

    columns: tuple[Name, ...]
    rows: tuple[SizeRow, ...]


@node
class SizeRow(Node):
    """`small 12 768`; a row may be longer or shorter than the columns, which is an error found later"""

    label: Name
    cells: tuple[Cell, ...]


@node
class DimDef(Node):
    """`dim P = 2, M = K / 2`"""

    bindings: tuple[DimBind, ...]


@node
class Check(Node):
    """`check H % G == 0, "query heads {H} must be a multiple of {G}"`"""

    condition: Expr
    message: String


@node
class Param(Node):
    """`param b[O] ~ zeros when bias`"""

    name: Name
    dims: tuple[Dim, ...]
    init: Expr
    condition: Expr | None


@node
class State(Node):
    """`state mu[C] = 0 when track`"""

    name: Name
    dims: tuple[Dim, ...]
    init: Expr
    condition: Expr | None


@node
class Repeat(Node):
    """`chain L of`, `chain l in L of`, `bank E of`; `index` is the l"""

    kind: Literal["chain", "bank"]
    index: Name | None
    count: Dim


@node
class Constructor(Node):
    """`Attention[D, H, G = 1](mask = causal)`; also the base of a derived model"""

    name: QName
    dims: tuple[Dim | DimBind, ...]
    args: tuple[Argument, ...]


@node
class Instance(Node):
    """`ln1 : LayerNorm[D]`, `blocks : chain L of Block[D](drop) when deep`"""

    name: Name
    repeat: Repeat | None
    constructor: Constructor
    condition: Expr | None


@node
class Path(Node):
    """`blocks.*.attn.o.w`; a step may be `*`"""

    steps: tuple[Name, ...]

    @property
    def text(self) -> str:
        return ".".join(step.text for step in self.steps)


@node
class Init(Node):
    """`init blocks.*.attn.o.w, blocks.*.mlp.down.w ~ normal(0.01)`"""

    paths: tuple[Path, ...]
    value: Expr


@node
class Adapt(Node):
    """`adapt layers.*.attn.q : LoRA[R = 16]`"""

    paths: tuple[Path, ...]
    constructor: Constructor


@node
class Assign(Node):
    """`h = x + f(x)`, `a, b = split[K -> N + M](x)`"""

    targets: tuple[Name, ...]
    value: Expr


@node
class Carry(Node):
    """`h = zeros[C]` after `carry`"""

    name: Name
    value: Expr


@node
class Scan(Node):
    """`scan t in T carry h = zeros[C], c = zeros[C] { … }`"""

    index: Name
    dim: Name
    carries: tuple[Carry, ...]
    body: Body


@node
class Next(Node):
    """`next h = n`: the carry's or state's next value"""

    name: Name
    value: Expr


@node
class Emit(Node):
    """`emit y = out`: stacked over the scan's dim"""

    name: Name
    value: Expr


@node
class Tap(Node):
    """`tap used = where(pick, 1, 0)`: for the recipe's loss and the logs"""

    name: Name
    value: Expr


@node
class Return(Node):
    """`return y, z`"""

    values: tuple[Expr, ...]


# ---- functions, blocks and models


@node
class Formal(Node):
    """`K = D / H` among a block's or function's dims"""

    name: Name
    default: Dim | None


@node
class Option(Node):
    """`mask: fn = full`, `x`, `g[D]`: an option of a block, an argument or option of a function.

    `dims` is None where no brackets are written and () for `g[]`.
    """

    name: Name
    dims: tuple[Dim, ...] | None
    type: Name | None
    default: Expr | None


@node
class Port(Node):
    """`x[T, D]`, `tokens[T] in V`, `keep[T, S] in bool = true`: an input of a block; `dims` as in Option"""

    name: Name
    dims: tuple[Dim, ...] | None
    domain: Name | None
    default: Expr | None


@node
class Out(Node):
    """`[T, D]`, `logits[T, V]`, `ids[T] in V`: an output"""

    name: Name | None
    dims: tuple[Dim, ...]
    domain: Name | None


@node
class Signature(Node):
    """`x[T, D], mem[S, D] -> [T, D]`"""

    ports: tuple[Port, ...]
    outs: tuple[Out, ...]


@node
class Kernel(Node):
    """`kernel`, `kernel "my_ops:f" backward "my_ops:f_backward"`"""

    forward: String | None
    backward: String | None


@node
class Use(Node):
    """`use std`"""

    name: QName


@node
class Fn(Node):
    """`fn f[D](x, p = 0.1) -> [D] kernel = x * p`; the body is an expression, a Body, or nothing (an opaque kernel)"""

    name: Name
    formals: tuple[Formal, ...]
    options: tuple[Option, ...]
    outs: tuple[Out, ...] | None
    kernel: Kernel | None
    body: Expr | Body | None


@node
class Block(Node):
    """`block Linear[I, O](bias = true) : x[I] -> [O] { … }`"""

    name: Name
    formals: tuple[Formal, ...]
    options: tuple[Option, ...]
    signature: Signature
    body: Body


@node
class Model(Node):
    """`model GPT2(drop = 0.1) : tokens[T] in V -> logits[T, V] { … }`"""

    name: Name
    options: tuple[Option, ...]
    signature: Signature
    body: Body


@node
class Derived(Node):
    """`model LlamaLoRA(rank = 16) = Llama3(…) { … }`"""

    name: Name
    options: tuple[Option, ...]
    base: Constructor
    body: Body


# ---- weight maps


@node
class Weights(Node):
    """`weights GPT2 "openai-community/gpt2" { … }`, `weights Llama3.8B "…" { … }`, `weights B "…" extends A { … }`"""

    model: Name
    size: Name | None
    source: String
    base: WeightBase | None
    entries: tuple[WeightEntry, ...]


@node
class WeightBase(Node):
    """`extends Llama`, `extends DeepSeek.V2`: the map of a model, or of one of its sizes"""

    model: Name
    size: Name | None

    @property
    def text(self) -> str:
        return f"{self.model}.{self.size}" if self.size else self.model.text


@node
class WeightMap(Node):
    """`"attn.weight"[D, (3 H K)] = (q.w, k.w, v.w)`: their name and layout, our parameters

    `tied "lm_head.weight"[V, D] = embed.table when tied`: a second name of theirs for what another entry maps.
    """

    name: String
    layout: tuple[Dim, ...]
    paths: tuple[WeightPath, ...]
    tied: bool
    condition: Expr | None


@node
class WeightPath(Node):
    """`blocks[l].attn.q.w`"""

    root: Name
    steps: tuple[Name | WeightIndex, ...]


@node
class WeightIndex(Node):
    """`[l]`"""

    dim: Dim


@node
class WeightSkip(Node):
    """`skip "lm_head.weight"`"""

    pattern: String


@node
class WeightFor(Node):
    """`for l in L { … }`"""

    index: Name
    dim: Dim
    entries: tuple[WeightEntry, ...]


@node
class WeightConfig(Node):
    """`config { n_embd = D, "activation_function" = "gelu_new" }`: the configuration that goes with their names"""

    entries: tuple[RecordEntry, ...]


# ---- records


@node
class Record(Node):
    """`train b extends a { … }`, `cluster c { … }`, `plan p { … }`"""

    kind: Name
    name: Name
    base: Name | None
    entries: tuple[RecordEntry, ...]


@node
class RecordSet(Node):
    """`batch = 4 Mtokens`, `"*.gain" = adamw(decay = 0)`"""

    key: Name | String
    value: Expr


@node
class RecordSub(Node):
    """`checkpoint { … }`, `device H100 { … }`; `argument` is the H100"""

    key: Name
    argument: Expr | None
    entries: tuple[RecordEntry, ...]


# ---- a file


@node
class Comment(Node):
    """`# …` to the end of its line, as written; `##` documents the declaration below it"""

    text: str


@node
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
    for name in node.__match_args__:  # the fields' names, at hand
        value = getattr(node, name)
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
