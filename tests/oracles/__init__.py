"""What tests compare with. Knows nothing of where the graphs come from."""
