"""Events and commands, one file per domain."""
