"""Pure functions of arrays that measure runs and predictions.

`statistics` compares runs, `scores` and `calibration` judge predictions.
`results` has the classes that `statistics` returns. This folder may import only
the modules directly in `experiments`, and no backend.
"""
