"""Searches for cells: spaces, searchers, children, fleets and the journal (installed as nasnet_zoo.search)."""
