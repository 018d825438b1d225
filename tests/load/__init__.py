"""A client that loads the stack and forgives nothing: no request is sent twice, and every one that fails is counted."""
