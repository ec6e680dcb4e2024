"""The hub's own database: what was accepted, what was asked for, what came of it, and how far each reader is.

One file, one table. Every function takes the connection of a transaction that its caller began; `writer.py` makes those.
"""
