"""Backups of a hub: its log in segments, its ledger in one snapshot, the files of its home, and the digests of all of them."""
