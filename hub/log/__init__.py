"""The log: partitions of records on Kafka, and the sequences by which a reader knows that nothing is missing."""
