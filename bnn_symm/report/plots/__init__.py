"""Draw figures, with one module per figure.

A plot takes numbers and a path, and writes a figure that is legible in grayscale.
"""
