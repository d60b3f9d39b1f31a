"""The specification: rules as sentences, contracts as tables, engines as one suite."""
