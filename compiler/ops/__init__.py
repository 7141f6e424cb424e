"""The operators: one total declaration each, a file a family; no torch."""
