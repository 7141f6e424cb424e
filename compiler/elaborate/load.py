"""From a text to a `Spec`: its tree, those of the files that it uses, and the table of names of each.

`use name` is a file beside the spec, `use a.b` one in a folder below it, `use std` the library that comes with Partita,
`use models.llama3` a model that comes with it, if no file beside the spec is called so. Nothing else can be reached, so
a spec never reads outside its folder; what comes with Partita uses only what comes with it. Own names come first, then
those of the files used, the nearest first; two files used that both declare a name leave it to be written with its
file: `other.Linear`. A file of the standard library sees its siblings without a `use`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from ..base.diagnostic import Diagnostic, Diagnostics, Label, SpecError
from ..base.span import Source, Span
from ..language import syntax as s
from ..language.parse import Parsed, parse, read_source

SUFFIX = ".partita"
SPECS = Path(__file__).parents[2] / "specs"  # what comes with Partita
STD = "std"
MODELS = "models"
MAX_FILES = 100

Named: TypeAlias = s.Fn | s.Block | s.Model | s.Derived
Search: TypeAlias = Callable[[tuple[str, ...]], Source | None]


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """One text: what it declares, what it uses."""

    name: str
    source: Source
    file: s.File
    own: Mapping[str, Named]
    uses: tuple[Module, ...]
    is_std: bool

    def find(self, name: str) -> tuple[tuple[Named, Module], ...]:
        """Who declares a name as seen from here: nobody, one, or several that clash."""
        level, seen = [self], {id(self)}
        while level:
            found = [(module.own[name], module) for module in level if name in module.own]
            if found:
                return tuple(found)
            below = [used for module in level for used in module.uses]
            level = [module for module in below if not (id(module) in seen or seen.add(id(module)))]
        return ()

    def visible(self) -> set[str]:
        """Every name that `find` knows."""
        return {name for module in reachable(self) for name in module.own}

    def used(self, name: str) -> Module | None:
        """The file of that name among those used: the `std` of `std.Linear`."""
        return next((module for module in reachable(self) if module.name == name), None)


@dataclass(frozen=True, slots=True)
class Spec:
    """A spec and all that it uses. `records` of every file by (kind, name), the nearest file's first."""

    main: Module
    modules: tuple[Module, ...]
    records: Mapping[tuple[str, str], s.Record] = field(repr=False)

    @property
    def models(self) -> Mapping[str, s.Model | s.Derived]:
        """The models of the main file in order, then those of the files it uses."""
        found: dict[str, s.Model | s.Derived] = {}
        for module in self.modules:
            for name, decl in module.own.items():
                if isinstance(decl, s.Model | s.Derived):
                    found.setdefault(name, decl)
        return found


def reachable(module: Module) -> Iterator[Module]:
    """A module and what it uses, the nearest first, each once."""
    queue, seen = [module], {id(module)}
    while queue:
        current = queue.pop(0)
        yield current
        for used in current.uses:
            if id(used) not in seen:
                seen.add(id(used))
                queue.append(used)


def load(source: Source, search: Search | None = None) -> tuple[Spec | None, list[Diagnostic]]:
    """Parse a spec and what it uses. `search` finds the text of a `use` (beside the spec, if it is left out).

    The spec is None if anything could not be read.
    """
    loader = _Loader(search or beside(source))
    main = loader.of_std(source) if _in_std(source) else loader.module((Path(source.path).stem,), source, is_std=False)
    if loader.sink.errors:
        return None, list(loader.sink)
    modules = tuple(reachable(main))
    records: dict[tuple[str, str], s.Record] = {}
    for module in modules:
        for decl in module.file.declarations:
            if isinstance(decl, s.Record):
                records.setdefault((decl.kind.text, decl.name.text), decl)
    return Spec(main, modules, MappingProxyType(records)), list(loader.sink)


def beside(source: Source) -> Search:
    """Finds `use a.b` as `a/b.partita` in the folder of a text, and never outside of it."""
    folder = Path(source.path).parent

    def find(parts: tuple[str, ...]) -> Source | None:
        path = folder.joinpath(*parts[:-1], parts[-1] + SUFFIX)
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            return None
        return read_source(path)

    return find


def std_sources() -> Iterator[Source]:
    """The texts of the standard library, in order of their names."""
    for item in sorted((SPECS / STD).glob("*" + SUFFIX)):
        yield Source(f"specs/{STD}/{item.name}", item.read_text("utf-8"))


def _in_std(source: Source) -> bool:
    """Whether a text is a file of the standard library that was opened for itself."""
    path = Path(source.path)
    if path.parent.name != STD or path.suffix != SUFFIX:
        return False
    return path.resolve().parent == (SPECS / STD).resolve()


@cache
def std_parsed() -> tuple[Parsed, ...]:
    """The standard library's texts as trees: whoever checks again and again reads them once."""
    return tuple(parse(source) for source in std_sources())


def brought_by_std(module: Module, name: str) -> str | None:
    """A hint where a name is one of the standard library's, and the file does not use it."""
    if module.is_std or module.used(STD) is not None:
        return None
    declared = (d.name.text for p in std_parsed() for d in p.file.declarations if isinstance(d, s.Fn | s.Block))
    return f"`use {STD}` at the top of the file brings {name} in" if name in declared else None


def shipped(parts: tuple[str, ...]) -> Source | None:
    """Finds `use models.llama3` among the models that come with Partita."""
    if len(parts) != 2 or parts[0] != MODELS:
        return None
    name = parts[1] + SUFFIX
    found = next((item for item in (SPECS / MODELS).iterdir() if item.name == name), None)
    return None if found is None else Source(f"specs/{MODELS}/{name}", found.read_text("utf-8"))


@dataclass
class _Loader:
    search: Search
    sink: Diagnostics = field(default_factory=Diagnostics)
    done: dict[tuple[str, ...], Module] = field(default_factory=dict[tuple[str, ...], Module])
    open: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    within: bool = False  # a model that comes with Partita is being read

    def module(self, key: tuple[str, ...], source: Source, is_std: bool) -> Module:
        return self._module(key, parse(source), is_std)

    def of_std(self, source: Source) -> Module:
        """A file of the standard library: it sees the others as if it were one of them."""
        alone = self.module((Path(source.path).stem,), source, is_std=True)
        return replace(alone, uses=(*alone.uses, self._std((STD,))))

    def _module(self, key: tuple[str, ...], parsed: Parsed, is_std: bool) -> Module:
        self.sink.extend(parsed.diagnostics)
        own = self._own(parsed.file.declarations)
        self.open.append(key)
        uses = [d for d in parsed.file.declarations if isinstance(d, s.Use)]
        found = [module for use in uses if (module := self._use(use)) is not None]
        self.open.pop()
        return Module(key[-1], parsed.file.span.source, parsed.file, MappingProxyType(own), tuple(found), is_std)

    def _own(self, declarations: Iterable[s.Declaration]) -> dict[str, Named]:
        own: dict[str, Named] = {}
        for decl in declarations:
            if not isinstance(decl, s.Fn | s.Block | s.Model | s.Derived):
                continue
            self._told_apart(decl)
            if isinstance(decl, s.Fn) and decl.body is None and (decl.kernel is None or decl.kernel.forward is None):
                hint = f'fn {decl.name}(…) = …, or the name of a kernel: kernel "package:function"'
                self.sink.error("E0112", f"`{decl.name}` has no body", decl.name.span, "what does it give?", hint=hint)
            first = own.setdefault(decl.name.text, decl)
            if first is not decl:
                others = (Label(first.name.span, "here first"),)
                self.sink.error(
                    "E0102", f"`{decl.name}` is declared twice", decl.name.span, "again here", others=others
                )
        return own

    def _told_apart(self, decl: Named) -> None:
        """The dims of a head have names of their own; so have its options and inputs."""
        ports = decl.signature.ports if isinstance(decl, s.Block | s.Model) else ()
        formals = decl.formals if isinstance(decl, s.Fn | s.Block) else ()
        for names in ([part.name for part in formals], [part.name for part in (*decl.options, *ports)]):
            seen: dict[str, s.Name] = {}
            for name in names:
                first = seen.setdefault(name.text, name)
                if first is not name:
                    title = f"`{name}` stands twice in the head of {decl.name}"
                    others = (Label(first.span, "here first"),)
                    self.sink.error("E0102", title, name.span, "again here", others=others)

    def _use(self, use: s.Use) -> Module | None:
        if self.sink.full:
            return None
        key = tuple(part.text for part in use.name.parts)
        key = (MODELS, *key) if self.within and len(key) == 1 and key != (STD,) else key
        if key in self.open:
            way = " -> ".join(".".join(step) for step in (*self.open[self.open.index(key) :], key))
            self.sink.error("E0104", f"files use each other: {way}", use.span, "this closes the circle")
            return None
        if key not in self.done:
            if len(self.done) >= MAX_FILES:
                self.sink.error("E0103", f"more than {MAX_FILES} files are used", use.span)
                return None
            module = self._std(key) if key == (STD,) else self._beside(key, use.name.span)
            if module is None:
                return None
            self.done[key] = module
        return self.done[key]

    def _beside(self, key: tuple[str, ...], span: Span) -> Module | None:
        try:
            source = None if self.within else self.search(key)
        except SpecError as error:
            self.sink.extend(error.diagnostics)
            return None
        if source is not None:
            return self.module(key, source, is_std=False)
        source = shipped(key)
        if source is None:
            self._not_found(key, span)
            return None
        before, self.within = self.within, True
        try:
            return self.module(key, source, is_std=False)
        finally:
            self.within = before

    def _not_found(self, key: tuple[str, ...], span: Span) -> None:
        name = "/".join(key) + SUFFIX
        hint = "`use name` means a file beside the spec, `use a.b` one in the folder a below it; `use std` the library"
        if shipped((MODELS, key[-1])) is not None:
            hint = f"Partita comes with a model of that name: use {MODELS}.{key[-1]}"
        self.sink.error("E0103", f"there is no {name} beside the spec", span, "used here", hint=hint)

    def _std(self, key: tuple[str, ...]) -> Module:
        """All files of std make one module; its spans keep their own files."""
        parts = [self._module((STD, p.file.span.source.path), p, is_std=True) for p in std_parsed()]
        assert parts, "the standard library is not installed"
        own: dict[str, Named] = {}
        for part in parts:
            own.update(part.own)
        return Module(STD, parts[0].source, parts[0].file, MappingProxyType(own), (), is_std=True)
