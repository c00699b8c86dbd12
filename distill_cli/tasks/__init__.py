"""What a batch asks, and how answers are judged."""
