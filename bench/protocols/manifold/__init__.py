"""Protocols that measure distances to the image manifold."""
