"""Build `report.html`: the page of a run and the page of a study.

Reading order: `page`, `rendering`, `run_page`, `study_page`, `study_sections`, `study_overview`,
`study_barriers`, `study_settings`, `study_data`.
"""
