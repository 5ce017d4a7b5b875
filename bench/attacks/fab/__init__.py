"""FAB-T, the nearest misclassified point."""
