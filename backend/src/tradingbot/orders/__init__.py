"""Orders and their fills: the intent is stored before anything is sent to an exchange."""
