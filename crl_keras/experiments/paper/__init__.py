"""The tables and figures of the CRL paper (arXiv:1912.11642v2).

`tables` has what the paper ran and printed (results.csv), `report` sets our
runs beside it, `figures` draws its figures, `costs` says how long a table
takes (rates.csv). This room may import analysis and all below it, and no
backend: pages are made where none is installed.
"""
