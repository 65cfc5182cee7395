"""Measurements, never tests: each writes rows with command, commit and machine to results/."""
