"""The hub's own tasks, projects and messages."""
