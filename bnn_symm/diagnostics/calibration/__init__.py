"""Compare predicted probabilities and intervals with observed frequencies.

Reading order: `reliability`, `calibration_errors`, `calibration_tests`, `temperature_scaling`.
"""
