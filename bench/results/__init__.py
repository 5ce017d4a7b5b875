"""Results: records, run folders, the CSV leaderboard, intervals. Nothing here knows of models or attacks."""
