"""Callbacks: which are to be posted, when, and how each has gone so far."""
