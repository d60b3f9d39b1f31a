"""The contracts over HTTP; imports the ledger and the projections."""
