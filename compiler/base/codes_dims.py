"""Entries E02, dims. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = ()
