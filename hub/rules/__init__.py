"""Rules: YAML that says which commands an event asks for, with CEL expressions inside."""
