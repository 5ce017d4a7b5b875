"""Saliency panels: maps before and after an attack, drawn from rows of numbers."""
