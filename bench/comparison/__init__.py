"""Finished runs side by side: two models, a model against its baseline, ranks. Nothing here attacks."""
