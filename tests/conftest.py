"""Hypothesis profiles, and how threads wait. `default` repeats itself and fits the suite's time, `fuzz` looks for new
cases."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile("default", deadline=None, derandomize=True, database=None, suppress_health_check=_SLOW)
settings.register_profile("fuzz", deadline=None, max_examples=2000, print_blob=True, suppress_health_check=_SLOW)
# Before torch is loaded: threads that wait for their next kernel leave the cores to the other processes of the suite.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
