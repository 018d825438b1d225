"""Keys with which a program reads a user's data."""
