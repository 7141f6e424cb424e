"""Entries E01, names. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = ()
