"""From a `cluster` record to what layouts and schedules are priced on: devices, and the links between them.

In: a spec's records, or those of specs/clusters. Out: a `Cluster`: the figures of its device, its levels from the
innermost on. Axes of a mesh lie on the levels as ranks lie on hosts: the last axis innermost.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from .base.diagnostic import Diagnostic, Diagnostics, Label, SpecError, did_you_mean
from .base.span import Source
from .cost.cluster import Cluster, Level, Link
from .cost.host import USUAL, Host
from .cost.roofline import Machine
from .elaborate.kinds import Word
from .elaborate.load import Spec, load
from .elaborate.records import Section, check_record
from .ir.types import DType
from .language import syntax as s

LAUNCH_S = 4e-6  # of a kernel, where a record does not say
KIND = "cluster"


def catalogue() -> Iterator[tuple[str, Spec]]:
    """Every cluster of specs/clusters with the spec that it stands in."""
    for file in sorted(resources.files("partita.specs").joinpath("clusters").iterdir(), key=lambda file: file.name):
        if Path(file.name).suffix == ".partita":
            spec, found = load(Source(f"specs/clusters/{file.name}", file.read_text("utf-8")))
            if spec is None:
                raise SpecError(found)
            yield from ((name, spec) for kind, name in spec.records if kind == KIND)


def cluster_named(name: str, spec: Spec | None = None) -> Cluster:
    """A cluster that a spec sees, else one of the catalogue. Raises SpecError E0411 where nothing has that name."""
    if spec is not None and (KIND, name) in spec.records:
        return cluster_of(spec, name)
    known = dict(catalogue())
    if name not in known:
        hint = did_you_mean(name, known) or f"there are {', '.join(known)}"
        raise SpecError(Diagnostic("E0411", f"no cluster `{name}`", hint=hint))
    return cluster_of(known[name], name)


def section_of(spec: Spec, name: str) -> Section:
    """A cluster's record, checked. Raises SpecError."""
    sink = Diagnostics()
    section = check_record(spec.records[KIND, name], spec.records, sink)
    sink.raise_if_errors()
    assert section is not None, "a record without errors has a section"
    return section


def cluster_of(spec: Spec, name: str) -> Cluster:
    """What a record describes. Raises SpecError: devices of several kinds, levels that hold something else."""
    section = section_of(spec, name)
    device, *others = section.sections["device"]
    if others:
        title = f"the cluster `{name}` has devices of several kinds"
        raise SpecError(Diagnostic("E0416", title, (Label(others[0].span),), hint="a record for each kind"))
    inner = next(iter(section.sections.get("level", ())), None)
    abreast = _whole(inner.values["abreast"]) if inner is not None and "abreast" in inner.values else None
    machine, memory = _machine(device, name), _whole(device.values["memory"])
    return Cluster(machine, memory, tuple(_levels(section, name, device)), host=_host(device), abreast=abreast)


def _machine(device: Section, name: str) -> Machine:
    """The device's figures; elementwise work runs at the float32 peak."""
    values = device.values
    rates = {DType(key): _figure(values[key]) for key in ("f64", "f32", "bf16", "f16") if key in values}
    if not rates:
        hint = "for instance f32 = 19.5 TFLOP/s"
        raise SpecError(Diagnostic("E0404", f"the device of `{name}` has no rate", hint=hint))
    rates.setdefault(DType.F32, max(rates.values()))
    launch = _figure(values["launch"]) if "launch" in values else LAUNCH_S
    return Machine(rates, rates[DType.F32], _figure(values["bandwidth"]), launch)


def _host(device: Section) -> Host:
    """What joins the device to its host."""
    link = device.values.get("host_link", USUAL.link_bytes_per_s)
    return Host(_figure(link), _figure(device.values.get("host_memory", USUAL.memory_bytes_per_s)))


def _levels(section: Section, name: str, device: Section) -> Iterator[Level]:
    """Each holds the one before it, the first devices."""
    held = _name(device)
    for level in section.sections.get("level", ()):
        written = level.values["of"]
        members, of = _members(written)
        if of != held or members < 1:
            title = f"a level of `{name}` cannot be of this: it joins so many `{held}`"
            raise SpecError(Diagnostic("E0402", title, (Label(level.place("of")),), hint=f"of = 8 * {held}"))
        yield Level(members, Link(_figure(level.values["link"]), _figure(level.values["latency"])))
        held = _name(level)


def _members(written: object) -> tuple[int, str | None]:
    """`8 * H100`: how many of what."""
    if isinstance(written, s.Binary) and written.op == "*":
        left, right = _members(written.left), _members(written.right)
        return left[0] * right[0], left[1] or right[1]
    if isinstance(written, s.Number) and isinstance(written.value, int):
        return written.value, None
    return (1, written.name) if isinstance(written, s.Ref) else (0, None)


def _name(section: Section) -> str:
    """The word between `device` or `level` and its brace."""
    name = section.values["name"]
    assert isinstance(name, Word), "the schema wants a name"
    return name.text


def _figure(value: object) -> float:
    assert isinstance(value, int | float), "the schema lets numbers through"
    return float(value)


def _whole(value: object) -> int:
    return int(_figure(value))
