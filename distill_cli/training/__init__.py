"""The loop, what it moves, and what drives it."""
