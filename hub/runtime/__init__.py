"""What all programs of the hub share: startup, watchdog and heartbeat, logging, metrics, child processes, shutdown."""
