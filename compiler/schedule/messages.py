"""What stages of a pipeline call what they send each other, so that both ends of a message mean the same.

In: a cut graph (`chunks.py`). Out: a tag for every message of a microbatch and
every exchange after the last, and the ids of values that came from elsewhere or are one device's part of a sum. The
parts of a microbatch (`stages.py`) and the end of a step (`step_end.py`) both write by these.
"""

from __future__ import annotations

from .actions import Kind
from .chunks import Chunked, Value


def message_tags(cut: Chunked) -> dict[object, int]:
    """A number for each message of a microbatch, and for each of the exchanges at its end."""
    keys: list[object] = []
    for kind, borders in ((Kind.SEND_ACTIVATION, cut.activations), (Kind.SEND_GRADIENT, cut.gradients)):
        keys += [(kind, border, value) for border, values in enumerate(borders) for value in values]
    for name, one in cut.sums.items():
        keys += [(name, here, there) for here in one.terms for there in one.terms if here != there]
    return {key: number for number, key in enumerate(keys)}


def value_name(value: Value) -> str:
    """The id of a value where it is received: its node's, with the number of the output beyond the first."""
    return value[0] if value[1] == 0 else f"{value[0]}:{value[1]}"


def local_sum(name: str) -> str:
    """The id of one device's part of a sum."""
    return f"{name}/here"


def total(name: str) -> str:
    """The id of a sum that several devices have parts of, where these are added up."""
    return f"{name}/total"
