"""Entries E05, data and runs. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = ()
