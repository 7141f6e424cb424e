"""Applying an instance: `attn(ln1(x))`.

Ports bind to arguments, the signature's dims to the caller's dims of the same name (or as `enc[T = S](x)` says).
Inside, only those can be named; every other axis is carried through. If a carried axis is one that the block knows
under its own name, it is called otherwise inside and gets its name back at the boundary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..base.diagnostic import Label, did_you_mean
from ..base.span import Span
from ..ir.types import Dim, Dims, DType, Use
from ..language import syntax as s
from . import arithmetic as a
from . import dims as d
from . import statements
from .frame import STEPS_OF_AN_APPLICATION, Arguments, Frame
from .misfit import result_misfit
from .sizes import BATCH
from .structure import arranged
from .values import Instance, Value, describe, show_dims
from .views import check_limit

Given = dict[str, tuple[Value, Span]]
Results = list[tuple[Value, Span]] | None


@dataclass(slots=True)
class Boundary:
    """How axes are called on both sides. `apart`: carried axes that have another name inside."""

    apart: dict[Dim, Dim] = field(default_factory=dict[Dim, Dim])
    carried: list[Dim] = field(default_factory=list[Dim])


def bind_ports(frame: Frame, instance: Instance, args: Arguments, span: Span) -> Given:
    """Arguments by the name of their port."""
    decl = instance.decl
    ports = {port.name.text: port for port in decl.signature.ports}
    if len(args.positional) > len(ports):
        takes = "1 input" if len(ports) == 1 else f"{len(ports)} inputs"
        title = f"{instance.name} takes {takes}, {len(args.positional)} are given"
        raise frame.fault("E0302", title, args.positional[len(ports)][1])
    given: Given = dict(zip(ports, args.positional, strict=False))
    for name, arg in args.named.items():
        if name not in ports:
            raise _no_input(frame, instance, name, arg[1], span)
        if name in given:
            raise frame.fault("E0302", f"`{name}` is given twice", arg[1])
        given[name] = arg
    for name, port in ports.items():
        if name not in given and port.default is None:
            raise frame.fault("E0302", f"{instance.name} needs its input `{name}`", span)
    return given


def _no_input(frame: Frame, instance: Instance, name: str, at: Span, span: Span) -> Exception:
    decl = instance.decl
    ports = [port.name.text for port in decl.signature.ports]
    callee = _callee(span)
    if name in (option.name.text for option in decl.options):
        hint = f"options go where it is made: `{instance.name}[…]({at.text})`"
        others = (Label(instance.made, "made here"),)
        return frame.fault("E0313", f"`{callee}` has no input `{name}`", at, hint=hint, others=others)
    return frame.fault("E0301", f"`{callee}` has no input `{name}`", at, hint=did_you_mean(name, ports))


def _callee(span: Span) -> str:
    return span.text.split("(")[0].split("[")[0].strip() or "it"


def apply_instance(frame: Frame, instance: Instance, items: tuple[s.ViewItem, ...], given: Given, span: Span) -> Value:
    """The block's results, called as the caller calls their axes; what its adapter makes of them, if it has one."""
    frame.context.spend(frame, span, STEPS_OF_AN_APPLICATION)
    value = _apply_alone(frame, instance, items, given, span)
    adapter = instance.adapter
    if adapter is None:
        return value
    results = value if isinstance(value, tuple) else (value,)
    ports = [port.name.text for port in adapter.decl.signature.ports]
    inputs = [given.get(port.name.text) for port in instance.decl.signature.ports]
    named = zip(ports, [*inputs, *((result, span) for result in results)], strict=True)
    return apply_instance(frame, adapter, (), {name: one for name, one in named if one is not None}, span)


def _apply_alone(frame: Frame, instance: Instance, items: tuple[s.ViewItem, ...], given: Given, span: Span) -> Value:
    title = f"block {instance.name}" if isinstance(instance.decl, s.Block) else f"model {instance.name}"
    inner = frame.inside(
        instance.module, title, span, path=instance.path, names=dict(instance.names), dims=dict(instance.dims),
        bank=instance.bank,
    )  # fmt: skip
    _bind_signature(frame, inner, instance, items, given, span)
    boundary = Boundary()
    for port in instance.decl.signature.ports:
        value = inner.names[port.name.text] = _port_value(frame, inner, instance, port, given, boundary, span)
        inner.note(port.span, value)
    inner.carried = boundary.carried
    outs = instance.decl.signature.outs
    results = statements.run_body(inner, instance.later, _name_of_result(instance))
    if instance.extensions:
        results = _extended(inner, instance, results)
    if results is None:
        raise inner.fault("E0112", f"{title} returns nothing", instance.decl.name.span)
    if len(results) != len(outs):
        said = f"{title} returns {len(results)} values, its signature says {len(outs)}"
        raise inner.fault("E0310", said, results[0][1])
    values = tuple(
        _result(frame, inner, instance, out, value, at, boundary)
        for out, (value, at) in zip(outs, results, strict=True)
    )
    return values[0] if len(values) == 1 else values


def _extended(inner: Frame, instance: Instance, results: Results) -> Results:
    """What derived models make of the results, which they find under their names in the signature."""
    outs = [out.name.text for out in instance.decl.signature.outs if out.name is not None]
    shown = [name for name in outs if name not in inner.names] if len(outs) == len(results or ()) else []
    for more in instance.extensions:
        given = zip(outs, results or (), strict=False)
        inner.names.update({name: value for name, (value, _) in given if name in shown})
        frame = replace(inner, module=more.module, title=more.title)
        results = statements.run_body(frame, more.statements, _name_of_result(instance)) or results
    return results


def _name_of_result(instance: Instance) -> str | None:
    """A model's only output names the node that gives it."""
    outs = instance.decl.signature.outs
    single = instance.is_root and len(outs) == 1
    return outs[0].name.text if single and outs[0].name is not None else None


# ---- dims of the signature


def _bind_signature(
    frame: Frame, inner: Frame, instance: Instance, items: tuple[s.ViewItem, ...], given: Given, span: Span
) -> None:
    explicit = _explicit(frame, instance, items)
    for port in instance.decl.signature.ports:
        if port.name.text not in given or not isinstance(given[port.name.text][0], Use):
            continue
        value = given[port.name.text][0]
        for dim in sorted(port.dims or (), key=lambda dim: not isinstance(dim, s.DimRef)):
            for name in sorted(d.names_in(dim) - set(inner.dims) - {*inner.names}):
                bound = explicit.get(name) or _of_argument(frame, name, dim, value)
                if bound is None:
                    raise _mixes(frame, instance, name, port, value, span)
                inner.dims[name] = bound
    for out in instance.decl.signature.outs:
        for name in {name for dim in out.dims for name in d.names_in(dim)} - set(inner.dims):
            if name in explicit or name in frame.dims:
                inner.dims[name] = explicit.get(name) or frame.dims[name]


def _of_argument(frame: Frame, name: str, dim: s.Dim, value: Value) -> Dims | None:
    """The caller's dim of the name, or the argument's only axis that is made of it by * and /: a halved Y is a Y."""
    bound = frame.dims.get(name)
    if bound is None or len(bound) != 1 or not isinstance(dim, s.DimRef) or not isinstance(value, Use):
        return bound
    scaled = frame.context.scaled
    kin = [axis for axis in value.dims if scaled.origin(axis)[0] == scaled.origin(bound[0])[0]]
    return bound if bound[0] in kin or len(kin) != 1 else (kin[0],)


def _explicit(frame: Frame, instance: Instance, items: tuple[s.ViewItem, ...]) -> dict[str, Dims]:
    """`enc[T = S](x)`"""
    found: dict[str, Dims] = {}
    for item in items:
        if not isinstance(item, s.At) or not isinstance(item.value, s.Ref):
            hint = "its dims are given where it is made; a call binds those of the signature: f[T = S](x)"
            raise frame.fault("E0308", "an instance takes no dims here", item.span, hint=hint)
        found[item.name.text] = d.axes(frame, s.DimRef(item.value.span, item.value.name))
    names = {name for port in instance.decl.signature.ports for dim in port.dims or () for name in d.names_in(dim)}
    for item in items:
        if isinstance(item, s.At) and item.name.text not in names:
            title = f"{instance.name} has no dim {item.name} in its signature"
            raise frame.fault("E0308", title, item.span, hint=did_you_mean(item.name.text, names))
    return found


def _mixes(frame: Frame, instance: Instance, name: str, port: s.Port, value: Value, span: Span) -> Exception:
    """A dim of the signature that the caller cannot name."""
    assert isinstance(value, Use), "only tensors have axes"
    callee = _callee(span)
    if any(d.called(dim, name) for dim in (*frame.carried, *value.dims)):
        title = f"`{callee}` mixes {name}, which is only carried through {frame.title}"
        others = [Label(port.span, f"{instance.name} names {name} here")]
        outside = next((call for call in frame.calls if not call.in_std), None)
        if outside is not None:
            others.append(Label(outside.span, f"{frame.title} is applied here"))
        hint = f"add {name} to the signature of {frame.title}"
        return frame.fault("E0202", title, span, "mixed here", others=others, hint=hint)
    title = f"`{callee}` works along an axis {name}, and there is no dim {name} here"
    hint = f"say which axis is meant: {callee}[{name} = …](…)"
    others = (Label(port.span, f"{instance.name} names it here"),)
    return frame.fault("E0201", title, span, found=show_dims(value.dims), hint=hint, others=others)


# ---- arguments


def _port_value(
    frame: Frame, inner: Frame, instance: Instance, port: s.Port, given: Given, boundary: Boundary, span: Span
) -> Value:
    if port.name.text not in given:
        assert port.default is not None, "nothing is missing"
        return inner.evaluate(port.default)
    value, at = given[port.name.text]
    domain = port.domain.text if port.domain is not None else None
    if domain == "bool" and isinstance(value, bool):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = a.constant(frame, value, frame.context.dtype, at)
    if not isinstance(value, Use):
        raise a.not_a_tensor(frame, value, at)
    _domain(frame, inner, instance, port, domain, value, at)
    return _relabelled(frame, inner, instance, port, value, at, boundary)


def _domain(
    frame: Frame, inner: Frame, instance: Instance, port: s.Port, domain: str | None, value: Use, at: Span
) -> None:
    """`ids in V` takes whole numbers below V, `keep in bool` truth values."""
    if domain is None:
        return
    if domain == "bool":
        if value.dtype is not DType.BOOL:
            title = (
                f"`{port.name}` of {instance.name} is true or false, this is {describe(value)} of {value.dtype.value}"
            )
            raise frame.fault("E0303", title, at, hint="compare it: x > 0")
        return
    if value.dtype is not DType.I64:
        title = f"`{port.name}` of {instance.name} takes ids, this is {describe(value)} of {value.dtype.value}"
        raise frame.fault("E0303", title, at)
    node = frame.output.find(value.node)
    if node is not None and node.op == "extent":
        title = f"`{port.name}` of {instance.name} takes ids, this is the size of a dim"
        raise frame.fault("E0303", title, at, hint=f"its positions, one after the other, are index[{at.text}]")
    assert port.domain is not None, "a domain"
    bound = d.axes(inner, s.DimRef(port.domain.span, domain))
    outer = tuple(instance.boundary.get(dim, dim) for dim in bound)
    limit = frame.output.limits.get(value.value)
    if limit is not None and limit not in outer and d.total(outer) is not None:
        named = ", ".join(f"{formal} = {d.total(axes)}" for formal, axes in instance.dims.items() if axes == bound)
        check_limit(frame, value, bound, at, f"{instance.name} with {named}", instance.made)


def _relabelled(
    frame: Frame, inner: Frame, instance: Instance, port: s.Port, value: Use, at: Span, boundary: Boundary
) -> Use:
    """The argument under the block's own names."""
    wanted = tuple(axis for dim in port.dims or () for axis in d.axes(inner, dim))
    names = {instance.boundary.get(dim, dim): dim for dim in wanted}
    if len(names) != len(wanted):
        raise frame.fault("E0204", f"`{port.name}` of {instance.name} would have one axis twice", at)
    lacking = [dim for dim in names if dim not in value.dims]
    if lacking:
        title = f"`{port.name}` of {instance.name} needs the axis {', '.join(dim.name for dim in lacking)}"
        raise frame.fault(
            "E0203", title, at, expected=show_dims(tuple(names)), found=show_dims(value.dims),
            hint=_meant(lacking, names, value, instance), others=(Label(port.span, "its signature"),),
        )  # fmt: skip
    batch = inner.dims.get(BATCH, ()) if isinstance(instance.decl, s.Model) else ()  # which is no dim of a block
    named = () if instance.is_root else inner.dims.values()  # the model's text knows every dim by its name
    known = {dim for dims in named for dim in dims if dim not in batch}
    for dim in value.dims:
        if dim in names:
            continue
        if dim in known and dim not in boundary.apart and dim not in inner.bank:
            boundary.apart[dim] = inner.output.dims.fresh(dim.name, dim.size, inner.path)
        own = boundary.apart.get(dim, dim)
        if own not in boundary.carried:
            boundary.carried.append(own)
    return value.relabel({**boundary.apart, **names})


def _meant(lacking: list[Dim], names: Mapping[Dim, Dim], value: Use, instance: Instance) -> str | None:
    """Which axis may be the one that is lacking: one of the same size, else the only one that is left over."""
    like = [dim for dim in value.dims if dim.size is not None and dim.size == lacking[0].size and dim not in names]
    if like:
        return f"if {like[0]} is meant: x[{like[0]} -> {lacking[0]}]"
    left = [dim for dim in value.dims if dim not in names and dim.name != BATCH]
    own = names[lacking[0]].name.rpartition(".")[2]
    given = {formal.name.text for formal in instance.decl.formals} if isinstance(instance.decl, s.Block) else {own}
    if len(lacking) > 1 or len(left) != 1 or own in given:
        return None
    return f"if {left[0]} is meant: {instance.path.rpartition('.')[2]}[{own} = {left[0]}](…)"


# ---- results


def _result(
    frame: Frame, inner: Frame, instance: Instance, out: s.Out, value: Value, at: Span, boundary: Boundary
) -> Use:
    use = value if isinstance(value, Use) else a.tensor(inner, value, inner.context.dtype, at)
    wanted = tuple(axis for dim in out.dims for axis in d.axes(inner, dim))
    twice = next((axis for i, axis in enumerate(wanted) if axis in wanted[:i]), None)
    if twice is not None:
        raise frame.fault("E0204", f"the result of {instance.name} would have two axes {twice}", out.span)
    allowed = {*wanted, *boundary.carried, *inner.bank}
    if set(wanted) - set(use.dims) or set(use.dims) - allowed:
        raise result_misfit(inner, out, use, wanted, allowed, at)
    if instance.is_root:
        order = (*(dim for dim in use.dims if dim not in wanted), *wanted)
        use = arranged(inner, use, order, out.span, out.name.text if out.name is not None else None)
    back = {own: outer for outer, own in boundary.apart.items()} | instance.boundary
    result = use.relabel(back)
    if len(set(result.dims)) != len(result.dims):
        twice = next(dim for i, dim in enumerate(result.dims) if dim in result.dims[:i])
        title = f"the result of {instance.name} would have two axes {twice}"
        hint = f"the argument carries {twice} already: give it another name first"
        raise frame.fault("E0204", title, frame_span(inner), hint=hint)
    if out.domain is not None and out.domain.text in inner.dims:
        frame.output.limits[result.value] = inner.dims[out.domain.text][0]
    return result


def frame_span(inner: Frame) -> Span:
    """Where a frame was called."""
    return inner.calls[0].span
