"""The process that turns queued signals into orders."""
