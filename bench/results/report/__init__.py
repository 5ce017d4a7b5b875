"""The leaderboard as one self-contained web page: data gathering, plots, templates. Nothing here runs a model."""

from bench.results.report.page import PageSource, build_page
from bench.results.report.saliency import SaliencyPanel, SaliencySet

__all__ = ["PageSource", "SaliencyPanel", "SaliencySet", "build_page"]
