"""Readers of the past: `history` reads events from ledger and log, `story` links a case's events and commands, `audit` checks all.

They only read. The trail, an index of log positions by event id, case and entity, is written by `hub.projector`.
"""
