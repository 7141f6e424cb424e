"""The words of the syntax errors.

In: a token that does not fit and what would. Out: a `Diagnostic` that names both in the reader's terms ("an
expression", "the end of the line"), not in the grammar's.
"""

from dataclasses import replace

from ..base.diagnostic import Diagnostic, Label
from ..base.span import Source, Span
from .advice import DECLARATIONS, advice, completion, no_declaration, unit_meant
from .lexer import Token
from .tables import END, NEWLINE

_GROUPS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset(("NAME", "NUMBER", "STRING", "LPAR", "LSQB", "NOT", "IF")), "an expression"),
    (frozenset(("NAME", "NUMBER", "STRING", "LPAR", "LSQB", "MINUS")), "an expression"),
    (frozenset(("NAME", "NUMBER", "LPAR")), "a dim"),
    (frozenset(("RETURN", "PARAM", "NAME")), "a statement"),
    (frozenset(("BLOCK", "MODEL", "USE")), "a declaration"),
    (frozenset(("ADD", "MUL")), "an operator"),
    (frozenset(("NAME", "LABEL")), "a name or a label"),
)
_MEMBERS: dict[str, frozenset[str]] = {
    "an expression": frozenset(
        ("NAME", "NUMBER", "STRING", "LPAR", "LSQB", "NOT", "IF", "MINUS", "TRUE", "FALSE", "NONE", "ADD")
    ),
    "a dim": frozenset(("NAME", "NUMBER", "LPAR")),
    "a statement": frozenset(
        ("NAME", "RETURN", "PARAM", "DIM", "CHECK", "STATE", "INIT", "ADAPT", "SCAN", "NEXT", "EMIT", "TAP", "SIZES")
    ),
    "a declaration": frozenset(("USE", "FN", "BLOCK", "MODEL", "WEIGHTS", "NAME")),
    "an operator": frozenset(
        ("ADD", "MUL", "POW", "CMP", "AND", "OR", "MINUS", "LPAR", "LSQB", "DOT", "UNIT", "__ANON_0", "__ANON_1")
    ),
    "a name or a label": frozenset(("NAME", "LABEL")),
}
_NAMES = {"NAME": "a name", "NUMBER": "a number", "STRING": "a string", "LABEL": "a label", "UNIT": "a unit",
          "CMP": "a comparison", "ADD": "`+`", "MUL": "`*`", "POW": "`^`",
          NEWLINE: "the end of the line", END: "the end of the text"}  # fmt: skip
_SHOWN = 60


def unexpected(source: Source, token: Token, previous: Token, wanted: set[str], literals: dict[str, str]) -> Diagnostic:
    """A token that the grammar has no place for here."""
    if {literals.get(kind) for kind in wanted} == {"{", "extends"}:
        return _no_declaration(source, previous)
    expected, found = _phrase(wanted, literals), describe(token)
    span = Span(source, token.start, max(token.end, token.start + 1))
    if token.kind in (NEWLINE, END):
        place = Span(source, previous.end - 1, previous.end) if previous.end else source.span(0, 0)
        what = "the line ends too early" if token.kind == NEWLINE else "the text ends too early"
        label = Label(place, "something is missing after this")
        hint = completion(source.text[source.text.rfind("\n", 0, previous.end) + 1 : previous.end], wanted)
        return Diagnostic("E0002", f"{what}: expected {expected}", (label,), hint=hint)
    if NEWLINE in wanted and previous.kind != NEWLINE and not _is_symbol(token):
        label = Label(span, "this does not belong to what stands before it")
        hint = (unit_meant(token.text) if previous.kind == "NUMBER" else None) or "one statement a line"
        return Diagnostic("E0003", f"expected the end of the line, found {found}", (label,), hint=hint)
    if "NAME" in wanted and token.kind in literals and literals[token.kind].isalpha():
        hint = f"`{token.text}` is a word of the language here; choose another name"
        return Diagnostic("E0001", f"expected {expected}, found {found}", (Label(span),), hint=hint)
    if previous.kind in literals and literals[previous.kind].isalpha() and token.text in ("=", ":", ","):
        hint = f"`{previous.text}` is a word of the language here; choose another name"
        return Diagnostic("E0001", f"expected {expected}, found {found}", (Label(span),), hint=hint)
    hint = advice(token, previous, source.text[source.text.rfind("\n", 0, token.start) + 1 : token.start], wanted)
    return Diagnostic("E0001", f"expected {expected}, found {found}", (Label(span),), hint=hint)


def _no_declaration(source: Source, previous: Token) -> Diagnostic:
    """`import std`, `def f(x)`: two words that begin a record, if anything."""
    start = source.text.rfind("\n", 0, previous.start) + 1
    word = source.text[start : previous.start].split(" ")[0] or previous.text
    span = Span(source, start, start + len(word))
    if word in DECLARATIONS:
        title = f"expected `{{` or `extends` after `{word} {previous.text}`"
        return Diagnostic("E0001", title, (Label(Span(source, previous.start, previous.end)),))
    return Diagnostic(
        "E0001", f"no declaration begins with `{word[:_SHOWN]}`", (Label(span),), hint=no_declaration(word)
    )


def continued(problem: Diagnostic, joint: Span) -> Diagnostic:
    """The same with a second label at the end of the line above, which the broken line continues."""
    label = Label(joint, "a line that ends so goes on in the next")
    return replace(problem, labels=(*problem.labels, label))


def describe(token: Token) -> str:
    """A token as a reader would call it."""
    if token.kind in (NEWLINE, END):
        return _NAMES[token.kind]
    text = token.text if len(token.text) <= _SHOWN else token.text[:_SHOWN] + "…"
    return f"`{text}`"


def _is_symbol(token: Token) -> bool:
    return not (token.text[0].isalnum() or token.text[0] in '_"')


def _phrase(wanted: set[str], literals: dict[str, str]) -> str:
    """What is wanted in words: groups first, then the rest, seven at most."""
    left, words = set(wanted), list[str]()
    for needed, name in _GROUPS:
        if needed <= left:
            words.append(name)
            left -= _MEMBERS[name]
    words += sorted(_NAMES.get(kind) or f"`{literals.get(kind, kind)}`" for kind in left)
    if "an operator" in words and len(words) > 1:
        words.remove("an operator")
    shown = words[:7]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}" if shown else "nothing"


def unknown_character(source: Source, at: int) -> Diagnostic:
    """No token begins here: a quote without its other half, or a character that the language does not use."""
    text = source.text
    while at < len(text) and text[at] in " \t":
        at += 1
    end = text.find("\n", at)
    if text[at : at + 1] == '"':
        span = Span(source, at, len(text) if end < 0 else end)
        return Diagnostic("E0004", "a string without its closing quote", (Label(span, "it ends with the line"),))
    char = text[at : at + 1]
    name = f"`{char}`" if char.isprintable() else f"the character U+{ord(char):04X}" if char else "the end"
    return Diagnostic("E0005", f"{name} means nothing here", (Label(Span(source, at, at + 1)),), hint=_instead(char))


def _instead(char: str) -> str | None:
    """The symbol that somebody coming from another language looks for."""
    known = {"'": 'strings stand in double quotes: "…"', "“": 'strings stand in double quotes: "…"',
             ";": "statements end with the line", "&": "write `and`", "|": "write `or`, or `|>` to pipe",
             "!": "write `not`, or `!=`", "−": "write `-`", "×": "write `*`", "@": "write dot[D](x, w)"}  # fmt: skip
    return known.get(char)


def glued(source: Source, left: Token, right: Token) -> Diagnostic:
    """`3us`, `2x`: two words without a space."""
    span = Span(source, left.start, right.end)
    title = f"a space is missing between `{left.text[:_SHOWN]}` and `{right.text[:_SHOWN]}`"
    return Diagnostic("E0006", title, (Label(span),), hint="names begin with a letter; a unit stands apart: 80 GiB")


def never_closed(source: Source, opening: Token, closing: str, found: Token) -> Diagnostic:
    """A bracket is still open where it cannot be."""
    here = Label(Span(source, found.start, max(found.end, found.start)), f"still open at {describe(found)}")
    labels = (Label(Span(source, opening.start, opening.end), "opened here"), here)
    return Diagnostic("E0007", f"`{opening.text}` is never closed", labels, expected=f"`{closing}`")


def too_deep(source: Source, token: Token, limit: int) -> Diagnostic:
    """More nesting than whoever walks the tree could bear."""
    label = Label(Span(source, token.start, token.end))
    hint = "give a part of it a name of its own"
    return Diagnostic("E0008", f"nested more than {limit} deep", (label,), hint=hint)


def unreadable(source: Source, limit: int) -> Diagnostic | None:
    """What keeps a text from being parsed at all."""
    if len(source.text) > limit:
        title = f"a text of {len(source.text):,} characters; at most {limit:,} are read"
        return Diagnostic("E0010", title, (Label(source.span(0, 0)),))
    at = source.text.find("\0")
    if at >= 0:
        return Diagnostic("E0011", f"not text: a byte 0 at offset {at}", (Label(source.span(at, at)),))
    return None


def not_utf8(path: str, data: bytes, error: UnicodeDecodeError) -> Diagnostic:
    """Bytes that are no text."""
    source = Source(path, data[: error.start].decode("utf-8", "replace"))
    at = len(source.text)
    title = f"not UTF-8 text: byte 0x{data[error.start]:02X} at offset {error.start}"
    return Diagnostic("E0011", title, (Label(source.span(at, at)),))
