"""`hub up`: runs the broker and the programs of one home, restarts what dies, and stops all in order."""
