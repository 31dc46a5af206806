"""Provide the statistics that several diagnostics share.

Reading order: `bootstrap`, `paired_comparison`, `ecdf_bands`, `evidence`, `verdicts`.
"""
