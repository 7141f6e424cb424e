"""What a pass is, and the runner that checks the graph on both sides of each.

In: a graph, the level that it is at and a list of passes. Out: the graph after all of them. A pass is a frozen
dataclass whose fields are its options; its name is the same in code, in text, in its file's name and in its test's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol

from ..ir.graph import Graph
from ..ir.levels import MODEL, Level
from ..ir.verify import verify
from ..ops.check import check_node


class Pass(Protocol):
    """A transformation of a graph that keeps its values and gradients.

    name        as the registry and the command line call it
    levels      at which it may run
    gives       the level of its result; None: that of its input
    idempotent  whether a second run changes nothing more
    """

    name: ClassVar[str]
    levels: ClassVar[tuple[Level, ...]]
    gives: ClassVar[Level | None]
    idempotent: ClassVar[bool]

    def __call__(self, graph: Graph) -> Graph:
        """The transformed graph; raises SpecError where the user asked for what cannot be."""
        ...


def run_passes(
    graph: Graph, passes: Iterable[Pass], level: Level = MODEL, after: Callable[[Pass, Graph], None] | None = None
) -> Graph:
    """Runs the passes in order; `after` sees the graph behind each (to print it, to count)."""
    check(graph, level, "the graph given to the passes")
    for transform in passes:
        before = graph
        allowed = [one.name for one in transform.levels]
        assert level.name in allowed, f"{transform.name} runs at {', '.join(allowed)}, not at {level.name}"
        graph = transform(graph)
        level = transform.gives or level
        check(graph, level, f"the graph after {transform.name}", before)
        if after is not None:
            after(transform, graph)
    return graph


def check(graph: Graph, level: Level, what: str, sound: Graph | None = None) -> None:
    """Asserts that the graph is sound at the level. sound: a graph that it was made from, checked already."""
    problems = verify(graph, level, check_node, sound)
    shown = "\n  ".join(str(problem) for problem in problems[:20])
    assert not problems, f"{what} is not sound at level {level.name}:\n  {shown}"
