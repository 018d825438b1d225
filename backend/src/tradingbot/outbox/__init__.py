"""The durable queue between the web process and the worker: a table."""
