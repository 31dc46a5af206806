"""Format results as short texts and tables for a terminal."""
