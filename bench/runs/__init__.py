"""A run: planned into independent work units, executed, resumed, and written down."""
