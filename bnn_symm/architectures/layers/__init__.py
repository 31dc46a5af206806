"""Provide the layers that the architectures share: norms, activations and dropout."""
