"""Measure how fast a fit converges, and compare speeds over seeds.

In: histories of runs. Out: curves, plateaus, times to a target and paired tests. Reading order:
`convergence`, `smoothing`, `plateau`, `cycle_averages`, `time_to_target`, `interpretation`.
"""
