"""Attacks: threat models, projections, losses, the sweep engine, the adapter to torchattacks, verification."""
