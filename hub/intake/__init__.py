"""Outside to log: a push or a page becomes facts, events in the outbox, and records of the log."""
