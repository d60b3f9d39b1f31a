"""What is read: folds of the log; imports only the ledger.

Each folder is one projection, or what is drawn from one. What they share lies beside them: how the log is followed and
read (`follow`, `facts`), the file that a follower keeps (`side_file`) and how a place in the log is named (`places`).
"""
