"""What a scaled loss asks of the update: whether its gradients are finite, the next scale, the count of the updates.

In: the norm of all gradients, as they come. Out: nodes of the update phase. All is decided on the device by `where`,
for an overflow is nothing unusual: it is how the scale finds its size. Without a scale the runtime refuses the step.

    finite = norm < ∞                      false for infinities and for NaN
    scale' = backoff · scale               where not finite; growth · scale after `every` good steps in a row
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ..elaborate.recipe import LossScale
from ..elaborate.schedule import constant
from ..ir.graph import GraphBuilder
from ..ir.types import Attr, DType, Node, Phase, TensorType, Use
from ..ops.definition import Build

SCALED_LOSS = "scaled_loss"


def scale_name(label: str) -> str:
    """The id of the state that holds the scale of a loss."""
    return f"{label}.loss_scale"


def updates_state(builder: GraphBuilder, label: str) -> Node:
    """The count of the updates that were made, where some steps make none."""
    return scalar_state(builder, f"{label}.updates", DType.F64, 0.0)


def scalar_state(builder: GraphBuilder, name: str, dtype: DType, start: float) -> Node:
    """A number that lives across steps; the one of that name, if it is there already."""
    if name in builder:
        return builder[name]
    attrs: Mapping[str, Attr] = MappingProxyType(
        {"init": ("constant", start), "of": None, "role": name.rpartition(".")[2], "dims": (), "dtype": dtype}
    )
    return builder.add(Node(name, "state", (), (TensorType((), dtype),), attrs, Phase.PREPARE))


@dataclass
class Guard:
    """The decision of one update. `found` is the norm of the gradients of the scaled loss, `norm` that of the loss."""

    builder: GraphBuilder
    build: Build
    label: str
    found: Use
    scaling: LossScale
    updates: Node
    outputs: dict[str, Use] = field(default_factory=dict[str, Use])

    def __post_init__(self) -> None:
        infinity = constant(self.build, float("inf"), self.found.dtype)
        (self.finite,) = self.build("lt", self.found, infinity, hint="finite")
        self.scale = scalar_state(self.builder, scale_name(self.label), self.found.dtype, self.scaling.start)
        self.good = scalar_state(self.builder, f"{self.label}.good", self.found.dtype, 0.0)
        one = constant(self.build, 1.0, self.found.dtype)
        (self.inverse,) = self.build("div", one, self.scale.out(), hint="unscale")
        (self.norm,) = self.build("mul", self.found, self.inverse, hint="norm")

    def factor(self, clip: Use | None) -> Use:
        """What every gradient is multiplied by: the clip factor, over the scale."""
        return self.inverse if clip is None else self.build("mul", clip, self.inverse, hint="factor")[0]

    def kept(self, build: Build, target: Node, value: Use) -> Use:
        """The new value, or the old one where the step is skipped."""
        old = target.out().relabel(dict(zip(target.outs[0].dims, value.dims, strict=True)))
        return build("where", self.finite, value, old, hint="kept")[0]

    def advanced(self) -> Iterator[tuple[Node, Use]]:
        """The states of the guard itself and what they become."""
        (skipped,) = self.build("logical_not", self.finite)
        (self.outputs["skipped"],) = self.build("cast", skipped, to=self.found.dtype, hint="skipped")
        (more,) = self.build("cast", self.finite, to=DType.F64)
        yield self.updates, self.build("add", self.updates.out(), more)[0]
        self.outputs["loss_scale"] = self.scale.out()
        dtype, build = self.found.dtype, self.build
        (count,) = build("add", self.good.out(), constant(build, 1.0, dtype))
        (grows,) = build("ge", count, constant(build, float(self.scaling.every), dtype))
        (larger,) = build("mul", self.scale.out(), constant(build, self.scaling.growth, dtype))
        (smaller,) = build("mul", self.scale.out(), constant(build, self.scaling.backoff, dtype))
        (unhurt,) = build("where", grows, larger, self.scale.out())
        yield self.scale, build("where", self.finite, unhurt, smaller)[0]
        zero = constant(build, 0.0, dtype)
        (onward,) = build("where", grows, zero, count)
        yield self.good, build("where", self.finite, onward, zero)[0]
