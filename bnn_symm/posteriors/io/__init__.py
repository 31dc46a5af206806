"""Write posteriors to disk, read them back, and convert them for ArviZ.

Input: a posterior, or the draws of a running sampler. Output: `posterior.nc`, a log of draws,
groups of ArviZ. Reading order: `netcdf`, `draw_log`, `arviz`, `arviz_groups`.
"""
