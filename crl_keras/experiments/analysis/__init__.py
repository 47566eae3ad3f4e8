"""From the records of runs to what a reader sees.

`comparison` groups and pairs runs and tests losses, `tables`, `figures` and
`report` show the result. This room may import runs, measures, data and the
ground, and no backend: reports are made where none is installed.
"""
