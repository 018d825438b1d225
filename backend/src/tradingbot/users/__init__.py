"""People who own strategies, API keys and signals."""
