"""The leaderboard as one self-contained web page: data gathering, plots, templates. Nothing here runs a model."""

from bench.reporting.page.adversarial import adversarial_set
from bench.reporting.page.page import PageSource, build_page
from bench.reporting.page.saliency import SaliencySet, saliency_set

__all__ = ["PageSource", "SaliencySet", "adversarial_set", "build_page", "saliency_set"]
