"""Read the configuration of a run, and prepare data, model and initial values from it.

In: YAML and dotted overrides. Out: a `Config`, and a `Prepared` with everything a fit needs.
    Reading order: `config`,
`overrides`, `prepare`, `factories`, `prior_mean`, `unused_settings`.
"""
