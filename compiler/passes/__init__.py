"""The passes: graph to graph, one file each, all kept to one property: values and gradients do not change."""

from collections.abc import Mapping
from types import MappingProxyType

from .definition import Pass, check, run_passes
from .differentiate import Differentiate
from .fuse_loss import FuseLoss
from .inline import Inline
from .microbatch import Microbatch
from .offsets import Offsets
from .precision import AssignPrecision
from .rematerialize import Rematerialize
from .route import Route
from .simplify import Simplify

__all__ = ["PASSES", "Pass", "check", "run_passes"]

# Every pass by its name, in the order in which the pipeline runs them.
PASSES: Mapping[str, type[Pass]] = MappingProxyType(
    {
        one.name: one
        for one in (
            Inline,
            Offsets,
            Route,
            Simplify,
            Differentiate,
            AssignPrecision,
            FuseLoss,
            Rematerialize,
            Microbatch,
        )
    }
)
