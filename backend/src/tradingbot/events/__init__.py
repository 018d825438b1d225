"""Live events: published once through Redis, delivered to the WebSockets of every worker."""
