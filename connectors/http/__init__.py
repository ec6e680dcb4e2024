"""Any system that pushes JSON or takes JSON, joined by settings alone."""
