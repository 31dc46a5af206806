"""Read data sets: bundled ones, archives of images, the UCI suite, and files of the user's own.

In: a name or a path. Out: a `RawData` before any split or scaling. Reading order: `bundled`,
    `files`, `delimited`,
`npz`, `parquet`, `images`, `idx`, `uci`, `data_folders`, `fetch`.
"""
