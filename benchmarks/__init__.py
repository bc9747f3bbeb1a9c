"""Measures speed and memory of camserve, as ratios within one run."""
