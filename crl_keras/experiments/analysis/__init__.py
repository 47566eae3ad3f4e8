"""Turns the records of runs into tables, figures and reports.

`comparison` groups and pairs runs and tests losses, `tables`, `figures` and
`report` show the result. This folder may import runs, measures, data and the
modules of `experiments` itself. It imports no backend, so reports need none.
"""
