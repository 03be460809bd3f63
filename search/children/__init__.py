"""Children: what an architecture is worth."""
