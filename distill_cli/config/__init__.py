"""Where configuration lives, how it is composed and checked, and how what it names is built."""
