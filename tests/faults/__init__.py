"""The fault harness: `python -m tests.faults`, rows of the fault matrix played on the whole hub under load."""
