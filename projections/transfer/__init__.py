"""Transfer: the log as lines of JSON, an empty store filled from it, and the digest that both stores must share."""
