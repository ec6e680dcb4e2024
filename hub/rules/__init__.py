"""Rules: YAML files with CEL expressions that map an event to commands."""
