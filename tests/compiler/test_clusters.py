"""Records of machines as what layouts are priced on; what cannot be priced says so."""

from __future__ import annotations

import pytest
from partita.compiler.base.diagnostic import SpecError
from partita.compiler.base.span import Source
from partita.compiler.clusters import catalogue, cluster_named
from partita.compiler.cost.cluster import H100_NODES, Cluster, Level, Link
from partita.compiler.cost.host import USUAL, Host
from partita.compiler.devices import machines
from partita.compiler.elaborate.load import load
from partita.compiler.elaborate.recipe import Plan
from partita.compiler.ir.layout import Mesh

DEVICE = "  device Box { memory = 8 GiB, bandwidth = 50 GB/s, f32 = 100 GFLOP/s }\n"


def read(levels: str, device: str = DEVICE) -> Cluster:
    """A cluster `desk` of these levels."""
    spec, faults = load(Source("desk.partita", f"cluster desk {{\n{device}{levels}}}\n"))
    assert spec is not None, faults
    return cluster_named("desk", spec)


def test_levels_are_read_from_the_innermost_on() -> None:
    levels = "  level host { of = 2 * Box, link = 3 GB/s, latency = 5 us }\n"
    levels += "  level room { of = host * 3, link = 1 GB/s, latency = 50 us }\n"
    found = read(levels)
    assert (found.devices, found.memory_bytes) == (6, 8 << 30)
    assert found.levels == (Level(2, Link(3e9, 5e-6)), Level(3, Link(1e9, 5e-5)))


def test_what_joins_a_device_to_its_host_is_read() -> None:
    assert read("").host == USUAL
    found = read("", DEVICE.replace(" }", ", host_link = 60 GB/s }"))
    assert found.host == Host(60e9, USUAL.memory_bytes_per_s)
    assert found.host.waiting_s(120e9, 60e9, 1.5, 2.0) == 0.5


def test_the_catalogue_has_hosts_of_eight() -> None:
    for name, link, port in (
        ("p3_16xlarge", 150e9, 25e9 / 8 / 8),
        ("dgx_a100", 300e9, 25e9),
        ("dgx_h100", 450e9, 50e9),
    ):
        found = cluster_named(name)
        assert [level.members for level in found.levels] == [8, 8]
        assert [level.link.bandwidth_bytes_per_s for level in found.levels] == [link, port]
    assert all(cluster_named(name).devices >= 1 for name, _ in catalogue())


@pytest.mark.parametrize(
    ("levels", "device", "code"),
    [
        ("  level host { of = 2 * Bix, link = 3 GB/s, latency = 5 us }\n", DEVICE, "E0402"),
        ("  level host { of = Box + Box, link = 3 GB/s, latency = 5 us }\n", DEVICE, "E0402"),
        ("", DEVICE + DEVICE.replace("Box", "Bax"), "E0416"),
        ("", DEVICE.replace(", f32 = 100 GFLOP/s", ""), "E0404"),
    ],
)
def test_what_cannot_be_priced_says_so(levels: str, device: str, code: str) -> None:
    with pytest.raises(SpecError) as fault:
        read(levels, device)
    assert fault.value.diagnostics[0].code == code


def test_a_name_that_nothing_has_is_refused() -> None:
    with pytest.raises(SpecError) as fault:
        cluster_named("dgx_h101")
    assert "dgx_h100" in str(fault.value.diagnostics[0].hint)


def test_a_mesh_has_no_more_devices_than_its_cluster_and_holds_no_more() -> None:
    desk = read("  level host { of = 2 * Box, link = 3 GB/s, latency = 5 us }\n")
    mesh = Mesh((("data", 2),))
    assert machines(mesh, Plan(mesh.axes), None) == (H100_NODES, None)
    assert machines(mesh, Plan(mesh.axes), desk) == (desk, 8 << 30)
    assert machines(mesh, Plan(mesh.axes, (), None, 1 << 30), desk) == (desk, 1 << 30)
    with pytest.raises(SpecError) as fault:
        machines(Mesh((("data", 3),)), Plan(), desk)
    assert fault.value.diagnostics[0].code == "E0945"
