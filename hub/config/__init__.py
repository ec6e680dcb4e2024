"""A hub's home as it is read and checked: hub.yaml, .env, and the place of every mistake."""
