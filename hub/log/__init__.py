"""The log: partitions of records on Kafka, and the sequences that let a reader detect missing events."""
