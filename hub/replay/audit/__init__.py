"""The audit: an independent fold of the log, compared with the processor's state, the shared view, the ledger and the boards.

Nothing here may import the folds that it checks (`hub.engine`, `hub.processor`, the boards): a mistake that both shared would
go unnoticed. The audit knows topics, tables and the vocabulary, and reads everything else as plain JSON. `decisions` is the
exception: it replays the processor itself, under the rules on record.
"""
