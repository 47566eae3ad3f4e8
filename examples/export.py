"""Exports a saved model for TensorFlow, ONNX Runtime, phones or PyTorch.

    python examples/export.py runs/flowers-keras-mobilenet_v2 --format onnx
    python examples/export.py runs/flowers-keras-mobilenet_v2 \\
        --format savedmodel tflite --output exported --backend tensorflow

MODEL is the folder of a run, its model.keras, or the folder of an experiment,
as for examples/predict.py. Like the model, the exported file takes uint8 pixels
of 0 to 255 and returns logits. The program copies model.json, which names the
classes, beside it. If the runtime of the file is installed, the program runs
the file once and checks that it returns the logits of the model. You can export
on another backend than the model was trained on:

    savedmodel   tensorflow, jax
    onnx         tensorflow (with tf2onnx), torch (onnx), jax (jax2onnx)
    tflite       tensorflow, torch (litert-torch)
    torchscript  torch
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.export import export_parser
from crl_keras.experiments.commands.export import run_export

if __name__ == "__main__":
    run_export(export_parser(__doc__))
