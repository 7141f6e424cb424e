"""Which buffers of a program hold gradients: whoever tells of memory says whose it is."""

from __future__ import annotations

from ...runtime.program import Collective, Program, Run


def gradients_of(program: Program) -> frozenset[str]:
    """The buffers of a microbatch that the update reads, be it through collectives."""
    hot = [i for instructions in (program.microbatch, *program.parts.values()) for i in instructions]
    read = {name for i in program.update if isinstance(i, Run) for name in i.inputs}
    for sent in reversed([i for i in (*hot, *program.update) if isinstance(i, Collective)]):
        read |= {given for given, name in zip(sent.inputs, sent.outputs, strict=not sent.groups) if name in read}
    made = {name for i in hot if isinstance(i, Run | Collective) for name in i.outputs}
    return frozenset((read & made) - set(program.outputs.values()))
