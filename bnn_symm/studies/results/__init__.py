"""Make tables, comparisons and conclusions from the finished tasks of a study.

In: the directory of a study. Out: `cells.parquet`, `pairs.parquet` and `summary.json`. Reading
    order: `fits`,
`measures`, `tables`, `comparisons`, `conclusions`, `narrative`, `summary`.
"""
