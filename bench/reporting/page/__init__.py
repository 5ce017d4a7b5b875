"""The leaderboard as one self-contained web page: data gathering, plots, templates. Nothing here runs a model."""
