"""The Faust shell around the pure step: records arrive in chunks; outputs are sent, then state, and only then is a chunk done."""

GROUP = "hub-processor"
"""The consumer group under which the processor commits its offsets."""
