"""Trace one forward pass and label the axes of every tensor in it.

In: a module and inputs. Out: which entries of which tensors are permuted, flipped and rescaled
together. Reading order: `tracer`, `axis_labels`, `axis_segments`, `label_nodes`, `label_blocks`,
`scale_classes`, `precision`, `source_lines`.
"""
