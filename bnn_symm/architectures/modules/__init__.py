"""Take networks from the user's own code, and check that they are functions of their weights.

In: a module or the name of its factory. Out: a private copy for inference, or an error that names
the layer. Reading order: `from_module`, `structure`, `private_copy`; the checks of their outputs
are in `architectures.module_checks`.
"""
