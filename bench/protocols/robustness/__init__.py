"""Protocols that attack predictions."""
