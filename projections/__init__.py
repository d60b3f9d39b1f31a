"""What is read: folds of the log; imports only the ledger."""
