"""How each primitive is written and what it gives: for hints, and for the reference of the standard library.

In: nothing. Out: by name a form, as it would stand in a spec, and a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_ELEMENTS = {
    "exp": "eˣ", "log": "the natural logarithm", "sqrt": "the square root", "tanh": "the hyperbolic tangent",
    "sigmoid": "1 / (1 + e⁻ˣ)", "erf": "the error function", "sin": "the sine", "cos": "the cosine",
    "floor": "the whole number below",
}  # fmt: skip

FORMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "dot": ("dot[D](x, w)", "the sum over D of the products; whatever else both have is aligned by name"),
        "sum": ("sum[D](x)", "the sum over one dim or several"),
        "mean": (
            "mean[D](x, where = w)",
            "the mean; with `where` the elements are weighed, and the weights add up to 1",
        ),
        "max": ("max[D](x)", "the largest along D"),
        "min": ("min[D](x)", "the smallest along D"),
        **{name: (f"{name}(x)", f"{said}, of each element") for name, said in _ELEMENTS.items()},
        "where": ("where(c, x, y)", "x where c is true, else y"),
        "stop": ("stop(x)", "x, through which no gradient goes"),
        "index": ("index[T]", "0, 1, 2 … along T"),
        "length": ("length[T]", "how many there are along T; where rows hold documents, how many the document has"),
        "zeros": ("zeros[T, D]", "zeros of these dims"),
        "ones": ("ones[T, D]", "ones of these dims"),
        "random": ("random(x)", "for each element of x a number from 0 to 1; `random[T, D]` of these dims"),
        "gaussian": ("gaussian(x)", "for each element of x one from N(0, 1); `gaussian[T, D]` of these dims"),
        "stack": ("stack[P](a, b)", "tensors one behind the other along a new dim"),
        "unstack": ("a, b = unstack[P](x)", "the tensors that lie along a dim"),
        "split": ("a, b = split[K -> N + M](x)", "the parts of an axis"),
        "concat": ("concat[N + M -> K](a, b)", "one axis of several"),
        "top": ("top[E](x, 2)", "true for the 2 largest along E; of equal ones the first count"),
        "normal": ("normal(0.02)", "begins a parameter with numbers of that deviation"),
        "uniform": ("uniform(0.1)", "begins a parameter with numbers from -0.1 to 0.1"),
        "kaiming": ("kaiming", "begins a parameter with numbers that fit how many inputs it sums (He et al. 2015)"),
        "constant": ("constant(0.5)", "begins a parameter with one number"),
        "window": (
            "window[Y -> (A P)](x, stride = 1, before = 1, after = 1, fill = 0)",
            "for each place A the P elements from it on, `before` and `after` the axis `fill`",
        ),
        "unwindow": ("unwindow[(A P) -> Y](x, stride = 1, before = 1, after = 1)", "these put back and added up"),
    }
)


def written(name: str) -> str:
    """A hint: the form of a primitive."""
    return f"it is written {FORMS[name][0]}"
