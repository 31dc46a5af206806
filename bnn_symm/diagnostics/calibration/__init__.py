"""Compare predicted probabilities and intervals with observed frequencies.

Reading order: `reliability`, `pit`, `calibration_errors`, `calibration_tests`,
`temperature_scaling`, `conformal`, `region_coverage`.
"""
