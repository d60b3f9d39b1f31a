"""Reconciliation: the books held against providers' statements and the ledger itself; what differs goes to the log."""
