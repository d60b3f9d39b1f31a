"""The rows of `task-ledger bench`: a module per group, each ending in ``ROWS``, which ``scripts.bench`` gathers."""
