"""Experiments of the ledger: studies (`.yaml`) and modules with `measure(replicate, runs)`."""
