"""What one layer of a published setting takes on one device, for a slice of l tokens behind c.

In: a setting, the machine's rates, sizes of slices. Out: seconds of each half, bytes that go on to the next layer. The
layer's graph is compiled as any other; the FLOPs, bytes moved and bytes sent of each of its kernels are polynomials in
the sizes, read off a few graphs and proven on one more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ...compiler import pipeline
from ...compiler.base.span import Source
from ...compiler.cost.cluster import Cluster, Level, collective_s
from ...compiler.cost.flops import work_of
from ...compiler.cost.roofline import FREE, VIEWS, Machine
from ...compiler.devices import partitioned
from ...compiler.elaborate.recipes import load_recipe
from ...compiler.ir.graph import Graph
from ...compiler.ir.layout import Mesh
from ...compiler.ir.types import DType, Node
from ...compiler.ops.collectives import COLLECTIVES
from ...compiler.ops.costs import read_bytes
from ...compiler.partition.choices import Wishes
from ...compiler.passes.localize import localize
from ...compiler.schedule.ladder import HALVES
from ...compiler.schedule.sliced import SlicedBlocks
from ..specs import open_spec
from .terapipe_published import BETWEEN, DEVICES, INSIDE, TOKENS, Setting

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Rates:
    """What is fitted: of one device, FLOPs a second in f16, bytes a second, seconds of a launch."""

    flops_per_s: float
    bandwidth_bytes_per_s: float
    launch_s: float


def device_graph(setting: Setting) -> Graph:
    """One device's part of the step of two layers, the rows cut into two slices."""
    text = _SPEC.format(D=setting.hidden, H=setting.hidden // 128, F=4 * setting.hidden, T=TOKENS)
    here = resources.files("partita.specs").joinpath("models").joinpath("terapipe.partita")
    spec = open_spec(Source(str(Path(str(here))), text))
    step = pipeline.unfused_step(spec, load_recipe(spec, "layers"), "cuda")
    mesh = Mesh((("tensor", setting.devices),))
    heads: dict[str, tuple[str, ...]] = dict.fromkeys("HGF", ("tensor",))
    wishes = Wishes({**heads, **dict.fromkeys(("T", "D", "V"), ())}, 0)
    cluster = Cluster(_machine(Rates(125e12, 900e9, 4e-6)), 16 << 30, (Level(DEVICES, INSIDE), Level(64, BETWEEN)))
    return localize(partitioned([step], mesh, wishes, cluster).graph, mesh, (0,))


_SPEC = """use gpt2
train layers {{
  model        = GPT2(drop = 0)
  dims         = [T = {T}, L = 2, D = {D}, H = {H}, F = {F}, V = 1024, N = {T}]
  data {{ read = text("none.txt"), rows = chunk(T), target = next(tokens) }}
  loss         = mean(cross_entropy[V](logits, target))
  batch        = 2
  microbatches = 2
  steps        = 1
  precision    = mixed(compute = f16, scale = none)
  optimizer    = adamw()
  lr           = 0.1
  plan {{ mesh = [pipe = 1], schedule = token_slices(2) }}
}}
"""


def _machine(rates: Rates) -> Machine:
    peaks = MappingProxyType({DType.F32: 15.7e12, DType.F16: rates.flops_per_s})
    return Machine(peaks, 15.7e12, rates.bandwidth_bytes_per_s, rates.launch_s)


@dataclass
class LayerCosts:
    """What one layer takes for a slice of l tokens behind c: FLOPs and bytes of each kernel, exactly.

    Both are polynomials 1, l, c, l c, l², c² in the sizes, read off at six of them.
    """

    setting: Setting
    sent: dict[int, int] = field(init=False, default_factory=dict[int, int])

    @cached_property
    def blocks(self) -> SlicedBlocks:
        """The graph's blocks; no time is asked of them."""
        return SlicedBlocks(device_graph(self.setting), lambda node: 0.0, BETWEEN)

    @cached_property
    def kernels(self) -> Mapping[str, Sequence[_Kernel]]:
        """The kernels of the second layer, by half."""
        at = list(self.blocks.names).index("blocks.1")
        sizes = [(1, length, context) for length, context in _SAMPLES]
        found: dict[str, list[_Kernel]] = {}
        for half in HALVES:
            nodes = zip(*(self.blocks.nodes(at, half, size) for size in sizes), strict=True)
            found[half] = [_kernel(many, self.setting.devices) for many in nodes if many[0][0].op not in FREE | VIEWS]
        return MappingProxyType(found)

    def crossing_bytes(self, length: int) -> int:
        """What a slice of a stage's output has."""
        if length not in self.sent:
            at = list(self.blocks.names).index("blocks.1")
            self.sent[length] = self.blocks.crossing_bytes(at, (1, length, 0))
        return self.sent[length]

    def seconds(self, half: str, lengths: Array, contexts: Array, rates: Rates) -> Array:
        """Of one layer, for each of many slices."""
        powers = _powers(lengths, contexts)
        total = np.zeros(len(lengths))
        for kernel in self.kernels[half]:
            rate = rates.flops_per_s if kernel.contraction else 15.7e12
            bound = np.maximum(powers @ kernel.flops / rate, powers @ kernel.moved / rates.bandwidth_bytes_per_s)
            sent = powers @ kernel.sent * kernel.wire_s_per_byte + kernel.wire_s
            total += kernel.count * (np.where(kernel.wire_s > 0, sent, bound) + rates.launch_s)
        return total


_SAMPLES = ((64, 0), (128, 0), (64, 64), (192, 128), (64, 256), (256, 64), (320, 448))


def _powers(lengths: Array, contexts: Array) -> Array:
    own, before = lengths / TOKENS, contexts / TOKENS
    return np.stack([np.ones_like(own), own, before, own * before, own * own, before * before], axis=-1)


@dataclass(frozen=True)
class _Kernel:
    """Coefficients of its FLOPs, bytes moved and bytes sent; a collective's wire time has a slope and a base."""

    count: int
    contraction: bool
    flops: Array
    moved: Array
    sent: Array
    wire_s_per_byte: float
    wire_s: float


def _kernel(many: Sequence[tuple[Node, int]], devices: int) -> _Kernel:
    node, count = many[0]
    works = [work_of(one) for one, _ in many]
    sent, spans = node.op in COLLECTIVES, (Level(devices, INSIDE),)
    base = collective_s(node.op, 0, spans) if sent else 0.0
    slope = collective_s(node.op, 1e9, spans) - base if sent else 0.0
    return _Kernel(
        count, works[0].model_flops > 0,
        _coefficients([work.flops for work in works]), _coefficients([work.bytes_moved for work in works]),
        _coefficients([read_bytes(one) for one, _ in many]), slope / 1e9, base,
    )  # fmt: skip


def _coefficients(values: Sequence[float]) -> Array:
    """The polynomial through the first samples; the last one proves it."""
    lengths, contexts = (np.array(column, dtype=float) for column in zip(*_SAMPLES, strict=True))
    powers, wanted = _powers(lengths, contexts), np.array(values, dtype=float)
    found = np.linalg.solve(powers[:-1], wanted[:-1]).astype(np.float64)
    assert np.allclose(powers @ found, wanted, rtol=1e-9), "a kernel's cost is a polynomial of the slice's sizes"
    return found
