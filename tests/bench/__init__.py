"""How fast it is: `python -m tests.bench` races the worker against others on one job; `tests.bench.latency` times a whole hub."""
