"""Metrics and benchmarks, implemented once."""
