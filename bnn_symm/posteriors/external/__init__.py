"""Read draws and checkpoints of other software, and match them to the parameters of a network.

Input: a NetCDF file or a state dict. Output: flat vectors in the order of a `BayesianModel`.
Reading order: `external_draws`, `parameter_matching`, `parameter_names`, `name_mapping`,
`tensor_layouts`.
"""
