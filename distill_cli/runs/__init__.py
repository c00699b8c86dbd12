"""A run's folder: what it is, what it has saved, and the settings it brings back."""
