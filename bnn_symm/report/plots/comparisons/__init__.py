"""Draw comparisons of posteriors: barriers, distances, merges and straight lines."""
