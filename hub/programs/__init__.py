"""The programs of a hub, each joined from the parts that it runs."""
