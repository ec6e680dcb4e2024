"""A real Tryton to try the hub with: its server, and the people who work in it."""
