"""Describe the predictions of a run: their quality, their calibration, and on other data.

Reading order: `quality` (the first questions of the page of a run), `calibration` (of `bnn-symm
diagnose`), `evaluation` and `other_data` (of `bnn-symm evaluate`), `stored_regions` (of the page
and `diagnose`, from evaluations).
"""
