"""Benchmarks against peers: one process, the same weights and batches, alternating, medians and ratios."""
