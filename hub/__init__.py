"""Turns events into commands and shared state."""

__version__ = "0.1.0"
