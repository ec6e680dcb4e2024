"""The topology of docker/cluster.yaml, really run as processes: `python -m tests.cluster`."""
