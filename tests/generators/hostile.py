"""Hostile specs: those of the repository with pieces deleted, swapped and doubled, and texts built to grow without end.

In: a random generator. Out: the bytes of a spec. All that a careless or a malicious hand could write, so that whoever
reads specs can be held to an answer in bounded time and memory.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache

from samples.spec_texts import ROOT

WORD = re.compile(r"[A-Za-z_]\w*")
TOKEN = re.compile(r"[A-Za-z_0-9.]+|\n|[ \t]+|->|\|>|.", re.S)
ODD = (
    "0", "1", "-1", "2", "999999999999", "9" * 30, "9" * 5000, "1e308", "1e999", "1e12", "1e-320", "0.5", "inf", "pi",
    "T", "D", "L", "V", "batch", "none", "true", "x", "std", "random", "gaussian", "dot", "sum", "causal", "training",
    "(G R)", "(H (G R))", "D * D", "D / 7", "x[T -> S]", "(x)", "[D]", "{", "}", "(", ")", "[", "]", ",", "=", "~",
    "->", "|>", "+", "*", "^", "%", "not", "if", "then", "else", "chain", "bank", "of", "scan", "carry", "next", "emit",
    "when", "state", "param", "dim", "check", "tap", "return", "init", "adapt", "weights", "sizes", "extends", "kernel",
    "model", "block", "fn", "train", "cluster", "use std", "use a", "use .. ", '"', "#", "##", "\\", "\x00", "\ufeff",
    "\u202e", "é", "٣", "²", "🙂", "\r", "\t", "1 GiB", "3 Mtokens", "5 us", "(0.9, 0.95)", "[pipe = 2]", "zeros",
)  # fmt: skip


@cache
def corpus() -> tuple[str, ...]:
    """Every spec of the repository, the faulty ones too."""
    return tuple(path.read_text("utf-8") for path in sorted((ROOT / "specs").rglob("*.partita")))


def hostile(rng: random.Random) -> bytes:
    """A spec that somebody broke, or one made to break its reader."""
    kind = rng.random()
    if kind < 0.05:
        return scrambled(rng, rng.choice(corpus()).encode())
    if kind < 0.15:
        return rng.choice(GROWING)(rng).encode("utf-8", "surrogatepass")
    return mutated(rng, rng.choice(corpus())).encode("utf-8", "surrogatepass")


def mutated(rng: random.Random, text: str, most: int = 4) -> str:
    """A few tokens or lines deleted, repeated, exchanged or replaced, or names and numbers by others of the text."""
    for _ in range(rng.randint(1, most)):
        if rng.random() < 0.5:
            text = _renamed(rng, text)
            continue
        by_lines = rng.random() < 0.3
        parts = text.splitlines(keepends=True) if by_lines else TOKEN.findall(text)
        if parts:
            _change(rng, parts, "\n" if by_lines else "")
        text = "".join(parts)
    return text


def _renamed(rng: random.Random, text: str) -> str:
    """A name or number where another one stood: mostly this still parses."""
    parts = TOKEN.findall(text)
    alike = [at for at, part in enumerate(parts) if part[0].isalnum()]
    if not alike:
        return text
    here, there = rng.choice(alike), rng.choice(alike)
    if bool(WORD.match(parts[here])) == bool(WORD.match(parts[there])):
        parts[here] = parts[there]
    return "".join(parts)


def _change(rng: random.Random, parts: list[str], end: str) -> None:
    here, there = rng.randrange(len(parts)), rng.randrange(len(parts))
    match rng.randrange(7):
        case 0:
            del parts[here]
        case 1:
            parts[here] = parts[there]
        case 2:
            parts[here], parts[there] = parts[there], parts[here]
        case 3:
            parts[here] = rng.choice(ODD) + end
        case 4:
            parts.insert(here, parts[there])
        case 5:
            parts.insert(here, rng.choice(ODD) + end)
        case _:
            last = min(len(parts), here + rng.randint(1, 20))
            parts[here:last] = parts[here:last] * rng.choice((0, 2, 2, 50))


def scrambled(rng: random.Random, data: bytes) -> bytes:
    """Random bytes within a spec, in place of one, or a spec cut off."""
    noise = rng.randbytes(rng.randint(1, 60))
    at = rng.randrange(len(data) + 1)
    return rng.choice((noise, data[:at], data[:at] + noise + data[at:], data[:at] + noise + data[at + len(noise) :]))


# ---- texts that grow

MODEL = "model M : x[T, D] -> [T, D] {{\n  dim D = 8\n{0}\n  return {1}\n}}\n"
BLOCK = "block B[D] : x[D] -> [D] {\n  param w[D] ~ zeros\n  return x + w\n}\n"


def _model(own: str, result: str) -> str:
    return MODEL.format(own, result)


def _number(rng: random.Random) -> str:
    return rng.choice(("0", "7", "100", "5000", "1e6", "1e12", "999999", "9" * 25, "9" * 4000, "1e300", "D", "0.5"))


def _chain(rng: random.Random) -> str:
    """`chain 1e12 of`, with an index that makes each layer another one, nested."""
    depth = rng.randint(1, 9)
    blocks = [BLOCK]
    for level in range(depth):
        inner = "B" if level == 0 else f"B{level - 1}"
        index, option = rng.choice((("", ""), ("l in ", ""), ("l in ", "(n = l)")))
        kind = rng.choice(("chain", "chain", "bank"))
        index, option = ("", "") if kind == "bank" else (index, option)
        blocks.append(
            f"block B{level}[D](n = 0) : x[D] -> [D] {{\n"
            f"  a : {kind} {index}{_number(rng)} of {inner}[D]{option if level else ''}\n  return a(x) * n\n}}\n"
        )
    return "".join(blocks) + _model(f"  b : B{depth - 1}[D]", "b(x)")


def _tower(rng: random.Random) -> str:
    """Functions that call each other twice; each level doubles the work."""
    height = rng.choice((3, 12, 20, 60, 300))
    leaf = rng.choice(("x + 1", "x * x", "tanh(x)", "x[D -> E][E -> D]", "sum[D](x) * x", "softmax[D](x)"))
    call = rng.choice(("f{0}(f{0}(x))", "f{0}(x) + f{0}(x)", "f{0}(x + f{0}(1))", "(if true then f{0} else f{0})(x)"))
    dims = "[D]" if "D" in leaf else ""
    text = f"use std\nfn f0{dims}(x) = {leaf}\n"
    for level in range(1, height):
        text += f"fn f{level}{dims}(x) = {call.replace('(', dims + '(', 0).format(str(level - 1) + dims)}\n"
    start = rng.choice(("x", "1", "2.5", "D"))
    return text + _model("", f"x * f{height - 1}{dims}({start})")


def _blocks(rng: random.Random) -> str:
    """Blocks that hold two of the one before."""
    height = rng.choice((2, 8, 16, 200))
    text = BLOCK.replace("B[", "B0[")
    for level in range(1, height):
        text += f"block B{level}[D] : x[D] -> [D] {{\n  a : B{level - 1}[D]\n  b : B{level - 1}[D]\n"
        text += "  return a(b(x)) + b(a(x))\n}\n"
    return text + _model(f"  b : B{height - 1}[D]", "b(x)")


def _circle(rng: random.Random) -> str:
    """Names that lead back to themselves: files, blocks, functions, models, records."""
    return rng.choice(
        (
            "use a\nuse b\n" + _model("", "x"),
            "use hostile\n" + _model("", "x"),
            "block A[D] : x[D] -> [D] {\n  b : C[D]\n  return b(x)\n}\n"
            "block C[D] : x[D] -> [D] {\n  b : A[D]\n  return b(x)\n}\n" + _model("  a : A[D]", "a(x)"),
            "fn f(x) = g(x)\nfn g(x) = f(x + 1)\n" + _model("", "f(x)"),
            "fn f(x, g: fn) = g(x, g)\n" + _model("", "f(x, f)"),
            "model A = B { }\nmodel B = C { }\nmodel C = A { }\n",
            "train a extends b { steps = 1 }\ntrain b extends a { steps = 2 }\n",
            "cluster a extends a { nodes = 2 }\nplan p extends p { }\n",
            _model("  dim A = B, B = A", "x"),
        )
    )


def _deep(rng: random.Random) -> str:
    """One thing inside another, many times."""
    many = rng.choice((30, 99, 101, 500, 20_000))
    left, middle, right = rng.choice(
        (
            ("(", "x", ")"), ("-", "x", ""), ("not ", "x", ""), ("if true then ", "x", " else x"), ("tanh(", "x", ")"),
            ("x + ", "x", ""), ("x ^ ", "x", ""), ("x |> ", "tanh", ""), ("", "x", "[T -> S]"), ("", "x", "(x)"),
            ("", "x", ".y"), ("x[T = ", "0", "]"), ("(x, ", "x", ")"), ("[", "x", "]"), ("where(x > 0, ", "x", ", x)"),
            ("x[", "T", "-> T]"), ("x[(T ", "D", ")]"), ("", "9", " ^ 9"), ("9 ^ ", "9", ""), ("", "x", " - 1"),
        )
    )  # fmt: skip
    return _model("", left * many + middle + right * many)


def _wide(rng: random.Random) -> str:
    """The same thing beside itself, many times."""
    many = rng.choice((100, 3000, 9000))
    part = rng.choice(
        (
            "  y{0} = x + {0}\n", "  param w{0}[D] ~ zeros\n", "  dim E{0} = D * {0}\n", "  x\n", "  b{0} : B[D]\n",
            '  check D > {0}, "no {{D}}"\n', "  tap y{0} = x\n", "  init *.* ~ zeros\n", "  y = z{0}\n", "  return x\n",
            "  y{0} = dot[D](x, x)\n", "  y{0} = x[T -> S{0}]\n", "  sizes {{\n    D{0}\n    a 1\n  }}\n",
        )
    )  # fmt: skip
    outer = rng.random() < 0.3
    text = BLOCK + _model("" if outer else "".join(part.format(at) for at in range(many)), "x")
    line = rng.choice(("fn f{0}(x) = x\n", BLOCK.replace("B[", "B%[").replace("%", "{0}", 1), "use a{0}\n", "fn\n"))
    return text + "".join(line.replace("{0}", str(at)) for at in range(many)) if outer else text


def _huge(rng: random.Random) -> str:
    """Numbers beyond all reason where a size, an option or a value stands."""
    big = _number(rng)
    return rng.choice(
        (
            lambda: _model(f"  param w[{big}, {_number(rng)}] ~ zeros", "x"),
            lambda: _model(f"  dim A = {big} * {big} * {big}\n  param w[A] ~ normal({big})", "x"),
            lambda: _model("", f"x * {big} ^ {_number(rng)} ^ {_number(rng)}"),
            lambda: _model("", f"x * {big} % {_number(rng)} / {_number(rng)}"),
            lambda: "use std\n" + _model(f"  a : Attention[D, {big}](mask = sliding(width = {big}))", "a(x)"),
            lambda: "use std\n" + _model(f"  c : Conv[D, {big}, {big}]", "c(x)"),
            lambda: _model("", f"x + sum[S](index[S = {big}])"),
            lambda: f"train t {{\n  batch = {big}\n  steps = {big}\n  lr = {big}\n  dims = [T = {big}]\n}}\n",
            lambda: f"cluster c {{\n  nodes = {big}\n  device {{ memory = {big} GiB }}\n}}\n",
            lambda: _model(f"  scan t in T carry h = {big} {{\n    next h = h * {big}\n    emit y = h\n  }}", "y"),
        )
    )()


GROWING: tuple[Callable[[random.Random], str], ...] = (_chain, _tower, _blocks, _circle, _deep, _wide, _huge)
