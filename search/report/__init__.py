"""The report of a search: one page of HTML."""
