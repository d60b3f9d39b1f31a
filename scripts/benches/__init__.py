"""The rows of `task-ledger bench`, a module per group of rows; each ends in ``ROWS``, which ``scripts.bench`` gathers."""
