"""Torch kernels, a file a family of operators, mirroring `compiler/ops/`."""
