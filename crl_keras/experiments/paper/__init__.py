"""The tables and figures of the CRL paper (arXiv:1912.11642v2).

`tables` has the runs and printed numbers of the paper (results.csv), `report`
shows our runs beside them, `figures` draws the figures and `costs` estimates
the hours of a table (rates.csv). This folder may import analysis and all that
analysis may import. It imports no backend, so pages need none.
"""
