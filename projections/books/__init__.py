"""The books: all money that the log moves, what is open of each task, and what differs, in a file of their own."""
