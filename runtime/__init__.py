"""The runtime: programs, their interpreters, data, state, checkpoints and the training loop. Knows no compiler."""
