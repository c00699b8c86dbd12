"""What finished runs say, gathered: records, leaderboard and pages; imports neither torch nor hydra."""
