"""Exported models, each read back by its own runtime."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
from test_prediction import save

from crl_keras.experiments.runs import export

BACKEND = keras.backend.backend()


def can_be_written(name):
    kind = export.FORMATS[name]
    needs = kind.needs.get(BACKEND)
    return BACKEND in kind.backends and (
        not needs or importlib.util.find_spec(needs) is not None
    )


@pytest.mark.filterwarnings("ignore")  # Of converters, on Python 3.11 and on.
@pytest.mark.parametrize("name", list(export.FORMATS))
def test_what_is_exported_gives_the_logits(tmp_path, name, script):
    """Or says why it cannot be exported here."""
    _, model = save(tmp_path / "runs")
    command = ("export.py", "runs", "--format", name, "--output", "out")
    code, out, error = script(*command)
    kind = export.FORMATS[name]
    if not can_be_written(name):
        assert code == 1 and out == ""
        assert ("pip install" in error) == (BACKEND in kind.backends)
        assert f"export to {name}" in error
        assert not list(pathlib.Path().glob("out/*"))
        return
    assert code == 0, error
    path = pathlib.Path(out.partition(" (")[0])
    assert path.exists() and (path.parent / "model.json").exists()
    if importlib.util.find_spec(kind.runtime) is None:
        assert f"not checked: {kind.runtime}" in out
        return
    assert "(checked, its logits differ" in out
    images = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)
    np.testing.assert_allclose(
        export._READERS[name](path, images),
        model.predict_on_batch(images),
        atol=1e-4,
    )


def test_other_logits_are_no_export(tmp_path, monkeypatch):
    _, model = save(tmp_path)
    (name,) = [n for n in ("savedmodel", "torchscript") if can_be_written(n)]
    monkeypatch.setitem(
        export._WRITERS, name, lambda model, path: path.write_text("other")
    )
    monkeypatch.setitem(
        export._READERS, name, lambda path, images: np.zeros((len(images), 3))
    )
    with pytest.raises(ValueError, match="differ by up to .* do not use it"):
        export.export_model(model, name, tmp_path)


def test_what_is_exported_was_called(tmp_path, monkeypatch):
    """Keras exports nothing else to ONNX. On JAX, predicting is no call."""
    called = []
    (name,) = [n for n in ("savedmodel", "torchscript") if can_be_written(n)]
    monkeypatch.setitem(
        export._WRITERS, name, lambda model, _: called.append(model._called)
    )
    monkeypatch.setattr(export, "_checked", lambda *_: None)
    inputs = keras.Input((4, 4, 1), dtype="uint8")
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model._called = False  # As it is after loading.
    export.export_model(model, name, tmp_path)
    assert called == [True]


def test_a_model_of_16_bits_is_exported_in_32():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((6, 6, 1), dtype="uint8")
        x = keras.layers.Rescaling(1 / 255, dtype="float32")(inputs)
        x = keras.layers.Conv2D(4, 3)(x)
        inner = keras.Model(inputs, keras.layers.Flatten()(x))
        outputs = keras.layers.Dense(2, dtype="float32")(inner.output)
        model = keras.Model(inputs, outputs)
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.layers[2].compute_dtype == "bfloat16"
    made = export.in_float32(model)
    assert {layer.compute_dtype for layer in made.layers[1:]} == {"float32"}
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 1), np.uint8)
    np.testing.assert_allclose(
        made.predict_on_batch(images), model.predict_on_batch(images), atol=0.05
    )
    assert export.in_float32(made) is made
