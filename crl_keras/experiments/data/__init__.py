"""Data sets: in memory, in image files, or streamed by TensorFlow Datasets."""
