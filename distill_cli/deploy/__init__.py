"""A finished student on its way out."""
