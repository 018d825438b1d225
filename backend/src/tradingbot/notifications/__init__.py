"""Messages to people about fills, refusals and failures."""
