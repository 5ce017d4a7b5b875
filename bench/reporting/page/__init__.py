"""The leaderboard as one self-contained web page: data gathering, plots, templates. Nothing here runs a model."""

from bench.reporting.page.page import PageSource, build_page
from bench.reporting.page.saliency import AdversarialSet, SaliencySet, adversarial_set, saliency_set

__all__ = ["AdversarialSet", "PageSource", "SaliencySet", "adversarial_set", "build_page", "saliency_set"]
