"""Entries E04, records and units. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = ()
