"""Judge how chains mix: R-hat, effective sample sizes, modes and copies, in four views.

In: a posterior with chains. Out: a `Mixing` and its `Verdicts`. Reading order: `mixing`, `views`,
`chain_statistics`, `function_values`, `parameter_index`, `modes`, `copies`, `sampler_statistics`,
`interpretation`.
"""
