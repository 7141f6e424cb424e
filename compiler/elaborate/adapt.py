"""`adapt layers.*.attn.q : LoRA[R = 16]` in a derived model: a block that sees what an instance took and gave.

The base's paths do not move; the adapter stands under the instance as `adapter`, and whoever applies the instance gets
what the adapter makes of it. Dims of the adapter that the adapted block has too (its I and O) are the same ones.
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
        found = list(dict.fromkeys(_named(path, 0, root)))
        if not found:
            title = f"no instance is called {path.text}"
            raise frame.fault("E0107", title, path.span, hint=did_you_mean(path.text, _paths(root, "")))
        for instance in found:
            _attach(frame, statement, instance)


def _named(path: s.Path, at: int, value: Value) -> Iterator[Instance]:
    """The instances below one that the rest of a path names."""
    if at == len(path.steps):
        if isinstance(value, Instance):
            yield value
        return
    step = path.steps[at]
    if isinstance(value, Chain):
        for template in value.templates if step.text == "*" else ():  # the layers of a chain are adapted alike
            yield from _named(path, at + 1, template)
    elif isinstance(value, Instance):
        inner = value.names.items() if step.text == "*" else [(step.text, value.names.get(step.text))]
        for name, part in inner:
            if name != NAME:
                yield from _named(path, at + 1, part)


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
