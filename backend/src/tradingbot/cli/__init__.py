"""The `tradingbot` command."""
