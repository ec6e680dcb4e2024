"""The programs of a hub: connectors, processor and projector, each composed of the parts that it runs."""
