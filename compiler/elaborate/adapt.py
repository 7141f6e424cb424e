"""`adapt layers.*.attn.q : LoRA[R = 16]` in a derived model: a block that sees what an instance took and gave.

A path names one layer of a chain by its number, or all of them by `*`. The base's paths do not move; the adapter stands
under the instance as `adapter`, and whoever applies the instance gets what the adapter makes of it. Dims of the adapter
that the adapted block has too (its I and O) are the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..base.diagnostic import Label, did_you_mean
from ..language import syntax as s
from .blocks import choose, make_block
from .frame import Frame
from .values import Chain, Instance, Value

NAME = "adapter"


def adapt(frame: Frame, statement: s.Adapt, root: Instance) -> None:
    """Give every instance that a path names its adapter."""
    for path in statement.paths:
        found = list(dict.fromkeys(_named(frame, path, 0, root)))
        if not found:
            title = f"no instance is called {path.text}"
            raise frame.fault("E0107", title, path.span, hint=did_you_mean(path.text, _paths(root, "")))
        for instance in found:
            _attach(frame, statement, instance)


def _named(frame: Frame, path: s.Path, at: int, value: Value) -> Iterator[Instance]:
    """The instances below one that the rest of a path names."""
    if at == len(path.steps):
        if isinstance(value, Instance):
            yield value
        return
    step = path.steps[at]
    if isinstance(value, Chain):
        layers = (
            value.templates if step.text == "*" else [_single(frame, value, step)] if _is_layer(value, step) else []
        )
        for template in layers:  # the layers of a kind are adapted alike
            yield from _named(frame, path, at + 1, template)
    elif isinstance(value, Instance):
        inner = value.names.items() if step.text == "*" else [(step.text, value.names.get(step.text))]
        for name, part in inner:
            if name != NAME:
                yield from _named(frame, path, at + 1, part)


def _is_layer(chain: Chain, step: s.Name) -> bool:
    return step.text.isdecimal() and len(step.text) < 10 and int(step.text) < len(chain.kinds)


def _single(frame: Frame, chain: Chain, step: s.Name) -> Instance:
    """The template of one layer alone, made anew if it serves others too."""
    index = int(step.text)
    kind = chain.kinds[index]
    shared = chain.templates[kind]
    if chain.kinds.count(kind) > 1:
        if _adapted(shared):
            title = f"the layers of {chain.path} are adapted already"
            raise frame.fault("E0319", title, step.span, hint="adapt a layer of its own before those that are alike")
        first = chain.kinds.index(kind)
        chain.kinds[index] = len(chain.templates)
        chain.templates.append(chain.make(index))
        if first == index:  # the others' template stands where the first of them does
            chain.templates[kind] = chain.make(chain.kinds.index(kind))
    return chain.templates[chain.kinds[index]]


def _adapted(value: Value) -> bool:
    """Whether an instance or something in it has an adapter."""
    parts = value.templates if isinstance(value, Chain) else value.names.values() if isinstance(value, Instance) else ()
    return (isinstance(value, Instance) and NAME in value.names) or any(map(_adapted, parts))


def _paths(value: Value, prefix: str) -> Iterator[str]:
    """Every path that could be meant."""
    parts = (
        {"*": value.templates[0]} if isinstance(value, Chain) else value.names if isinstance(value, Instance) else {}
    )
    for name, part in parts.items():
        if isinstance(part, Instance | Chain):
            path = f"{prefix}.{name}" if prefix else name
            yield path
            yield from _paths(part, path)


def _attach(frame: Frame, statement: s.Adapt, instance: Instance) -> None:
    written = statement.constructor
    if NAME in instance.names:
        raise frame.fault("E0319", f"{instance.path} has an adapter already", statement.span)
    implied = {
        name: tuple(instance.boundary.get(dim, dim) for dim in dims)
        for name, dims in instance.dims.items()
        if isinstance(instance.decl, s.Block) and name in {formal.name.text for formal in instance.decl.formals}
    }
    choice = choose(frame, written, implied)
    mine, theirs = choice.decl.signature, instance.decl.signature
    if len(mine.ports) != len(theirs.ports) + len(theirs.outs) or len(mine.outs) != len(theirs.outs):
        title = f"{choice.decl.name} cannot adapt {instance.name}"
        takes = f"{len(theirs.ports)} + {len(theirs.outs)} inputs and {len(theirs.outs)} outputs"
        others = (Label(choice.decl.name.span, "declared here"),)
        raise frame.fault("E0319", title, written.span, expected=takes, others=others)
    instance.adapter = make_block(frame, choice, f"{instance.path}.{NAME}", instance.bank)
    instance.names[NAME] = instance.adapter
