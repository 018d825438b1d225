"""Models that annotate or veto signals."""
