"""Captures, key files and pipes made to cost much: what each costs, and how that grows. See ``__main__``."""
