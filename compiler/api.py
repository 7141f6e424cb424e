"""What `import partita` offers: a spec as an object that checks, compiles and becomes a torch module.

The root package hands these names out on demand, so that the command line does not pay for what it does not use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import pipeline
from .base.diagnostic import Diagnostic, SpecError
from .elaborate.load import Spec
from .elaborate.recipe import Recipe
from .elaborate.recipes import load_recipe
from .ir.graph import Graph
from .ir.types import DType
from .language.parse import read_source

if TYPE_CHECKING:
    from torch.fx import GraphModule

    from ..runtime.program import Build

__all__ = ["DType", "Diagnostic", "Loaded", "SpecError", "load", "module"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A spec, a row of its `sizes`, and settings (`path=value`, as `--set` takes them)."""

    path: Path
    spec: Spec
    size: str | None
    settings: tuple[str, ...]

    def check(self) -> list[Diagnostic]:
        """Everything that is wrong with the spec: syntax, names, dims of its models, records."""
        source = read_source(self.path)
        return pipeline.check_text(source.text, source.path)

    def recipe(self, name: str | None = None) -> Recipe:
        """The `train` record of that name, or the only one. Raises SpecError."""
        return pipeline.with_size(load_recipe(self.spec, name, self.settings), self.size)

    def graph(
        self, model: str | None = None, *, dims: Mapping[str, int] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> Graph:  # fmt: skip
        """A model's forward graph; dims that are not bound stay free. Raises SpecError."""
        return pipeline.model_graph(self.spec, model, size=self.size, dims=dims, options=options)

    def compile(self, folder: str | Path | None, *, recipe: str | None = None, device: str = "cpu") -> Build:
        """Compile a recipe and write its build folder (none for None). Raises SpecError, OSError."""
        return pipeline.compile_recipe(self.spec, self.recipe(recipe), folder, device=device)


def load(path: str | Path, *, size: str | None = None, settings: Iterable[str] = ()) -> Loaded:
    """Read a spec and all that it uses. Raises SpecError with everything that cannot be read."""
    return Loaded(Path(path), pipeline.open_spec(path), size, tuple(settings))


def module(
    spec: Loaded, model: str | None = None, *, dims: Mapping[str, int], options: Mapping[str, object] | None = None,
    training: bool = False, dtype: DType = DType.F32,
) -> GraphModule:  # fmt: skip
    """A model as an `nn.Module` with parameters named by path, usable with autograd and any optimizer.

    Called with the model's inputs in the order of its signature; gives its outputs. Every free dim (T, batch) must be
    in `dims`; another shape is an error. Parameters are initialised as the spec says. Raises SpecError.
    """
    return pipeline.module(spec.spec, model, size=spec.size, dims=dims, options=options, training=training, dtype=dtype)
