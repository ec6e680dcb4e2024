"""The trail: where in the log each event lies, by its id, its case and its object. Written by `projections.trail`, read from here.

`numbers` says what the trail keeps of a name, `tables` how it lies, `finding` looks up, `history` puts ledger, trail
and log together.
"""
