"""One folder per board: its fold, its table, its page."""
