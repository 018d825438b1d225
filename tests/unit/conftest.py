"""Lets Ansible find the collection before a test imports a part of it: the other way round, it finds no plugin."""

import rendering

__all__ = ["rendering"]
