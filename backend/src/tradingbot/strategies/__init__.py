"""Strategies: where alerts are sent to, and whose signals they become."""
