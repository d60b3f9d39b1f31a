"""Deadlines: which tasks expire, which have fallen silent, and what was reported of them too late."""
