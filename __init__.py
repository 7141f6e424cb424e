"""Partita: a declarative model-spec compiler and runtime.

    import partita
    spec = partita.load("specs/models/gpt2.partita", size="small")
    spec.check()                                              # a list of diagnostics, empty if all is well
    net = partita.module(spec, dims={"T": 128, "batch": 4})   # an ordinary torch.fx.GraphModule
    partita.load("specs/recipes/docs_demo.partita").compile("out/build")

The names are loaded when they are first asked for; torch is loaded by `module` and `compile` only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .compiler.api import Diagnostic, DType, Loaded, SpecError, load, module

__all__ = ["DType", "Diagnostic", "Loaded", "SpecError", "load", "module"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(".compiler.api", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
