"""Read draws and checkpoints of other software, and match them to the parameters of a network.

In: a NetCDF file or a state dict. Out: flat vectors in the order of a `BayesianModel`. Reading
    order:
`external_draws`, `parameter_matching`, `parameter_names`, `name_mapping`, `tensor_layouts`.
"""
