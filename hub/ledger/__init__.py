"""The ledger, the hub's own database: outbox, commands with their outcomes, parked entries, and consumer positions.

One file, one table. Every function takes a connection whose transaction the caller began; `writer.py` begins write transactions.
"""
