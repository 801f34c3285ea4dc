"""The command line: a module per command, each imported only when it is needed."""
