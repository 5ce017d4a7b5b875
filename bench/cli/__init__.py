"""The command line: one module a command; they parse, call and render. Heavy imports wait until they are needed."""
