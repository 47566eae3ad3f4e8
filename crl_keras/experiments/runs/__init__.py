"""Runs: their configuration, their training and their results.

`config` and `recipes` describe a run, `feeds` makes its batches, `models` (with
`backbones`) builds its network, `training` trains it, `sweep` trains many.
`results` and `records` write the results, `saved` writes the model and
`gradcam` its heat maps. `chosen` finds the best validated of several runs,
`prediction` classifies images, `export` writes a model for other runtimes,
`speed` times training. This package may import `measures`, `data` and the
modules directly in `experiments`.
"""
