"""The language: its grammar, the syntax tree, parsing and the one canonical form. Knows nothing of graphs."""
