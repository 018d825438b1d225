"""What every domain stands on: settings, database, Redis, tokens, errors, logging."""
