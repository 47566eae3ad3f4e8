"""Pure functions of arrays: `statistics` over runs, `scores` and
`calibration` of predictions.

`results` holds what `statistics` returns. This room imports the ground alone,
and no backend.
"""
