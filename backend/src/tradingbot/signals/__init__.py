"""Alerts as they were stored: one row each, never doubled."""
