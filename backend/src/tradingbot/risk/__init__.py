"""What may not be traded: limits, halts, and the refusals that came of them."""
