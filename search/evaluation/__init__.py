"""Judging a search: metrics, significance, and what `search evaluate` measures."""
