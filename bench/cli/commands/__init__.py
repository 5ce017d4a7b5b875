"""The commands, one module each: parse, call and render."""
