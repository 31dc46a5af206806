"""Read the configuration of a run, and prepare data, model and initial values from it.

Input: YAML and dotted overrides. Output: a `Config`, and a `Prepared` with everything that a fit
needs. Reading order: `config`, `overrides`, `prepare`, `factories`, `prior_mean`,
`unused_settings`.
"""
