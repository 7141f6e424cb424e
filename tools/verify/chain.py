"""The chain of forms of one program, run and compared until the first fault.

In: a graph with a loss, the passes that make a step of it and, on a mesh, how the step is laid out. Out: a line for
each pass with what was compared, and the fault, if there is one: the first pass whose results differ from those of the
form before, and in it the first node. What a pass brings in anew has an oracle of its own: gradients are held to
differences of the loss, updates to the optimizer's function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ...compiler.base.diagnostic import SpecError
from ...compiler.ir.graph import Graph
from ...compiler.ir.layout import Mesh
from ...compiler.ir.levels import LOSS
from ...compiler.ir.types import Node
from ...compiler.ops.definition import Array, TypeRuleError
from ...compiler.passes import Pass, run_passes
from ...compiler.passes.differentiate import Differentiate
from ...compiler.passes.documents import Documents
from ...compiler.passes.update import GRADIENT_PREFIX, Update
from .forms import Alone, Form, OnMesh
from .lowered import PROGRAM, Hosting, Lowered, Stages, masks_drawn, weights_drawn
from .lying import first_unfit
from .slopes import SLOPE, Slopes
from .updates import NORM, updated
from .values import ALLOWED, Gap, distance, is_drawn, leaf_values, one_document

_PLACES = frozenset({"start", "extent"})  # of a part, not of the whole
Broken = (AssertionError, TypeRuleError, KeyError, IndexError, ValueError)  # a pass that does not even hold together


@dataclass(frozen=True, slots=True)
class Line:
    """A pass that agrees. compared: values that the form before has too. error: the largest of its results'."""

    name: str
    nodes: int
    compared: int
    error: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Where the first two forms differ. after: the pass. node: the first of its graph that differs, if one was found.
    results: what the step gives otherwise. gap: at the node. said: what a pass said that did not hold together."""

    after: str
    node: Node | None
    results: tuple[str, ...]
    gap: Gap | None
    said: str = ""


@dataclass
class Chain:
    """One program under way: the passes that agree, and what was found at fault."""

    name: str
    seed: int
    lines: list[Line] = field(default_factory=list[Line])
    fault: Fault | None = None

    # ---- one device

    def passes(self, loss: Graph, passes: Sequence[Pass]) -> Alone | None:
        """Runs the passes and compares each with the one before; the last form, or None where one is at fault."""
        graphs = [("elaborate", loss)]
        said = ""
        try:
            run_passes(loss, passes, LOSS, lambda one, graph: graphs.append((one.name, graph)))
        except SpecError:
            raise
        except Broken as fault:
            said = str(fault) or type(fault).__name__
        leaves = leaf_values((graph for _, graph in graphs), self.seed)
        form = Alone("elaborate", loss, leaves)
        self.lines.append(Line(form.name, len(loss), 0, 0.0, _loss_text(form)))
        for transform, (name, graph) in zip(passes, graphs[1:], strict=False):
            after = Alone(name, graph, leaves)
            same = Alone(name, graph, {**leaves, **one_document(leaves)}) if isinstance(transform, Documents) else after
            if not (self._same(form, same) and self._anew(transform, form, after)):
                return None
            form = after
        if said:
            self.fault = Fault(passes[len(graphs) - 1].name, None, (), None, said)
            return None
        return form

    def _anew(self, transform: Pass, before: Alone, after: Alone) -> bool:
        """What the pass brings in, against its oracle."""
        if isinstance(transform, Differentiate):
            return self._slopes(Slopes(before, after, transform.loss))
        if isinstance(transform, Update):
            return self._updates(transform, before, after)
        return True

    def _slopes(self, slopes: Slopes) -> bool:
        gaps = list(slopes.parameters())
        far = [gap for gap in gaps if gap.error > SLOPE]
        if far:
            node, gap = slopes.first_wrong() or (None, far[0])
            names = tuple(f"{GRADIENT_PREFIX}{gap.value[0]}" for gap in far)
            self.fault = Fault(slopes.after.name, node or _node_of(slopes.after.graph, names[0]), names, gap)
            return False
        error = max((gap.error for gap in gaps), default=0.0)
        note = f"{len(gaps)} gradients against differences of the loss: {error:.0e}"
        self._note(note)
        return True

    def _updates(self, update: Update, before: Alone, after: Alone) -> bool:
        gradients = {
            name.removeprefix(GRADIENT_PREFIX): value
            for name, value in before.trace.results.items()
            if name.startswith(GRADIENT_PREFIX)
        }
        wanted = updated(update, before.graph, gradients, after.leaves)
        if NORM not in after.graph.outputs:
            del wanted[NORM]
        gaps = [_result_gap(name, after.trace.results.get(name), value) for name, value in wanted.items()]
        far = [gap for gap in gaps if gap.error > ALLOWED]
        if far:
            node = _writer(after.graph, far[0].value[0])
            self.fault = Fault(after.name, node, tuple(gap.value[0] for gap in far), far[0])
            return False
        error = max((gap.error for gap in gaps), default=0.0)
        self._note(f"{len(gaps)} results against the optimizer itself: {error:.0e}")
        return True

    def _note(self, note: str) -> None:
        last = self.lines[-1]
        self.lines[-1] = Line(last.name, last.nodes, last.compared, last.error, note)

    # ---- a mesh

    def partitioned(self, before: Alone, laid: Graph, mesh: Mesh) -> OnMesh | None:
        """The graph with layouts, as one device sees it; then each device's own."""
        form = Alone("partition", laid, before.leaves)
        after = OnMesh("localize", laid, mesh, before.leaves)
        unfit = first_unfit(laid, mesh)
        if unfit is not None:
            self.fault = Fault(form.name, unfit[0], (), None, unfit[1])
            return None
        if not self._same(before, form):
            return None
        try:
            same = self._same(form, after)
        except Broken as fault:
            self.fault = Fault(after.name, None, (), None, str(fault) or type(fault).__name__)
            return None
        return after if same else None

    # ---- programs

    def lowered(self, before: Form, alone: Alone, stages: Stages | None = None, hosting: Hosting | None = None) -> None:
        """The programs of all devices against the reference of each; then what is drawn. stages: of a pipeline;
        hosting: what lies on the host."""
        name = "host" if hosting else "stages" if stages else "lower"
        form = Lowered(before, name, stages, self.name if stages else PROGRAM, hosting)
        try:
            outputs, stores = form.run()
        except Broken as fault:
            self.fault = Fault(form.name, None, (), None, str(fault) or type(fault).__name__)
            return
        found = list(form.results(outputs, stores))
        far = [(name, gap) for name, gap in found if gap.error > self._allowed(alone, gap)]
        if far:
            gap = form.first_wrong({}) or far[0][1]
            node = next(iter(form.devices.values())).graph[gap.value[0]]
            self.fault = Fault(form.name, node, tuple(dict.fromkeys(name for name, _ in far)), gap)
            return
        error = max((gap.error for _, gap in found), default=0.0)
        self.lines.append(Line(form.name, len(form.graph), len(found), error))
        self._drawn(form, alone)

    def _drawn(self, form: Lowered, alone: Alone) -> None:
        weights, other = weights_drawn(form)
        masks, others = masks_drawn(form, alone)
        if other or others:
            node = form.graph[(other or others)[0]]
            self.fault = Fault(form.name, node, (*other, *others), None, "it is drawn otherwise than on one device")
            return
        self._note(f"{weights} initial tensors" + (f" and {masks} random values" if masks else "") + " bit for bit")

    # ---- comparing two forms

    def _same(self, before: Alone, after: Form) -> bool:
        """Whether the results of two forms agree, and all random numbers; else the fault is where they first do not."""
        results = list(self._results(before, after))
        far = [(name, made, gap) for name, made, gap in results if gap.error > self._allowed(before, gap)]
        far += [(gap.value[0], gap.value[0], gap) for gap in self._shared(before, after, is_drawn) if gap.error > 0]
        if far:
            node, gap = self._first(before, after, [made for _, made, _ in far]) or (after.graph[far[0][1]], far[0][2])
            self.fault = Fault(after.name, node, tuple(name for name, _, _ in far), gap)
            return False
        error = max((gap.error for _, _, gap in results), default=0.0)
        agreeing = sum(gap.error <= ALLOWED for gap in self._shared(before, after, lambda _: True))
        self.lines.append(Line(after.name, len(after.graph), agreeing, error))
        return True

    def _results(self, before: Alone, after: Form) -> Iterator[tuple[str, str, Gap]]:
        """The gaps of outputs and of what is assigned, by name, each with the node that makes it now."""
        wanted = [(name, use.value) for name, use in before.graph.outputs.items()]
        found = {name: use.value for name, use in after.graph.outputs.items()}
        wanted += [(str(node.attrs["target"]), node.uses[0].value) for node in before.graph.nodes("assign")]
        found |= {str(node.attrs["target"]): node.uses[0].value for node in after.graph.nodes("assign")}
        for name, value in wanted:
            if name in found:
                gap = after.gap_to(found[name], before.parts(value), value)
                if gap is not None:
                    yield name, found[name][0], gap

    def _shared(self, before: Alone, after: Form, which: Callable[[Node], bool]) -> Iterator[Gap]:
        """The gaps of values that both have, in the order of the second."""
        for node in after.graph:
            if node.id not in before.graph or node.op in _PLACES or not which(node):
                continue
            for index in range(min(len(node.outs), len(before.graph[node.id].outs))):
                gap = after.gap((node.id, index), before)
                if gap is not None:
                    yield gap

    def _first(self, before: Alone, after: Form, ends: Iterable[str]) -> tuple[Node, Gap] | None:
        """The first value that differs, among those that the results depend on."""
        known = [end for end in ends if end in after.graph]
        above = frozenset(known).union(*(after.graph.ancestors(end) for end in known))
        for gap in self._shared(before, after, lambda node: node.id in above):
            if gap.error > self._allowed(before, gap):
                return after.graph[gap.value[0]], gap
        return None

    def _allowed(self, before: Alone, gap: Gap) -> float:
        """1e-10, or where that is passed a hundred times what noise in the last bit does."""
        if gap.error <= ALLOWED or gap.value not in before.trace.parts[-1]:
            return ALLOWED
        return max(ALLOWED, 100 * before.spread(gap.value))


def _result_gap(name: str, found: Array | None, wanted: Array) -> Gap:
    if found is None:
        return Gap((name, 0), float("inf"), wanted, wanted * 0, "it is not written")
    return Gap((name, 0), distance(found, wanted), wanted, found)


def _writer(graph: Graph, result: str) -> Node | None:
    """The node that makes an output, or writes to a parameter or a state."""
    writes = (node for node in graph.nodes("assign") if node.attrs["target"] == result)
    return _node_of(graph, result) or next(writes, None)


def _node_of(graph: Graph, output: str) -> Node | None:
    return graph[graph.outputs[output].node] if output in graph.outputs else None


def _loss_text(form: Alone) -> str:
    loss = form.trace.results.get("loss")
    return "" if loss is None else f"loss {float(loss):.6g}"
