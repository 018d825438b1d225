"""The history of the schema, and `tradingbot migrate`."""
