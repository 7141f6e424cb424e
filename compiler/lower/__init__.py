"""IR to torch: fx modules, instructions, the build folder."""
