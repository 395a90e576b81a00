"""The compressor's commands, each in a module of its own: compress, report, passes."""
