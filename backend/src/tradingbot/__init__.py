"""Takes trading alerts over HTTP, keeps each one once, and streams them live."""

__version__ = "0.2.0"
