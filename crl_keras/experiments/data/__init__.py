"""Data sets: in memory, in image files, or streamed by TensorFlow Datasets.

`sources` opens any of them by its name. `named` has the sets that fit in
memory, `fine_grained` and `adience` read published sets of image files,
`streams` opens TensorFlow Datasets, `tfds_builders` prepares sets for it. This
folder may import only the modules directly in `experiments`.
"""
