"""Signed-in sessions of users."""
