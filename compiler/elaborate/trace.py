"""What every expression of a spec turned out to be, for editors.

In: an elaboration that was given a `Trace`. Out: by the place of each expression, declaration and port the first value
that it had, in which frame, and the nodes that it took. An elaboration without one pays a comparison an expression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..base.span import Source, Span
from ..ir.types import Node
from .values import Value
from .writer import Output, Writer

if TYPE_CHECKING:
    from .frame import Frame


@dataclass(frozen=True, slots=True)
class Seen:
    """A value, the frame that it is one in, and what was written to get it."""

    value: Value
    frame: Frame
    nodes: tuple[Node, ...] = ()


@dataclass(slots=True)
class Trace:
    """Everything seen. What is elaborated several times counts with its first time."""

    seen: dict[tuple[Source, int, int], Seen] = field(default_factory=dict[tuple[Source, int, int], Seen])
    frames: dict[tuple[Source, str], Frame] = field(default_factory=dict[tuple[Source, str], "Frame"])

    def watched(self, frame: Frame, span: Span, evaluate: Callable[[], Value]) -> Value:
        """Evaluate an expression and remember what came of it."""
        nodes = _nodes(frame.output)
        before = len(nodes)
        value = evaluate()
        self.note(frame, span, value, tuple(nodes[before:]))
        return value

    def note(self, frame: Frame, span: Span, value: Value, nodes: tuple[Node, ...] = ()) -> None:
        """Remember what stands at a place."""
        self.seen.setdefault((span.source, span.start, span.end), Seen(value, frame, nodes))
        self.frames.setdefault((span.source, frame.title), frame)

    def at(self, span: Span) -> Seen | None:
        """What was seen at exactly this place."""
        return self.seen.get((span.source, span.start, span.end))

    def frame_of(self, source: Source, title: str) -> Frame | None:
        """The first frame of a text that has this title: `block Attention`."""
        return self.frames.get((source, title))


def _nodes(output: Output) -> list[Node]:
    """What is written at the moment; nothing where a pass builds."""
    return output.region.nodes if isinstance(output, Writer) else []
