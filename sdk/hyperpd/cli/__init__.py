"""The command line: one module per command, arguments in, calls out; output.py alone prints."""
