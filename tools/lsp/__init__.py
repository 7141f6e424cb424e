"""The language server: what an editor asks about specs, answered by the compiler itself."""
