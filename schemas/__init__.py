"""The message schemas: events, commands, and the topics they travel on. Imports no other package of the hub."""
