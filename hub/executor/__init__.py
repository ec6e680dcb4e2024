"""Carries commands out: takes them from the log into the ledger, calls each system once, and tells the log what came of it."""

from hub.executor.executor import Executor

__all__ = ["Executor"]
