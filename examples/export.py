"""Exports a saved model for TensorFlow, ONNX Runtime, phones or PyTorch.

    python examples/export.py runs/flowers-keras-mobilenet_v2 --format onnx
    python examples/export.py runs/flowers-keras-mobilenet_v2 \\
        --format savedmodel tflite --output exported --backend tensorflow

MODEL is the folder of a run, its model.keras, or the folder of an experiment,
as for examples/predict.py. What is written takes what the model takes, uint8
pixels of 0 to 255, and gives logits; model.json, which names the classes, is
copied beside it. It is run once with its own runtime, where that is installed,
and must give the logits of the model. A model can be exported on another
backend than it was trained on:

    savedmodel   tensorflow, jax
    onnx         tensorflow (with tf2onnx), torch (onnx), jax (jax2onnx)
    tflite       tensorflow, torch (litert-torch)
    torchscript  torch
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.export import parser
from crl_keras.experiments.commands.export import run

if __name__ == "__main__":
    run(parser(__doc__))
