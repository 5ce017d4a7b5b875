"""Protocols that judge attribution maps."""
