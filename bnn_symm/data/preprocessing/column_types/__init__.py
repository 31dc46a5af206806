"""Types of the columns of tables: which values are numbers, dates, words or missing.

A type is inferred once, from the data of a fit, or declared; later files are parsed by it, value by
value, so that a row means the same beside any others. Reading order: `inference`, `target`,
`objects`, `formats`, `text_columns`, `notation`, `number_notation`, `dates`.
"""
