"""Metrics, records, run folders, the CSV leaderboard and its statistics. Nothing here knows of models or attacks."""
