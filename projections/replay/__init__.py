"""Replay: what the log gives today, held against the live rows, put in their place, or worked out by other prices."""
