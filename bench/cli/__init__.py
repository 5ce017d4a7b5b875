"""The command line: one module a command; they parse, call and render. Nothing heavy is imported before it is needed."""
