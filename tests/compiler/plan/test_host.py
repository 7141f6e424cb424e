"""An optimizer on the host: what a plan waits for is what its program waits for."""

from __future__ import annotations

import pytest
from oracles.plans import ready
from partita.compiler.cost.host import Host
from partita.compiler.plan.host import Hosting, waiting_s
from partita.compiler.plan.space import Unit


def test_parameters_are_there_before_the_first_of_several_microbatches() -> None:
    parts = ready("gpt2", "dgx_a100", 2, 2).layouts.parts(Unit((), "full", 2)).parts
    forward = sum(part.forward_s for part in parts)
    up = sum(sum(part.own.read) for part in parts)
    host = Host(2 * up / forward)  # so they come up in half of the forward
    lone, several = (waiting_s(parts, Hosting(host, alone=False, beside=beside), 1) for beside in (True, False))
    assert several - lone == pytest.approx(forward / 2)
