"""The compiler: from a spec's text to one program per device, in passes that change nothing but speed and memory."""
