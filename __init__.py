"""Partita: a declarative model-spec compiler and runtime."""
