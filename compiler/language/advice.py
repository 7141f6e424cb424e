"""What somebody who comes from another language meant: hints for syntax errors.

In: the token that does not fit, the one before it, what would fit, the line. Out: a hint, or None. These are habits,
not rules of the grammar; the catalogue explains the rules.
"""

import re

from ..base.diagnostic import did_you_mean
from .lexer import Token

DECLARATIONS = ("use", "fn", "block", "model", "weights", "train", "cluster", "plan")
_SIZES = ("KiB", "MiB", "GiB", "TiB", "MB", "GB", "TB")
_UNITS = ("steps", "epochs", "tokens", "ktokens", "Mtokens", "seconds", "minutes", "hours", *_SIZES, "TFLOP/s")
_ALIKE = (
    (("import", "from", "include", "require"), "files are used: use std"),
    (("def", "func", "function", "let"), "a function is fn f(x) = …; what owns parameters is a block"),
    (("class", "module", "layer", "struct"), "a block owns parameters: block B[D] : x[D] -> [D] { … }"),
)  # fmt: skip
_ALONE = re.compile(r"^\s+[A-Za-z_]\w*\s*$")
_REPEATED = re.compile(r":\s*(chain|bank)\s*\(")
_MADE = re.compile(r"^\s+[A-Za-z_]\w*\s*:")


def no_declaration(word: str) -> str:
    """A hint for a word that begins no declaration."""
    known = next((hint for words, hint in _ALIKE if word in words), None)
    return known or did_you_mean(word, DECLARATIONS) or "declarations begin with " + ", ".join(DECLARATIONS)


def completion(line: str, wanted: set[str]) -> str | None:
    """A hint for a line that ends too early."""
    if line.lstrip().startswith("param ") and "TILDE" in wanted:
        return "say how it begins: ~ normal(0.02), ~ zeros, ~ ones"
    return None


def unit_meant(word: str) -> str | None:
    """A hint for a word behind a number that is nearly a unit."""
    return did_you_mean(word, _UNITS)


def advice(token: Token, previous: Token, line: str, wanted: set[str]) -> str | None:
    """A hint for a token that does not fit; `line` is what stands before it in its line."""
    if token.text == "/" and previous.text == "/" and previous.end == token.start:
        return "a comment begins with #"
    if token.text == "*" and previous.text == "*" and previous.end == token.start:
        return "a power is x ^ 2"
    repeated = _REPEATED.search(line)
    if repeated is not None:
        return f"repetition is written {repeated[1]} L of Layer[…]"
    if token.text == "{" and previous.text == "=":
        return "a section has no `=` before its brace; names and values in a list are [T = 128]"
    if previous.kind == "NUMBER" and token.kind == "NAME" and line.count("[") > line.count("]"):
        return f"a product of sizes is {previous.text} * {token.text}, a group of axes ({previous.text} {token.text})"
    if previous.kind == "NUMBER" and token.kind == "NAME":
        return unit_meant(token.text) or f"`{token.text}` is no unit; those of counts are steps, epochs, tokens"
    if _MADE.match(line) and token.kind in ("ADD", "MUL", "MINUS", "POW", "NUMBER"):
        return "`:` makes an instance of a block; a value is computed with `=`"
    if _ALONE.match(line) and "EQUAL" in wanted and token.kind not in ("NAME", "NUMBER", "STRING"):
        return "a line that only computes does nothing: give it a name (y = …) or return it"
    if token.text == ":" and line.split(" ", 1)[0] in ("block", "model") and " : " in line:
        return "what comes out stands behind `->`"
    return None
