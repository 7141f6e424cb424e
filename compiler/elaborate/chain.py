"""Repetition: `blocks : chain L of Block[D, H]` and `experts : bank E of GLU[D, F]`.

A chain's layer is elaborated once for each distinct choice of options, with placeholders for what it carries, and
stamped: the cost of 96 layers is that of one and 96 copies of its nodes. A bank needs nothing of the kind: its
parameters have the dim in front, and everything else follows by name; `bank e in E of …` makes its members apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..base.span import Span
from ..ir.types import Dim, Layer, Node, Use
from ..language import syntax as s
from . import arithmetic as a
from . import dims as d
from . import submodels
from .bank import apply_bank
from .calls import Given, apply_instance, bind_ports
from .frame import MAX_NODES, Arguments, Frame
from .misfit import layer_misfit
from .owned import all_parameters
from .structure import arranged
from .submodels import Choice, choose
from .values import Absent, Chain, Function, Instance, Primitive, Value, function_text, show_dims
from .writer import Region, Writer

# ---- making


def make(frame: Frame, statement: s.Instance) -> Instance | Chain | Absent:
    """What stands right of the colon: a block, a chain or a bank of them, or nothing if its `when` is false."""
    if statement.condition is not None:
        wanted = a.decided(frame, frame.evaluate(statement.condition), statement.condition.span)
        if not wanted:
            return Absent(statement.name.text, statement.condition.span)
    name = statement.name.text
    path = f"{frame.path}.{name}" if frame.path else name
    if statement.repeat is None:
        return submodels.make(frame, choose(frame, statement.constructor), path, frame.bank, frame.layer)
    dim = _count(frame, statement.repeat, name)
    if statement.repeat.kind == "chain" or statement.repeat.index is not None:
        return _chain(frame, statement, statement.repeat, path, dim)
    return submodels.make(frame, choose(frame, statement.constructor), path, (*frame.bank, dim), frame.layer)


def _count(frame: Frame, repeat: s.Repeat, name: str) -> Dim:
    bound = d.axes(frame, repeat.count, name)
    if len(bound) != 1:
        raise frame.fault("E0207", f"a {repeat.kind} runs along one dim, not {show_dims(bound)}", repeat.count.span)
    (dim,) = bound
    if dim.size is None and not frame.context.probing:
        raise frame.fault("E0213", f"the size of {dim} must be known to make a {repeat.kind}", repeat.count.span)
    if repeat.kind == "chain" and dim.size is not None and dim.size > MAX_NODES:
        frame.context.spend_nodes(frame, dim.size, repeat.count.span)
    return dim


def _chain(frame: Frame, statement: s.Instance, repeat: s.Repeat, path: str, dim: Dim) -> Chain:
    count = 1 if dim.size is None else dim.size
    is_bank = repeat.kind == "bank"

    def chosen(index: int) -> tuple[Frame, Choice]:
        if repeat.index is None:
            return frame, choose(frame, statement.constructor)
        layer = replace(frame, names={**frame.names, repeat.index.text: index}, unnamed={})
        return layer, choose(layer, statement.constructor)

    def made(layer: Frame, choice: Choice, index: int) -> Instance:
        place = frame.layer if is_bank else Layer(path, index)
        return submodels.make(layer, choice, f"{path}.{index}", frame.bank, place)

    chain = Chain(path, dim, [], [], lambda index: made(*chosen(index), index), is_bank)
    if repeat.index is None:
        chain.templates.append(chain.make(0))
        chain.kinds = [0] * count
        return chain
    known: dict[object, int] = {}
    for index in range(count):
        frame.context.spend(frame, repeat.span)
        layer, choice = chosen(index)
        key = index if is_bank else _key(choice, index)
        if key not in known:
            known[key] = len(chain.templates)
            chain.templates.append(made(layer, choice, index))
        chain.kinds.append(known[key])
    return chain


def _key(choice: Choice, index: int) -> object:
    """Layers with equal keys are alike."""
    values = [*choice.args.positional, *choice.args.named.values()]
    texts = tuple(_text(value, index) for value, _ in values)
    row = choice.model.row if isinstance(choice, submodels.ModelChoice) else None
    return choice.written.name.text, row, tuple(choice.dims.items()), tuple(choice.args.named), texts


def _text(value: Value, index: int) -> object:
    if isinstance(value, Function | Primitive):
        return function_text(value) or index
    return (type(value), value) if isinstance(value, int | float | str | None) else index


# ---- applying


def call(frame: Frame, instance: Instance | Chain, items: tuple[s.ViewItem, ...], args: Arguments, span: Span) -> Value:
    """Apply an instance or a chain of them."""
    if isinstance(instance, Instance):
        return apply_instance(frame, instance, items, bind_ports(frame, instance, args, span), span)
    if instance.is_bank:
        return apply_bank(frame, instance, items, bind_ports(frame, instance.templates[0], args, span), span)
    first = instance.templates[0]
    outs = len(first.decl.signature.outs)
    given = bind_ports(frame, first, args, span)
    names = [port.name.text for port in first.decl.signature.ports[:outs]]
    if len(names) < outs or any(name not in given for name in names):
        title = f"a chain carries as many inputs as it has outputs; {first.name} has {outs} outputs"
        raise frame.fault("E0314", title, span)
    carried = [_tensor(frame, given[name]) for name in names]
    assert isinstance(frame.output, Writer), "blocks are applied in graphs that are written here"
    return _Application(frame, frame.output, instance, items, given, names, span).run(carried)


def _tensor(frame: Frame, given: tuple[Value, Span]) -> Use:
    value, span = given
    return a.tensor(frame, value, value.dtype if isinstance(value, Use) else frame.context.dtype, span)


@dataclass(frozen=True, slots=True)
class _Layer:
    """A template's nodes, what it gives, and how many exports it has."""

    prefix: str
    region: Region
    results: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class _Application:
    frame: Frame
    writer: Writer
    chain: Chain
    items: tuple[s.ViewItem, ...]
    given: Given
    names: list[str]
    span: Span

    def run(self, carried: list[Use]) -> Value:
        layers: dict[int, _Layer] = {}
        taps: dict[tuple[str, str], list[Use]] = {}
        for index, kind in enumerate(self.chain.kinds):
            if kind not in layers:
                layers[kind] = self._elaborate(kind, carried)
                count = len(layers[kind].region.nodes) * self.chain.kinds.count(kind)
                self.frame.context.spend_nodes(self.frame, count, self.span)
            carried = self._stamp(layers[kind], index, carried, taps)
        self._export(taps)
        return carried[0] if len(carried) == 1 else tuple(carried)

    def _elaborate(self, kind: int, carried: list[Use]) -> _Layer:
        """A layer's nodes, reading placeholders for what it carries."""
        template = self.chain.templates[kind]
        given = dict(self.given)
        marks: list[Use] = []
        for at, (name, use) in enumerate(zip(self.names, carried, strict=True)):
            marks.append(replace(use, node=f"\0{self.chain.path}.{at}", output=0))
            given[name] = (marks[-1], self.given[name][1])
        with self.writer.capture() as region:
            value = apply_instance(self.frame, template, self.items, given, self.span)
            results = value if isinstance(value, tuple) else (value,)
            ready = tuple(self._same(mark, result, template) for mark, result in zip(marks, results, strict=True))
        self.writer.forget(region.nodes)
        return _Layer(template.path, region, ready)

    def _same(self, mark: Use, result: Value, template: Instance) -> Use:
        """What a layer gives is what the next one takes: the same axes in the same order."""
        assert isinstance(result, Use), "a block gives tensors"
        if set(result.dims) != set(mark.dims):
            raise layer_misfit(self.frame, mark.dims, result, [use for use, _ in self.given.values()], self.span)
        inner = replace(self.frame, path=template.path, layer=Layer(self.chain.path, 0))
        return a.tensor(inner, arranged(inner, result, mark.dims, self.span), mark.dtype, self.span)

    def _stamp(
        self, layer: _Layer, index: int, carried: list[Use], taps: dict[tuple[str, str], list[Use]]
    ) -> list[Use]:
        """Copy a layer's nodes under another path."""
        prefix = f"{self.chain.path}.{index}"
        at = len(layer.prefix)
        place = Layer(self.chain.path, index)
        ids: dict[str, tuple[str, int | None]] = {
            f"\0{self.chain.path}.{number}": (use.node, use.output) for number, use in enumerate(carried)
        }

        def moved(use: Use) -> Use:
            found = ids.get(use.node)
            if found is None:
                return self._parameter(use, layer.prefix, prefix)
            return Use(found[0], use.output if found[1] is None else found[1], use.dims, use.dtype)

        for node in layer.region.nodes:
            name = self.writer.fresh(prefix + node.id[at:])
            ids[node.id] = (name, None)
            attrs = {**node.attrs, "key": name} if "key" in node.attrs else node.attrs
            if node.op == "assign":  # a state of the layer's own
                attrs = {"target": prefix + str(node.attrs["target"])[at:]}
            uses = tuple(moved(use) for use in node.uses)
            path = prefix + node.path[at:]
            self.writer.add(
                Node(name, node.op, uses, node.outs, attrs, node.phase, node.body, path, place, node.origin)
            )
        for name, path, use in layer.region.taps:
            taps.setdefault((name, path[at:]), []).append(moved(use))
        return [moved(use) for use in layer.results]

    def _parameter(self, use: Use, old: str, new: str) -> Use:
        """A layer's own parameters move with it; everything else outside is shared."""
        if use.node.startswith(f"{old}."):
            return Use(new + use.node[len(old) :], use.output, use.dims, use.dtype)
        return use

    def _export(self, taps: dict[tuple[str, str], list[Use]]) -> None:
        """A tap of every layer is stacked along the chain's dim."""
        inner = replace(self.frame, path=self.chain.path, layer=None)
        for (name, path), uses in taps.items():
            if len(uses) != len(self.chain.kinds) or any(use.dims != uses[0].dims for use in uses):
                title = f"`tap {name}` is not the same in every layer of the chain"
                raise self.frame.fault("E0314", title, self.span)
            stacked = inner.emit1("stack", *uses, span=self.span, hint=name, dim=self.chain.dim)
            self.writer.taps.append((name, self.chain.path + path, stacked))


def count_parameters(instance: Instance | Chain) -> int:
    """Elements of all parameters."""
    return sum(d.total(parameter.dims) or 1 for _, parameter, _ in all_parameters(instance))
