"""One verb, one file, one `run`. A file's docstring is its help page; a root YAML of its name is its configuration."""
