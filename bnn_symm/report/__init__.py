"""The only place that draws or prints, beside the command line."""
