"""The command line: one module per command, one place where errors become exit codes."""
