"""The pure decisions: a case, and what one event does to it."""
