"""Turn raw columns, labels and images into tensors, and back.

In: tables and arrays as they were read. Out: a `Preprocessing` that is fitted once and stored with
    a run. Reading
order: `preprocessing`, `columns`, `text_columns`, `notation`, `column_values`, `labels`, `scaling`,
    `quoting`.
"""
