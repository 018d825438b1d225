"""Exchanges behind one interface, and the accounts that users have there."""
