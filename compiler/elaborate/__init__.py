"""Syntax tree to graph: names, dims, blocks, functions and records."""
