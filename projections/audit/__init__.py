"""What `verify` does: the log, and all that is folded from it, held against what was written."""
