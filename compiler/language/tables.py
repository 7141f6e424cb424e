"""The parse tables: grammar.lark through lark, once, then from a cache.

In: the grammar's text. Out: `Tables`, plain data (terminals as regular expressions, rules, LALR states). Building them
takes lark half a second, loading them a few milliseconds, so they are kept as JSON in the user's cache folder. Only
data is read back, its checksum and shape are checked, and whatever is wrong with it, the tables are built again.
"""

import json
import os
import tempfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

GRAMMAR = Path(__file__).with_name("grammar.lark")
FORMAT = 2  # of the cache file; one grammar gives equivalent tables under every version of lark
END = "$END"
NEWLINE = "_NL"


@dataclass(frozen=True, slots=True)
class Terminal:
    """A token kind. `literal` is its text if it has only one."""

    name: str
    pattern: str
    literal: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A production. Of its `size` symbols those in `kept` become children: (index, splice it?, Nones before it)."""

    origin: str
    label: str  # the alias or the rule's name; one that starts with "_" is a list to splice into its parent
    size: int
    unwrap: bool  # a single child stands for the whole
    kept: tuple[tuple[int, bool, int], ...]
    nones_after: int
    unit: bool  # one symbol whose value stands for the whole


@dataclass(frozen=True, slots=True)
class Tables:
    """`states[s][symbol]`: n > 0 goes to state n - 1 (shift, goto), n < 0 reduces by rule -n - 1."""

    terminals: tuple[Terminal, ...]  # in the order in which the lexer tries them
    ignored: frozenset[str]
    rules: tuple[Rule, ...]
    states: tuple[dict[str, int], ...]
    start: int
    end: int


@cache
def tables() -> Tables:
    """The grammar's tables, from the cache if it holds them."""
    return load_tables(GRAMMAR.read_text("utf-8"), cache_folder())


def cache_folder() -> Path:
    """`$PARTITA_CACHE`, else `partita` in the user's cache folder."""
    own = os.environ.get("PARTITA_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "partita"


def load_tables(grammar: str, folder: Path) -> Tables:
    """The tables of a grammar: read from `folder`, or built and, where that can be, written there."""
    path = folder / f"grammar-{FORMAT}-{zlib.crc32(grammar.encode()):08x}.json"
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        return _decode(path.read_text("utf-8"), grammar)
    data = build_tables(grammar)
    with suppress(OSError):
        _write_atomically(path, _encode(data, grammar))
    return decode_tables(data)


# ---- the cache file: a line that says what follows, then the tables


def _encode(data: dict[str, Any], grammar: str) -> str:
    body = json.dumps(data, separators=(",", ":"))
    return json.dumps({"format": FORMAT, "crc": zlib.crc32(body.encode()), "grammar": grammar}) + "\n" + body


def _decode(text: str, grammar: str) -> Tables:
    """Raises ValueError, TypeError or KeyError if the text is not what `_encode` writes for this grammar."""
    head, _, body = text.partition("\n")
    if json.loads(head) != {"format": FORMAT, "crc": zlib.crc32(body.encode()), "grammar": grammar}:
        raise ValueError("another grammar's tables, or damaged")
    return decode_tables(json.loads(body))


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        raise


def decode_tables(data: dict[str, Any]) -> Tables:
    """Tables from JSON's types. Raises ValueError, TypeError or KeyError if they are none."""
    terminals = tuple(Terminal(str(name), str(pattern), literal) for name, pattern, literal in data["terminals"])
    rules = tuple(_rule_from(*rule) for rule in data["rules"])
    states: list[dict[str, int]] = data["states"]
    low, high = -len(rules), len(states)
    if not all(low <= target <= high for state in states for target in state.values()):
        raise ValueError("a target that is no state and no rule")
    ignored: list[str] = data["ignored"]
    return Tables(terminals, frozenset(ignored), rules, tuple(states), int(data["start"]), int(data["end"]))


def _rule_from(origin: str, label: str, size: int, unwrap: bool, kept: list[list[int]], nones: int) -> Rule:
    shape = tuple((index, bool(splice), before) for index, splice, before in kept)
    return Rule(origin, label, size, unwrap, shape, nones, unwrap and size == 1 and shape == ((0, False, 0),))


# ---- building, the only place that loads lark


def build_tables(grammar: str) -> dict[str, Any]:
    """The tables of a grammar as JSON's types."""
    from lark import Lark  # late: the tables are cached, and lark costs a fifth of the time that `check` has

    lark: Any = Lark(grammar, parser="lalr", lexer="contextual", maybe_placeholders=True)
    table = lark.parser.parser._parse_table
    number = {rule: index for index, rule in enumerate(lark.rules)}
    order = {state: index for index, state in enumerate(_reached(table))}

    def target(action: Any, arg: Any) -> int:
        return order[arg] + 1 if str(action) == "Shift" else -number[arg] - 1

    return {
        "terminals": [_terminal(terminal) for terminal in sorted(lark.terminals, key=_precedence)],
        "ignored": sorted(lark.ignore_tokens),
        "rules": [_rule(rule) for rule in lark.rules],
        "states": [{name: target(*do) for name, do in sorted(table.states[state].items())} for state in order],
        "start": order[table.start_states["start"]],
        "end": order[table.end_states["start"]],
    }


def _reached(table: Any) -> list[Any]:
    """The states in the order in which they are reached, so that a grammar has one numbering (lark's own varies)."""
    found = [table.start_states["start"]]
    seen = set(found)
    for state in found:
        for _, (action, arg) in sorted(table.states[state].items()):
            if str(action) == "Shift" and arg not in seen:
                seen.add(arg)
                found.append(arg)
    return found


def _precedence(terminal: Any) -> tuple[int, int, int, str]:
    """Lark's own order of trying: priority, longest possible match, longest pattern, name."""
    pattern = terminal.pattern
    return (-terminal.priority, -pattern.max_width, -len(pattern.value), terminal.name)


def _terminal(terminal: Any) -> list[Any]:
    pattern = terminal.pattern
    return [terminal.name, pattern.to_regexp(), pattern.value if pattern.type == "str" else None]


def _rule(rule: Any) -> list[Any]:
    """Lark's way of shaping a tree (its parse_tree_builder) as data: what is kept, spliced, or absent (None)."""
    symbols, options = rule.expansion, rule.options
    absent = "".join(str(int(flag)) for flag in options.empty_indices or [False] * len(symbols))
    gaps = [len(ones) for ones in absent.split("0")]
    kept: list[list[Any]] = []
    nones = 0
    for index, symbol in enumerate(symbols):
        nones += gaps[index]
        if not (symbol.is_term and symbol.filter_out):
            kept.append([index, not symbol.is_term and symbol.name.startswith("_"), nones])
            nones = 0
    label = rule.alias or str(rule.origin.name)
    unwrap = bool(options.expand1) and not rule.alias
    return [str(rule.origin.name), label, len(symbols), unwrap, kept, nones + gaps[len(symbols)]]
