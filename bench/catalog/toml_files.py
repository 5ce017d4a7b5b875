"""TOML that comes from outside, under the name by which the rooms above the catalog read it: bench.core.toml_files."""

from bench.core.toml_files import explain, read_toml, validate, write_toml

__all__ = ["explain", "read_toml", "validate", "write_toml"]
