"""The passes: Graph to Graph, one file each, each proven to keep values and gradients."""
