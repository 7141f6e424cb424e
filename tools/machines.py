"""Devices of the catalogue, or of one's own records, as the figures that a step's time is foretold by.

In: `h100` (a record of specs/clusters), or `FILE.partita:NAME`. Out: a `Machine`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from ..compiler.base.diagnostic import Diagnostics, did_you_mean
from ..compiler.cost.roofline import Machine
from ..compiler.elaborate.load import Spec
from ..compiler.elaborate.records import Section, check_record
from ..compiler.ir.types import DType
from .fault import CommandFault
from .specs import open_spec

LAUNCH_S = 4e-6  # of a kernel, where a record does not say


def machine_named(name: str) -> Machine:
    """The first device of a cluster. Raises CommandFault where nothing has that name, SpecError for a faulty record."""
    path, colon, own = name.rpartition(":")
    if name.endswith(".partita") or colon:
        spec = open_spec(path if colon else name)
        found = {key: spec for kind, key in spec.records if kind == "cluster"}
        wanted = own if colon else next(iter(found), "")
    else:
        found, wanted = dict(catalogue()), name
    if wanted not in found:
        raise CommandFault(f"no cluster `{wanted}`", did_you_mean(wanted, found) or f"there are {', '.join(found)}")
    return machine_of(found[wanted], wanted)


def machine_for(spec: Spec, name: str) -> Machine:
    """The device of a recipe's `cluster`: of a record that its spec sees, else of the catalogue."""
    return machine_of(spec, name) if ("cluster", name) in spec.records else machine_named(name)


def catalogue() -> Iterator[tuple[str, Spec]]:
    """Every cluster of specs/clusters with the spec that it stands in."""
    for file in sorted(resources.files("partita.specs").joinpath("clusters").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".partita"):
            with resources.as_file(file) as path:
                spec = open_spec(str(path))
            yield from ((name, spec) for kind, name in spec.records if kind == "cluster")


def section_of(spec: Spec, name: str) -> Section:
    """A cluster's record, checked. Raises SpecError."""
    sink = Diagnostics()
    section = check_record(spec.records["cluster", name], spec.records, sink)
    sink.raise_if_errors()
    assert section is not None, "a record without errors has a section"
    return section


def machine_of(spec: Spec, name: str) -> Machine:
    """The figures of a cluster's first device; elementwise work runs at the float32 peak."""
    values = section_of(spec, name).sections["device"][0].values
    rates = {DType(key): float(str(values[key])) for key in ("f64", "f32", "bf16", "f16") if key in values}
    if not rates:
        raise CommandFault(f"the device of `{name}` has no rate", "for instance f32 = 19.5 TFLOP/s")
    rates.setdefault(DType.F32, max(rates.values()))
    launch = float(str(values["launch"])) if "launch" in values else LAUNCH_S
    return Machine(rates, rates[DType.F32], float(str(values["bandwidth"])), launch)
