"""Encoding of raw columns, labels and images as tensors, and back.

It takes tables and arrays as read and provides a `Preprocessing`, which is fitted once and stored
with a run. Suggested reading order: `preprocessing`, `columns`, `column_types`, `column_values`,
`array_values`, `labels`, `scaling`, `quoting`.
"""
