"""What tests draw: graphs, operands, specs. Knows nothing of what they are compared with."""
