"""Children: they measure what an architecture is worth."""
