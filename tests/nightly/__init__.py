"""All that is too long for each merge: `python -m tests.nightly`."""
