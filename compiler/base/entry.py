"""One entry of the catalogue of errors. See catalogue.py."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A code at length; `bad` and `mended` are specs, empty where the fault lies outside of a spec's text."""

    code: str
    title: str
    what: str
    why: str
    bad: str = ""
    mended: str = ""
