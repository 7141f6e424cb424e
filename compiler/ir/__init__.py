"""The intermediate representation: dims, types and one graph for every stage from meaning to training step."""
