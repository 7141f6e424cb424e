"""The command line and what it prints, draws and measures."""
