"""The demo: a worker that makes up its results, and lines of shell to try every contract with."""
