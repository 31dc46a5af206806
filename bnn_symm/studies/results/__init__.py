"""Make tables, comparisons and conclusions from the finished tasks of a study.

The input is the directory of a study; the output is `cells.parquet`, `pairs.parquet` and
`summary.json`. Reading order: `fits`, `measures`, `tables`, `values`, `comparisons`, `conclusions`,
`narrative`, `summary`.
"""
