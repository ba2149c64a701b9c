"""Soak test: everything at once on one small cache, while processes are killed and stopped. `python -m tests.soak`."""
