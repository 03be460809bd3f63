"""Search spaces: what can be chosen, and what architecture the choices make."""
