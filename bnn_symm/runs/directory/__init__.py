"""Keep one run on disk: created whole, owned by one writer, readable at any moment.

Reading order: `run_directory`, `writer`, `history`, `metrics`, `signature`, `network_record`,
`file_schemas`, `output_directory`.
"""
