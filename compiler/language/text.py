"""Expressions, dims and headers as text on one line, and broken over lines where one is too long.

In: a node. Out: its canonical text; parentheses stand where precedence asks for them and nowhere else. `flat` is
the whole on one line; `wrap` breaks before operators and between arguments, never where a newline would end the
statement.
"""

from collections.abc import Iterable, Sequence

from . import syntax as s

WIDTH = 120
STEP = 4  # how much further a broken statement's lines are indented

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}
_BINARY = {"+": 6, "-": 6, "*": 7, "/": 7, "%": 7}
_STARTS_LINE = frozenset(("+", "-", "*", "/", "and", "or"))  # operators that may stand first on a continuing line
_IF, _PIPE, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _UNARY, _POWER, _POSTFIX, _ATOM = range(12)


def quoted(value: str) -> str:
    """A string as it is written."""
    return '"' + "".join(_ESCAPES.get(char, char) for char in value) + '"'


# ---- dims


def dim(node: s.Dim, level: int = 0, tight: bool = False) -> str:
    """A dim; `level` is 0 for any, 1 for a product, 2 for an atom; `tight` leaves out the spaces (inside a group)."""
    match node:
        case s.DimRef():
            return node.name
        case s.DimNumber():
            return node.text
        case s.DimGroup():
            return f"({' '.join(dim(part, 1, tight=True) for part in node.parts)})"
        case s.DimBinary():
            own = 0 if node.op in "+-" else 1
            space = "" if tight and own >= level else " "
            inner = tight and own >= level
            left, right = dim(node.left, own, inner), dim(node.right, own + 1, inner)
            text = f"{left}{space}{node.op}{space}{right}"
            return text if own >= level else f"({text})"


def dims(nodes: Iterable[s.Dim]) -> str:
    """`T, D`"""
    return ", ".join(dim(node) for node in nodes)


def view_item(node: s.ViewItem) -> str:
    """`T -> S`, `T = 0`, `D`"""
    match node:
        case s.DimArrow():
            return f"{dim(node.source)} -> {dim(node.target)}"
        case s.At():
            return f"{node.name} = {flat(node.value)}"
        case _:
            return dim(node)


# ---- expressions on one line


def level(node: s.Expr) -> int:
    """How tightly an expression's outermost operator binds."""
    match node:
        case s.IfThenElse():
            return _IF
        case s.Pipe():
            return _PIPE
        case s.BoolOp():
            return _OR if node.op == "or" else _AND
        case s.Unary():
            return _NOT if node.op == "not" else _UNARY
        case s.Compare():
            return _COMPARE
        case s.Binary():
            return _BINARY.get(node.op, _POWER)
        case s.View() | s.Call() | s.Member():
            return _POSTFIX
        case _:
            return _ATOM


def operands(node: s.Pipe | s.BoolOp | s.Compare | s.Binary) -> tuple[str, int, int]:
    """The operator's text and the levels that its two sides need to stand without parentheses."""
    own = level(node)
    match node:
        case s.Pipe():
            return "|>", _PIPE, _POSTFIX
        case s.Compare():
            return node.op, _SUM, _SUM
        case s.Binary(op="^"):
            return "^", _POSTFIX, _UNARY
        case _:
            return node.op, own, own + 1


def flat(node: s.Expr, needed: int = _IF) -> str:
    """An expression on one line, in parentheses if it binds more loosely than is needed."""
    text = _flat(node)
    return text if level(node) >= needed else f"({text})"


def _flat(node: s.Expr) -> str:  # noqa: PLR0912, a line for each kind of expression
    match node:
        case s.Ref():
            return node.name
        case s.Number():
            return f"{node.text} {node.unit}" if node.unit else node.text
        case s.String():
            return quoted(node.value)
        case s.Bool():
            return "true" if node.value else "false"
        case s.NoneLit():
            return "none"
        case s.TupleLit():
            return f"({', '.join(flat(item) for item in node.items)})"
        case s.ListLit():
            return f"[{', '.join(argument(item) for item in node.items)}]"
        case s.Unary():
            return f"not {flat(node.operand, _NOT)}" if node.op == "not" else f"-{flat(node.operand, _UNARY)}"
        case s.IfThenElse():
            return f"if {flat(node.condition)} then {flat(node.then)} else {flat(node.otherwise)}"
        case s.View():
            return f"{flat(node.target, _POSTFIX)}[{', '.join(view_item(item) for item in node.items)}]"
        case s.Call():
            return f"{flat(node.callee, _POSTFIX)}({', '.join(argument(item) for item in node.args)})"
        case s.Member():
            return f"{member_target(node.target)}.{node.name}"
        case _:
            op, left, right = operands(node)
            return f"{flat(node.left, left)} {op} {flat(node.right, right)}"


def member_target(node: s.Expr) -> str:
    """What stands before a dot; a number would swallow the dot."""
    return f"({flat(node)})" if isinstance(node, s.Number) else flat(node, _POSTFIX)


def argument(node: s.Argument | s.ListItem) -> str:
    """`x`, `drop = 0.1`, `H -> tensor`"""
    match node:
        case s.KwArg() | s.At():
            return f"{node.name} = {flat(node.value)}"
        case s.Arrow():
            return f"{flat(node.source)} -> {flat(node.target)}"
        case _:
            return flat(node)


# ---- broken over lines


def fits(text: str, column: int) -> bool:
    """Whether a text that begins at a column stays within the width; a broken one's own lines count."""
    first, *rest = text.split("\n")
    return column + len(first) <= WIDTH and all(len(line) <= WIDTH for line in rest)


def wrap(node: s.Expr, column: int, indent: int, needed: int = _IF, room: int = 0) -> str:
    """An expression that begins at a column; what goes on in further lines is indented. `room` is kept free behind."""
    text = flat(node, needed)
    if fits(text, column + room):
        return text
    if level(node) < needed:
        return f"({wrap(node, column + 1, indent, room=room + 1)})"
    match node:
        case s.Pipe() | s.BoolOp() | s.Compare() | s.Binary():
            return _wrap_chain(node, column, indent, room)
        case s.IfThenElse():
            parts = (("if ", node.condition), ("then ", node.then), ("else ", node.otherwise))
            lines = (f"{word}{wrap(part, indent + len(word), indent + STEP, room=room)}" for word, part in parts)
            return _newline(indent).join(lines)
        case s.Call():
            head = wrap(node.callee, column, indent, _POSTFIX, room=1)
            return f"{head}({fill(node.args, _end(head, column) + 1, indent, room + 1)})"
        case s.ListLit() | s.TupleLit():
            left, right = "[]" if isinstance(node, s.ListLit) else "()"
            return f"{left}{fill(node.items, column + 1, indent, room + 1)}{right}"
        case s.Unary():
            word = "not " if node.op == "not" else "-"
            return word + wrap(node.operand, column + len(word), indent, level(node), room)
        case s.View():
            last = flat(s.View(node.span, s.Ref(node.span, ""), node.items))
            return wrap(node.target, column, indent, _POSTFIX, room + len(last)) + last
        case s.Member():
            return f"{wrap(node.target, column, indent, _POSTFIX, room)}.{node.name}"
        case _:
            return text


def _wrap_chain(node: s.Pipe | s.BoolOp | s.Compare | s.Binary, column: int, indent: int, room: int) -> str:
    """Operands of one precedence, a line each: `a`, `+ b`, `- c`."""
    own, chain = level(node), list[tuple[str, s.Expr, int]]()
    op, needed, right = operands(node)
    first: s.Expr = node
    while isinstance(first, s.Pipe | s.BoolOp | s.Compare | s.Binary) and level(first) == own:
        op, needed, right = operands(first)
        chain.append((op, first.right, right))
        first = first.left
        if own in (_COMPARE, _POWER):
            break
    text = wrap(first, column, indent, needed, room=4)
    for op, operand, wanted in reversed(chain):
        leads = op in _STARTS_LINE or op == "|>"
        text += _newline(indent) + f"{op} " if leads else f" {op}" + _newline(indent)
        text += wrap(operand, indent + (len(op) + 1 if leads else 0), indent + STEP, wanted, room)
    return text


def fill(nodes: Sequence[s.Argument | s.ListItem], column: int, indent: int, room: int = 0) -> str:
    """Arguments, as many to a line as go."""
    text, at = "", column
    for index, node in enumerate(nodes):
        last = index == len(nodes) - 1
        behind = room if last else 1
        item = argument(node)
        if text and at + 1 + len(item) + behind > WIDTH:
            text, at = text + _newline(indent), indent
        elif text:
            text, at = text + " ", at + 1
        if at + len(item) + behind > WIDTH:
            item = _wrap_argument(node, at, indent + STEP, behind)
        text += item if last else item + ","
        at = _end(item, at) + 1
    return text


def _wrap_argument(node: s.Argument | s.ListItem, column: int, indent: int, room: int) -> str:
    match node:
        case s.KwArg() | s.At():
            name = f"{node.name} = "
            return name + wrap(node.value, column + len(name), indent, room=room)
        case s.Arrow():
            return argument(node)
        case _:
            return wrap(node, column, indent, room=room)


def _newline(indent: int) -> str:
    return "\n" + " " * indent


def _end(text: str, column: int) -> int:
    """The column behind a text that began at a column."""
    last = text.rsplit("\n", 1)
    return len(last[1]) if len(last) == 2 else column + len(text)


# ---- headers


def bracketed(left: str, items: Iterable[str], right: str) -> str:
    """The items in brackets, nothing at all if there are none."""
    text = ", ".join(items)
    return f"{left}{text}{right}" if text else ""


def axes(nodes: tuple[s.Dim, ...] | None) -> str:
    """`[T, D]`, `[]`; nothing where no brackets are written."""
    return "" if nodes is None else f"[{dims(nodes)}]"


def formal(node: s.Formal) -> str:
    """`K = D / H`"""
    return f"{node.name} = {dim(node.default)}" if node.default else f"{node.name}"


def option(node: s.Option) -> str:
    """`mask: fn = full`"""
    kind = f": {node.type}" if node.type else ""
    return f"{node.name}{axes(node.dims)}{kind}{_default(node.default)}"


def port(node: s.Port) -> str:
    """`tokens[T] in V`"""
    return f"{node.name}{axes(node.dims)}{_domain(node.domain)}{_default(node.default)}"


def out(node: s.Out) -> str:
    """`logits[T, V]`"""
    return f"{node.name or ''}{axes(node.dims)}{_domain(node.domain)}"


def signature(node: s.Signature) -> str:
    """`x[T, D] -> [T, D]`"""
    ports = ", ".join(port(item) for item in node.ports)
    outs = ", ".join(out(item) for item in node.outs)
    return f"{ports} -> {outs}" if ports else f"-> {outs}"


def kernel(node: s.Kernel | None) -> str:
    """` kernel "package:name"`"""
    if node is None:
        return ""
    forward = f" {quoted(node.forward.value)}" if node.forward else ""
    return f" kernel{forward}" + (f" backward {quoted(node.backward.value)}" if node.backward else "")


def constructor_head(node: s.Constructor) -> str:
    """`Attention[D, H, G = 1]`"""
    items = (f"{item.name} = {dim(item.dim)}" if isinstance(item, s.DimBind) else dim(item) for item in node.dims)
    return f"{node.name}{bracketed('[', items, ']')}"


def weight_path(node: s.WeightPath) -> str:
    """`blocks[l].attn.q.w`"""
    steps = (f"[{dim(step.dim)}]" if isinstance(step, s.WeightIndex) else f".{step}" for step in node.steps)
    return f"{node.root}{''.join(steps)}"


def _default(node: s.Expr | None) -> str:
    return f" = {flat(node)}" if node else ""


def _domain(node: s.Name | None) -> str:
    return f" in {node}" if node else ""
