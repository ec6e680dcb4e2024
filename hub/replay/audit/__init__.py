"""The audit's own fold of the log, and what it is compared with.

Nothing here may import the folds that it judges (`hub.engine`, `hub.processor`, the boards): what both had wrong in the
same way would look right. It knows topics, tables and the vocabulary, and reads everything else as plain JSON.
"""
