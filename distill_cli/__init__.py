"""Distill a large teacher into a small student, from a configuration to a deployable model."""

__version__ = "0.1.0"
