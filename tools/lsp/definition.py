"""Where a name is declared: in the text, in a file that it uses, in the standard library.

In: an analysis and an offset. Out: the span of the declared name. A file of std has its own path, so that an editor can
open it.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ...compiler.base.span import Source, Span
from ...compiler.elaborate.load import STD
from ...compiler.elaborate.values import Chain, Function, Instance
from ...compiler.language import syntax as s
from .analysis import Analysis, Body, locals_of


def definition(analysis: Analysis, offset: int) -> Span | None:
    """The place where the name at an offset is declared, if it is one."""
    path = analysis.path(offset)
    word = analysis.word(offset)
    for node in reversed(path):
        if isinstance(node, s.Use):
            return _file(analysis, node)
        if isinstance(node, s.Member) and node.name.span.start <= offset <= node.name.span.end:
            return _member(analysis, node) or _global(analysis, word)
        if isinstance(node, s.KwArg) and node.name.span.start <= offset <= node.name.span.end:
            return _option(analysis, path[path.index(node) - 1], word)
        if isinstance(node, s.DimBind) and node.name.span.start <= offset <= node.name.span.end:
            owner = path[path.index(node) - 1]
            return _option(analysis, owner, word) if isinstance(owner, s.Constructor) else node.name.span
        if isinstance(node, s.String):
            return None
    return (_local(path, word) or _global(analysis, word)) if word else None


def _local(path: tuple[s.Node, ...], word: str) -> Span | None:
    decl = next((node for node in path if isinstance(node, Body)), None)
    found = () if decl is None else locals_of(decl)
    return next((local.name.span for local in found if local.name.text == word), None)


def _global(analysis: Analysis, word: str) -> Span | None:
    return next((decl.name.span for decl in analysis.declared() if decl.name.text == word), None)


def _file(analysis: Analysis, use: s.Use) -> Span | None:
    """The beginning of the file that is used."""
    key = use.name.parts[-1].text
    modules = analysis.spec.modules[1:] if analysis.spec is not None else ()
    return next((module.source.span(0, 0) for module in modules if module.name == key), None)


def _member(analysis: Analysis, node: s.Member) -> Span | None:
    """What an instance owns: the `table` of `embed.table`."""
    seen = analysis.trace.at(node.target.span)
    if seen is None or not isinstance(seen.value, Instance):
        return None
    own = locals_of(seen.value.decl)
    return next((local.name.span for local in own if local.name.text == node.name.text), None)


def _option(analysis: Analysis, owner: s.Node, word: str) -> Span | None:
    """An option, argument or dim of what is called or made."""
    decl: s.Node | None = None
    if isinstance(owner, s.Constructor):
        decl = analysis.find(owner.name.text)
    elif isinstance(owner, s.Call):
        callee = owner.callee.target if isinstance(owner.callee, s.View) else owner.callee
        seen = analysis.trace.at(callee.span)
        value = seen.value if seen is not None else None
        value = value.templates[0] if isinstance(value, Chain) else value
        known = isinstance(value, Function | Instance)
        decl = value.decl if known else analysis.find(callee.span.text)
    places = () if decl is None else locals_of(decl)
    heads = (s.Formal, s.Option, s.Port)
    return next((p.name.span for p in places if p.name.text == word and isinstance(p.node, heads)), None)


def path_of(source: Source) -> Path:
    """Where a source lies on disk; what comes with Partita is named from its root."""
    path = Path(source.path)
    if path.parts[:1] == ("specs",) and not path.exists():
        return Path(str(resources.files("partita.specs").joinpath(*path.parts[1:])))
    return path.absolute()


__all__ = ["STD", "definition", "path_of"]
