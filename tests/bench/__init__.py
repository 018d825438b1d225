"""Benchmarks: how long a deployment takes, how much the stack can do and what it needs."""
