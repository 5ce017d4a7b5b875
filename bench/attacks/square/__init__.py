"""Square, the black-box attack by random search."""
