"""Runs: what one is, how it trains, and what it leaves behind.

`config` and `recipes` say what a run is, `feeds` gives it batches, `models`
(with `backbones`) its network, `training` trains it, `sweep` trains many,
`results` and `records` keep what they leave, `saved` and `gradcam` what a
model is and saw, `chosen` finds the best validated of several, `prediction`
asks it, `export` writes it for others, `speed` measures one. This room may
import measures, data and the ground.
"""
