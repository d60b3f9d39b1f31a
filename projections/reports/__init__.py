"""Reports: the books as tables and as journals, of any period, and tasks as they stood, as known at any position."""
