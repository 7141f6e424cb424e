"""update: from gradients to the whole training step.

In: a graph with outputs `loss` and `grad/<parameter>`. Out: the same with, in the phase UPDATE, everything that a
step does with them: the learning rate, the clipping, the optimizer function of each parameter's group, and
`assign` nodes for parameters and states. Gradients and loss go through `accumulate`, right behind where they are
made, so that they add up over microbatches.

    norm  = sqrt(Σ over parameters of Σ g²)         each parameter once, however often it is used
    g     = gradient of the scaled loss / scale     where the loss is scaled
    g'    = g · min(1, clip / (norm + 1e-6))        as torch.nn.utils.clip_grad_norm_ does
    p', states' = optimizer(p, g', states, step + 1, rate(step), options)

Where a step may be skipped, the optimizer counts the updates that were made, in a state. Where the loss is scaled,
everything is written as `where(norm < ∞, new, old)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..base.diagnostic import Diagnostic, SpecError
from ..elaborate.recipe import Literal_, LossScale, OptimizerGroup, Schedule, matches
from ..elaborate.schedule import constant, rate
from ..ir.graph import Graph, GraphBuilder
from ..ir.levels import GRADIENT, STEP, Level
from ..ir.types import Attr, DType, Node, Phase, TensorType, Use
from ..ops.definition import Build
from ..ops.registry import REGISTRY
from .guard import SCALED_LOSS, Guard, updates_state

CLIP_EPSILON = 1e-6
GRADIENT_PREFIX = "grad/"

# (build, bodies to add to, function, operands, options) -> the function's results
Optimize = Callable[[Build, dict[str, Graph], str, Sequence[Use], Mapping[str, Literal_]], Sequence[Use]]


@dataclass(frozen=True)
class Update:
    """groups, schedule, clip: as in the recipe. optimize: applies a function of the spec by name.

    repeat: how many times a step runs this update; its count (what the optimizer and randomness see) goes on each time,
    the rate follows the step.
    reduce: the type in which gradients are summed over devices; None: their own. A lone microbatch's gradients are kept
    in it until the update, which sums of several are not. scale: how the loss was scaled.
    skips: whether some steps may leave all as it was. label: begins the names of its own states.
    norm: whether the gradient's norm is asked for even where nothing needs it.
    """

    groups: tuple[OptimizerGroup, ...]
    schedule: Schedule
    optimize: Optimize
    clip: float | None = None
    repeat: int = 1
    reduce: DType | None = None
    scale: LossScale | None = None
    skips: bool = False
    label: str = "step"
    norm: bool = True
    lone: bool = False

    name: ClassVar[str] = "update"
    levels: ClassVar[tuple[Level, ...]] = (GRADIENT,)
    gives: ClassVar[Level | None] = STEP
    idempotent: ClassVar[bool] = False

    def __call__(self, graph: Graph) -> Graph:
        builder = GraphBuilder.rewriting(graph)
        summed = _accumulated(graph, builder, self.reduce if self.lone else None)
        gradients = {
            name.removeprefix(GRADIENT_PREFIX): use for name, use in summed.items() if name.startswith(GRADIENT_PREFIX)
        }
        bodies = dict(graph.bodies)
        _Step(self, builder, bodies).run(gradients)
        for key, body in bodies.items():
            builder.body(key, body)
        for name, use in summed.items():
            if not name.startswith(GRADIENT_PREFIX) and name != SCALED_LOSS:
                builder.output(name, use)
        return builder.finish()


def _accumulated(graph: Graph, builder: GraphBuilder, narrow: DType | None) -> dict[str, Use]:
    """Copies the graph with `accumulate` behind the loss and each gradient; gives the outputs, these ones summed.

    narrow: the type of the gradients' sums; None: their own
    """
    wanted: dict[str, list[str]] = {}
    found = dict(graph.outputs)
    for name, use in graph.outputs.items():
        summable = name == "loss" or name.startswith(GRADIENT_PREFIX)
        if summable and graph[use.node].op != "accumulate":
            wanted.setdefault(use.node, []).append(name)
    for node in graph:
        builder.add(node)
        for name in wanted.get(node.id, ()):
            use = found[name]
            phase = Phase.FORWARD if node.phase is Phase.PREPARE else node.phase
            plain = replace(node, attrs={}, body=None, phase=phase)
            if narrow not in (None, use.dtype) and name.startswith(GRADIENT_PREFIX):
                use = _narrowed(builder, plain, use, narrow)
            total = replace(plain, id=builder.fresh(f"sum/{name}"), op="accumulate", uses=(use,), outs=(use.type,))
            found[name] = builder.add(total).out()
    return found


def _narrowed(builder: GraphBuilder, like: Node, use: Use, narrow: DType) -> Use:
    """A gradient in another type: what it was made from, where that has it."""
    made = builder[use.node]
    if made.op == "cast" and made.uses[0].dtype is narrow:
        return made.uses[0].relabel(dict(zip(made.outs[0].dims, use.dims, strict=True)))
    out = TensorType(use.dims, narrow)
    name = builder.fresh(f"{use.node}.{narrow.value}")
    return builder.add(replace(like, id=name, op="cast", uses=(use,), outs=(out,), attrs={"to": narrow})).out()


def group_of(groups: Sequence[OptimizerGroup], parameter: str) -> OptimizerGroup | None:
    """The first group whose pattern fits."""
    return next((group for group in groups if matches(group.pattern, parameter)), None)


def idle_groups(groups: Sequence[OptimizerGroup], parameters: Sequence[str]) -> tuple[OptimizerGroup, ...]:
    """The groups that no parameter falls to: a slip of the pen, likely."""
    used = [group_of(groups, name) for name in parameters]
    return tuple(group for group in groups if not any(group is one for one in used))


@dataclass
class _Build:
    """A `Build` that writes UPDATE nodes, named after what they belong to and placed where it is."""

    builder: GraphBuilder
    prefix: str = "update"
    owner: Node | None = None

    def __call__(
        self, op: str, *operands: Use, hint: str | None = None, body: str | None = None, **attrs: Attr
    ) -> tuple[Use, ...]:
        outs = REGISTRY[op].infer(tuple(use.type for use in operands), attrs)
        name = self.builder.fresh(f"{self.prefix}.{hint or op}")
        path, layer, origin = (self.owner.path, self.owner.layer, self.owner.origin) if self.owner else ("", None, ())
        node = Node(name, op, operands, outs, attrs, Phase.UPDATE, body, path, layer, origin)
        self.builder.add(node)
        return tuple(node.out(index) for index in range(len(outs)))


@dataclass
class _Step:
    """Writes the update phase of one graph."""

    options: Update
    builder: GraphBuilder
    bodies: dict[str, Graph]
    scalars: dict[tuple[str, DType], Use] = field(default_factory=dict[tuple[str, DType], Use])
    rates: dict[Schedule, Use] = field(default_factory=dict[Schedule, Use])
    made: Use | None = None  # the updates so far, where that is not the step

    def run(self, gradients: Mapping[str, Use]) -> None:
        """Rate, norm, then parameter by parameter."""
        chosen = {name: self._group(name) for name in gradients}
        gradients = {name: self._reduced(name, use) for name, use in gradients.items()}
        scale, label = self.options.scale, self.options.label
        skips = self.options.skips or scale is not None
        wanted = self.options.norm or self.options.clip is not None or skips
        norm = self._norm(gradients) if wanted else None
        updates = updates_state(self.builder, label) if norm is not None and skips else None
        self.made = None if updates is None else updates.out()
        guard = None
        if norm is not None and updates is not None and scale is not None:
            guard = Guard(self.builder, _Build(self.builder, label), label, norm, scale, updates)
            norm = guard.norm
        self.builder.output("lr", self._rate(self.options.schedule))
        if norm is not None:
            self.builder.output("grad_norm", norm)
        factor = None if norm is None or self.options.clip is None else self._scale(norm, self.options.clip)
        if guard is not None:
            factor = guard.factor(factor)
        for name, gradient in gradients.items():
            self._parameter(self.builder[name], gradient, chosen[name], factor, guard)
        if updates is not None and guard is None:
            build = _Build(self.builder, label)
            self._assign(updates, build("add", updates.out(), constant(build, 1.0, DType.F64))[0])
        if guard is not None:
            for target, value in guard.advanced():
                self._assign(target, value)
            for name, use in guard.outputs.items():
                self.builder.output(name, use)

    def _reduced(self, name: str, gradient: Use) -> Use:
        """The gradient once through the type in which devices add it up, then in its parameter's."""
        build, wide = _Build(self.builder, "reduce"), self.builder[name].outs[0].dtype
        for dtype in (self.options.reduce or gradient.dtype, wide):
            gradient = gradient if gradient.dtype is dtype else build("cast", gradient, to=dtype)[0]
        return gradient

    def _group(self, name: str) -> OptimizerGroup:
        found = group_of(self.options.groups, name)
        if found is None:
            hint = 'add a last pattern `"*"`, which takes every other'
            raise SpecError(Diagnostic("E0413", f"no pattern of `optimizer` fits the parameter `{name}`", hint=hint))
        return found

    # ---- scalars

    def _step(self, dtype: DType) -> Use:
        """The step counted from 0, as a float scalar."""
        key = ("step", dtype)
        if key not in self.scalars:
            node = next((node for node in self.builder if node.op == "step"), None)
            if node is None:
                outs = REGISTRY["step"].infer((), {})
                node = self.builder.add(Node(self.builder.fresh("step"), "step", (), outs, phase=Phase.PREPARE))
            (self.scalars[key],) = _Build(self.builder)("cast", node.out(), to=dtype)
        return self.scalars[key]

    def _count(self, dtype: DType) -> Use:
        """The step counted from 1, which optimizers want."""
        key = ("count", dtype)
        if key not in self.scalars:
            build = _Build(self.builder)
            done = self._step(dtype) if self.made is None else self._as(self.made, dtype)
            (self.scalars[key],) = build("add", done, constant(build, 1.0, dtype), hint="count")
        return self.scalars[key]

    def _rate(self, schedule: Schedule) -> Use:
        """The learning rate, in float64."""
        if schedule not in self.rates:
            build, step = _Build(self.builder, "lr"), self._step(DType.F64)
            if self.options.repeat > 1:  # ⌊count / repeat⌋
                (share,) = build("div", step, constant(build, float(self.options.repeat)))
                (step,) = build("floor", share, hint="step")
            self.rates[schedule] = rate(build, schedule, step)
        return self.rates[schedule]

    def _norm(self, gradients: Mapping[str, Use]) -> Use | None:
        """sqrt(Σ g²) over all gradients, in the type of the widest."""
        if not gradients:
            return None
        build = _Build(self.builder, "grad_norm")
        wide = DType.F64 if any(use.dtype is DType.F64 for use in gradients.values()) else DType.F32
        squares = [
            _Build(self.builder, "grad_norm", self.builder[name])("dot", use, use, over=use.dims, hint="square")[0]
            for name, use in gradients.items()
        ]
        squares = [use if use.dtype is wide else build("cast", use, to=wide)[0] for use in squares]
        total = squares[0] if len(squares) == 1 else build("add", *squares, hint="sum")[0]
        return build("sqrt", total)[0]

    def _scale(self, norm: Use, clip: float) -> Use:
        """min(1, clip / (norm + 1e-6))"""
        build = _Build(self.builder, "clip")
        (above,) = build("add", norm, constant(build, CLIP_EPSILON, norm.dtype))
        (ratio,) = build("div", constant(build, clip, norm.dtype), above)
        return build("minimum", ratio, constant(build, 1.0, norm.dtype), hint="scale")[0]

    # ---- one parameter

    def _parameter(
        self, parameter: Node, gradient: Use, group: OptimizerGroup, scale: Use | None, guard: Guard | None
    ) -> None:
        build = _Build(self.builder, f"update/{parameter.id}", parameter)
        value = parameter.out()
        gradient = gradient.relabel(dict(zip(gradient.dims, value.dims, strict=True)))
        if scale is not None:
            (gradient,) = build("mul", gradient, self._as(scale, gradient.dtype), hint="clipped")
        states = [self._state(parameter, group, role) for role in group.states]
        schedule = group.schedule or self.options.schedule
        speed = self._as(self._rate(schedule), value.dtype)
        step = [self._count(value.dtype)] if group.counts else []
        operands = [value, gradient, *(state.out() for state in states), *step, speed]
        results = self.options.optimize(build, self.bodies, group.function, operands, group.options)
        assert len(results) == 1 + len(states), f"{group.function} gives the parameter and its {len(states)} states"
        for target, result in zip([parameter, *states], results, strict=True):
            self._assign(target, result if guard is None else guard.kept(build, target, result))

    def _state(self, parameter: Node, group: OptimizerGroup, role: str) -> Node:
        out = parameter.outs[0]
        attrs: dict[str, Attr] = {
            "init": ("zeros",), "of": parameter.id, "role": role, "dims": out.dims, "dtype": out.dtype
        }  # fmt: skip
        node = Node(
            f"{group.function}.{role}/{parameter.id}", "state", (), (out,), attrs, Phase.PREPARE,
            path=parameter.path, layer=parameter.layer, origin=parameter.origin,
        )  # fmt: skip
        return self.builder.add(node)

    def _as(self, scalar: Use, dtype: DType) -> Use:
        """A scalar in a parameter's type; made once."""
        if scalar.dtype is dtype:
            return scalar
        key = (scalar.node, dtype)
        if key not in self.scalars:
            (self.scalars[key],) = _Build(self.builder)("cast", scalar, to=dtype)
        return self.scalars[key]

    def _assign(self, target: Node, value: Use) -> None:
        value = value.relabel(dict(zip(value.dims, target.outs[0].dims, strict=True)))
        assert value.type == target.outs[0], f"{target.id} is assigned a value of its own dims and dtype"
        attrs: dict[str, Attr] = {"target": target.id}
        self.builder.add(
            Node(
                f"assign/{target.id}",
                "assign",
                (value,),
                (),
                attrs,
                Phase.UPDATE,
                path=target.path,
                layer=target.layer,
                origin=target.origin,
            )
        )
