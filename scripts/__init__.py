"""The commands, a thin module per verb; may import anything and is imported by nobody."""
