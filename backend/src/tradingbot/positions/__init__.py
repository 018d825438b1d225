"""Positions and profit and loss of a strategy, from its fills."""
