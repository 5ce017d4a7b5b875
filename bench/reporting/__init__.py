"""Finished runs for the eye: the web page, figures, saliency panels, and what is installed."""
