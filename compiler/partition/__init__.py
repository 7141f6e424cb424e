"""How a graph may lie on a mesh, what that costs, and which way is best: what the pass `partition` decides with."""
