"""Moves between a device and its host, within a module the identity: what really moves is an instruction of its own."""

from __future__ import annotations

from ..emit import Rule
from .collectives import identity

RULES: dict[str, Rule] = dict.fromkeys(("offload", "fetch"), identity)
