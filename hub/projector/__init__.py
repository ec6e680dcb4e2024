"""Folds the log into boards: the runner, the board store, rebuilds, and the trail (an index of the log)."""
