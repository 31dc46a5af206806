"""Readers of data sets: bundled sets, image archives, the UCI suite and user files.

Each takes a name or a path and returns a `RawData` before any split or scaling. Suggested reading
order: `bundled`, `files`, `tables`, `split_columns`, `split_files`, `delimited`, `npz`,
`binary_tables`, `images`, `idx`, `uci`, `data_folders`, `fetch`.
"""
