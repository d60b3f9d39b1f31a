"""The rows of `task-ledger bench`: a module per group of rows, each ending in ``ROWS``, which ``scripts.bench`` gathers."""
