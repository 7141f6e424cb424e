"""Kernel functions taken apart where their own role forbids a cut: the same value by operators that can be cut.

In: a node and a way to build. Out: its results by operators whose terms can be joined. The loss over a vocabulary
that is cut (Shoeybi et al. 2019, section 3) is one: its log-sum-exp joins by log-sum-exp, the target's logit by a
sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ..ir.types import Node, Use
from ..ops import attributes
from ..ops.definition import Build

Apart = Callable[[Build, Node], tuple[Use, ...]]


# loss = lse - logits[V = target],  lse = logsumexp[V](logits)
def _cross_entropy(build: Build, node: Node) -> tuple[Use, ...]:
    logits, target = node.uses
    over = attributes.dims(node.attrs, "V")
    (lse,) = build("logsumexp", logits, V=over, hint="lse")
    (hit,) = build("gather", logits, target, dim=over[0], hint="hit")
    if hit.dtype is not lse.dtype:  # logits of few bits have a wide log-sum-exp
        (hit,) = build("cast", hit, to=lse.dtype, hint="hit.cast")
    (loss,) = build("sub", lse, hit, hint="loss")
    return loss, lse


TAKE_APART: Mapping[str, Apart] = MappingProxyType({"cross_entropy": _cross_entropy})
