"""Folds of the log into boards, and the web that shows them."""
