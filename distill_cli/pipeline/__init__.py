"""A run's story, from the teacher to the summary."""
