"""Draw figures, format texts and write report pages; only the command line prints beside this."""
