"""Health of the hub: one status, computed from progress and waiting work, never from a process being alive.

`looking` collects facts from the ledger, the log, the boards and the programs, `status` assesses them (pure), `words` renders the
status as text and JSON, and `watch` repeats this in a thread of a program.
"""
