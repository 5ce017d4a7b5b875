"""The sweep: one attack over all radii of a norm."""
