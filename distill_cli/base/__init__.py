"""Errors, files, signals, exit codes, device and seeds, and the terminal: what every room stands on."""
