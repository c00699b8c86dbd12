"""Teachers: prepared once, asked live or from what is kept of their answers."""
