"""Takes trading alerts over HTTP, keeps each one once, and streams them live."""

import os

# An image says which version it was built as: the sources alone do not know what they are deployed as.
__version__ = os.environ.get("TRADINGBOT_VERSION") or "0.3.0"
