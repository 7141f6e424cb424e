"""The language server proper: pygls hears the editor, the other modules answer.

In: texts as they are typed. Out: diagnostics a moment after each change, hover, definitions, completion, formatting. A
text is read anew at every change, which takes some tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

from lsprotocol import types as lsp
from pygls.lsp.server import LanguageServer
from pygls.uris import from_fs_path, to_fs_path
from pygls.workspace import PositionCodec, TextDocument

from ...compiler.base.diagnostic import Diagnostic, Severity, SpecError
from ...compiler.base.span import Source, Span
from ...compiler.elaborate.load import SUFFIX, Search, beside
from ...compiler.language.format import format as formatted
from .analysis import Analysis, analyse
from .completion import completion
from .definition import definition, path_of
from .hover import hover

PAUSE = 0.1  # seconds without a keystroke before a text is checked
KINDS: Mapping[str, lsp.CompletionItemKind] = MappingProxyType(
    {
        "dim": lsp.CompletionItemKind.TypeParameter,
        "option": lsp.CompletionItemKind.Property,
        "key": lsp.CompletionItemKind.Property,
        "function": lsp.CompletionItemKind.Function,
        "block": lsp.CompletionItemKind.Class,
        "model": lsp.CompletionItemKind.Class,
        "keyword": lsp.CompletionItemKind.Keyword,
        "file": lsp.CompletionItemKind.File,
        "instance": lsp.CompletionItemKind.Field,
        "parameter": lsp.CompletionItemKind.Field,
        "input": lsp.CompletionItemKind.Variable,
        "value": lsp.CompletionItemKind.Variable,
    }
)


class Server(LanguageServer):
    """The texts that are open, each with its analysis at its last version."""

    def __init__(self) -> None:
        super().__init__("partita", _version(), text_document_sync_kind=lsp.TextDocumentSyncKind.Full)
        self.known: dict[str, tuple[str, Analysis]] = {}
        self.waiting: dict[str, asyncio.Task[None]] = {}
        self.told: dict[str, set[str]] = {}  # by text: where its diagnostics were published

    def analysis(self, uri: str) -> Analysis:
        """What is known of an open text as it now stands."""
        text = self.workspace.get_text_document(uri).source
        found = self.known.get(uri)
        if found is None or found[0] != text:
            source = Source(to_fs_path(uri) or uri, text)
            self.known[uri] = found = (text, analyse(source, self.search(source)))
        return found[1]

    def search(self, source: Source) -> Search:
        """Finds what a text uses: first among the open texts, then on disk."""
        on_disk = beside(source)

        def find(parts: tuple[str, ...]) -> Source | None:
            path = Path(source.path).parent.joinpath(*parts[:-1], parts[-1] + SUFFIX)
            uri = from_fs_path(str(path)) or ""
            document = self.workspace.text_documents.get(uri)
            return Source(str(path), document.source) if document is not None else on_disk(parts)

        return find

    def check_soon(self, uri: str) -> None:
        """Checks a text when nothing was typed for a moment; and the open texts that may use it."""
        task = self.waiting.get(uri)
        if task is not None:
            task.cancel()
        self.waiting[uri] = asyncio.get_running_loop().create_task(self._check_after_pause(uri))

    async def _check_after_pause(self, uri: str) -> None:
        await asyncio.sleep(PAUSE)
        for other in [uri, *(name for name in self.workspace.text_documents if name != uri)]:
            if other != uri:
                self.known.pop(other, None)
            self.publish(other)

    def publish(self, uri: str) -> None:
        """Tells the editor what is wrong with a text, in whichever file it is."""
        if uri not in self.workspace.text_documents:
            return
        found: dict[str, list[lsp.Diagnostic]] = {uri: []}
        for item in self.analysis(uri).diagnostics:
            place = self.uri_of(item.span) if item.span is not None else uri
            found.setdefault(place, []).append(self.diagnostic(item))
        for place in self.told.get(uri, set()) - found.keys():
            found[place] = []
        self.told[uri] = {place for place, items in found.items() if items}
        for place, items in found.items():
            self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(place, items))

    def forget(self, uri: str) -> None:
        """A text was closed."""
        self.known.pop(uri, None)
        for place in self.told.pop(uri, set()) | {uri}:
            self.text_document_publish_diagnostics(lsp.PublishDiagnosticsParams(place, []))

    # ---- to the editor's terms

    @property
    def codec(self) -> PositionCodec:
        return self.workspace.position_codec

    def uri_of(self, span: Span) -> str:
        return from_fs_path(str(path_of(span.source))) or span.source.path

    def range_of(self, span: Span) -> lsp.Range:
        lines = [f"{line}\n" for line in span.source.text.split("\n")]  # as spans count them
        ends = (span.source.position(at) for at in (span.start, max(span.end, span.start)))
        start, end = (lsp.Position(line - 1, column - 1) for line, column in ends)
        return self.codec.range_to_client_units(lines, lsp.Range(start, end))

    def location(self, span: Span) -> lsp.Location:
        return lsp.Location(self.uri_of(span), self.range_of(span))

    def offset(self, uri: str, position: lsp.Position) -> int:
        """The offset of a place in a text; beyond its end is its end."""
        document: TextDocument = self.workspace.get_text_document(uri)
        return min(document.offset_at_position(position), len(document.source))

    def diagnostic(self, item: Diagnostic) -> lsp.Diagnostic:
        """With what was expected and found, the hint, and the other places that have to do with it."""
        parts = [
            item.title,
            *([item.labels[0].text] if item.labels and item.labels[0].text else []),
            *([f"expected {item.expected}"] if item.expected else []),
            *([f"found {item.found}"] if item.found else []),
            *item.notes,
            *([f"hint: {item.hint}"] if item.hint else []),
        ]
        start = lsp.Position(0, 0)
        return lsp.Diagnostic(
            range=self.range_of(item.span) if item.span is not None else lsp.Range(start, start),
            message="\n".join(parts),
            severity=lsp.DiagnosticSeverity.Error
            if item.severity is Severity.ERROR
            else lsp.DiagnosticSeverity.Warning,
            code=item.code,
            source="partita",
            related_information=[
                lsp.DiagnosticRelatedInformation(self.location(label.span), label.text) for label in item.labels[1:]
            ],
        )


def make() -> Server:
    """A server with all that it answers."""
    server = Server()
    feature = server.feature

    @feature(lsp.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: lsp.DidOpenTextDocumentParams) -> None:
        server.check_soon(params.text_document.uri)

    @feature(lsp.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: lsp.DidChangeTextDocumentParams) -> None:
        server.check_soon(params.text_document.uri)

    @feature(lsp.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: lsp.DidCloseTextDocumentParams) -> None:
        server.forget(params.text_document.uri)

    @feature(lsp.TEXT_DOCUMENT_HOVER)
    def hovered(params: lsp.HoverParams) -> lsp.Hover | None:
        uri = params.text_document.uri
        found = hover(server.analysis(uri), server.offset(uri, params.position))
        if found is None:
            return None
        return lsp.Hover(lsp.MarkupContent(lsp.MarkupKind.Markdown, found[0]), server.range_of(found[1]))

    @feature(lsp.TEXT_DOCUMENT_DEFINITION)
    def defined(params: lsp.DefinitionParams) -> lsp.Location | None:
        uri = params.text_document.uri
        span = definition(server.analysis(uri), server.offset(uri, params.position))
        return None if span is None else server.location(span)

    @feature(lsp.TEXT_DOCUMENT_COMPLETION, lsp.CompletionOptions(trigger_characters=["[", "(", ":", "="]))
    def completed(params: lsp.CompletionParams) -> list[lsp.CompletionItem]:
        uri = params.text_document.uri
        found = completion(server.analysis(uri), server.offset(uri, params.position))
        return [
            lsp.CompletionItem(label=one.text, kind=KINDS[one.kind], detail=one.detail, documentation=one.doc)
            for one in found
        ]

    @feature(lsp.TEXT_DOCUMENT_FORMATTING)
    def format_text(params: lsp.DocumentFormattingParams) -> list[lsp.TextEdit]:
        document = server.workspace.get_text_document(params.text_document.uri)
        try:
            text = formatted(document.source)
        except SpecError:  # what cannot be read stays as it is; the diagnostics say why
            return []
        end = lsp.Position(len(document.lines) + 1, 0)
        return [] if text == document.source else [lsp.TextEdit(lsp.Range(lsp.Position(0, 0), end), text)]

    return server


def serve() -> None:
    """Speaks over standard input and output until the editor leaves."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")  # pygls closes what it is given
    make().start_io(sys.stdin.buffer, out)


def _version() -> str:
    try:
        return version("partita")
    except PackageNotFoundError:
        return "0"
