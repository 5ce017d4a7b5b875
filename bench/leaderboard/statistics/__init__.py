"""Values an example, their intervals, paired tests and ranks."""
