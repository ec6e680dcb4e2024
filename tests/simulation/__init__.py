"""The product's own parts in one thread, on a log in memory, under a seeded scheduler that crashes, delays and doubles."""
