"""`python -m tradingbot` is the `tradingbot` command."""

import sys

from tradingbot.cli.main import main

sys.exit(main())
