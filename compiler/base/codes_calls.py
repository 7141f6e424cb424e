"""Entries E03, options and calls. See catalogue.py."""

from .entry import Entry

ENTRIES: tuple[Entry, ...] = ()
