"""The executor: consumes commands into the ledger, calls each system once, and records every result as an event."""

from hub.executor.executor import Executor

__all__ = ["Executor"]
