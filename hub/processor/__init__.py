"""The Faust shell round the pure step: records come by chunks, outputs go out, then state, and only then is a chunk done."""

GROUP = "hub-processor"
"""The consumer group under which the processor commits how far it is."""
