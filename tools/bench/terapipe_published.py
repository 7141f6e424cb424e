"""What TeraPipe published (Li et al. 2021, arXiv 2102.07988): GPT-3 cut into token slices on p3.16xlarge machines.

The settings of tables 1, 2 and 3 with their seconds, the seconds of equal slices of figure 6, and what the data sheet
says of the machines' links.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ...compiler.cost.cluster import Link

TOKENS = 2048
DEVICES = 8  # of a machine
INSIDE, BETWEEN = Link(150e9, 3e-6), Link(25e9 / 8, 20e-6)  # NVLink 2 of a device; 25 Gbit/s between machines


@dataclass(frozen=True, slots=True)
class Setting:
    """Seconds of a step on one data-parallel rank, without token slices and with these (tables 1, 2 and 3).

    Of setting 10 only the number of slices is known to us (the authors' flop_model.py), and that they are equal.
    """

    number: int
    model: str
    layers: int
    hidden: int
    batch: int
    stages: int
    devices: int  # that share a layer
    without_s: float
    with_s: float
    lengths: tuple[int, ...]


SETTINGS = (
    Setting(5, "GPT3-13B", 40, 5120, 32, 40, 8, 1.863, 1.328, (704, 688, 656)),
    Setting(8, "GPT3-44B", 96, 6144, 8, 48, 8, 2.662, 1.111, (384, 384, 368, 320, 296, 296)),
    Setting(9, "GPT3-175B", 96, 12288, 2, 96, 4, 9.99, 1.481, (120,) * 4 + (112,) * 6 + (104,) * 8 + (64,)),
    Setting(10, "GPT3-175B", 96, 12288, 2, 48, 8, 5.822, 1.16, (128,) * 16),
)
# Figure 6: seconds by the number of equal slices.
EQUAL: Mapping[int, Mapping[int, float]] = MappingProxyType(
    {
        9: {1: 9.99, 4: 2.902, 8: 1.892, 16: 1.547, 32: 1.593, 64: 2.227, 128: 3.252},
        8: {1: 2.662, 4: 1.241, 8: 1.255, 16: 1.241},
    }
)
