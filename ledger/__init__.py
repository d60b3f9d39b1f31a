"""The log and the rules; imports none of the other packages."""
