"""The search over meshes and choices, and the plan that it finds, as text."""
