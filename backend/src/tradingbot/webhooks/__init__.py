"""The intake of alerts over HTTP."""
