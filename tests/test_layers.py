"""RandomPadCrop: what it moves, at random how, and its state."""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from crl_keras.layers import RandomPadCrop


def coded_images(n, height=6, width=5, channels=2, dtype="float32"):
    """Images whose pixels tell where they came from; none is 0."""
    shape = (height, width, channels)
    image = np.arange(1, np.prod(shape) + 1).reshape(shape)
    return np.stack([image] * n).astype(dtype)


def offsets_of(crops, image, padding):
    """The offsets that explain each crop, by trying all; one must fit."""
    around = ((padding, padding), (padding, padding), (0, 0))
    padded = np.pad(image, around)
    height, width = image.shape[:2]
    shifts = {
        padded[top : top + height, left : left + width].tobytes(): (top, left)
        for top in range(2 * padding + 1)
        for left in range(2 * padding + 1)
    }
    return np.array([shifts[crop.tobytes()] for crop in crops])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crops_of_the_padded_image(padding, dtype):
    x = coded_images(50, dtype=dtype)
    y = RandomPadCrop(padding, seed=0)(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == dtype
    y = to_numpy(y)
    assert y.shape == x.shape
    offsets = offsets_of(y, x[0], padding)
    if padding:
        # Each image has its own, and rows have others than columns.
        assert len(np.unique(offsets, axis=0)) > min(padding, 4)
        assert (offsets[:, 0] != offsets[:, 1]).any()


def test_images_do_not_mix():
    x = (
        coded_images(8)
        + 100 * np.arange(8, dtype="float32")[:, None, None, None]
    )
    y = to_numpy(RandomPadCrop(2, seed=0)(x, training=True))
    for image, crop in zip(x, y, strict=True):
        offsets_of([crop], image, 2)


def test_offsets_are_uniform_and_independent():
    n, padding = 8100, 2
    x = coded_images(n)
    y = to_numpy(RandomPadCrop(padding, seed=1)(x, training=True))
    top, left = offsets_of(y, x[0], padding).T
    counts = np.bincount(5 * top + left, minlength=25)
    expected = n / 25
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 51.2  # 99.9 % of chi2 with 24 degrees of freedom.


def test_identity_at_inference_and_without_padding():
    x = coded_images(4)
    layer = RandomPadCrop(4, seed=0)
    state = to_numpy(layer.variables[0]).copy()
    for y in (layer(x), layer(x, training=False)):
        np.testing.assert_array_equal(to_numpy(y), x)
    np.testing.assert_array_equal(to_numpy(layer.variables[0]), state)
    y = RandomPadCrop(0, seed=0)(x, training=True)
    np.testing.assert_array_equal(to_numpy(y), x)


def test_the_seed_makes_the_stream():
    x = coded_images(64)
    streams = []
    for seed in (3, 3, 10_000):
        layer = RandomPadCrop(4, seed=seed)
        streams.append([to_numpy(layer(x, training=True)) for _ in range(2)])
    np.testing.assert_array_equal(streams[0], streams[1])
    assert not np.array_equal(streams[0][0], streams[2][0])
    assert not np.array_equal(*streams[0])  # Each batch has its own.
    keras.utils.set_random_seed(5)
    one = to_numpy(RandomPadCrop(4)(x, training=True))
    keras.utils.set_random_seed(5)
    again = to_numpy(RandomPadCrop(4)(x, training=True))
    np.testing.assert_array_equal(one, again)


def test_state_is_a_variable_and_resumes():
    x = coded_images(32)
    layer = RandomPadCrop(4, seed=0)
    layer(x, training=True)
    assert len(layer.variables) == 1 and not layer.trainable_variables
    saved = [to_numpy(v).copy() for v in layer.variables]
    expected = [to_numpy(layer(x, training=True)) for _ in range(3)]
    other = RandomPadCrop(4, seed=99)
    for variable, value in zip(other.variables, saved, strict=True):
        variable.assign(value)
    for value in expected:
        np.testing.assert_array_equal(to_numpy(other(x, training=True)), value)


class Spy(keras.layers.Layer):
    """Adds up what passes in training, for tests of compiled models."""

    def build(self, input_shape):
        self.total = self.add_weight(
            shape=input_shape[1:], initializer="zeros", trainable=False
        )

    def call(self, x, training=False):
        if training:
            self.total.assign_add(keras.ops.sum(x, axis=0))
        return x


def compiled(policy, jit_compile):
    inputs = keras.Input((6, 5, 2), dtype="uint8")
    crop, spy = RandomPadCrop(2, seed=7), Spy(dtype="float32")
    x = spy(keras.ops.cast(crop(inputs), "float32"))
    x = keras.layers.Dense(1, dtype=policy)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse", jit_compile=jit_compile)
    return model, spy


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_compiled_gives_the_crops_of_eager(policy):
    jit_compile = keras.backend.backend() != "torch"
    keras.config.set_dtype_policy(policy)
    try:
        model, spy = compiled(policy, jit_compile)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.jit_compile == jit_compile
    x = coded_images(20, dtype="uint8")
    # Batches of 8, 8 and 4: the last has its own, shorter draw.
    model.fit(
        x, np.zeros((20, 1)), batch_size=8, epochs=1, shuffle=False, verbose=0
    )
    eager = RandomPadCrop(2, seed=7)
    expected = sum(
        to_numpy(eager(x[i : i + 8], training=True)).astype("float64").sum(0)
        for i in (0, 8, 16)
    )
    np.testing.assert_array_equal(to_numpy(spy.total), expected)
    # Prediction does not crop and does not draw.
    state = [to_numpy(v).copy() for v in model.layers[1].variables]
    assert isinstance(model.layers[1], RandomPadCrop)
    model.predict(x, verbose=0)
    np.testing.assert_array_equal(
        state, [to_numpy(v) for v in model.layers[1].variables]
    )


def test_a_compiled_run_resumes():
    jit_compile = keras.backend.backend() != "torch"
    x, y = coded_images(16, dtype="uint8"), np.zeros((16, 1))
    model, spy = compiled("float32", jit_compile)
    model.fit(x, y, epochs=1, verbose=0, shuffle=False)
    saved = [to_numpy(v).copy() for v in model.variables]
    model.fit(x, y, epochs=2, verbose=0, shuffle=False)
    other, other_spy = compiled("float32", jit_compile)
    for variable, value in zip(other.variables, saved, strict=True):
        variable.assign(value)
    other.fit(x, y, epochs=2, verbose=0, shuffle=False)
    np.testing.assert_array_equal(
        to_numpy(spy.total), to_numpy(other_spy.total)
    )


def test_float_images_are_not_rounded_by_a_policy():
    x = np.full((2, 4, 4, 1), 1.001, "float32")
    for training in (False, True):
        y = RandomPadCrop(1, seed=0, dtype="mixed_bfloat16")(
            x, training=training
        )
        assert set(np.unique(to_numpy(y))) <= {np.float32(1.001), 0}


def test_symbolic_shape_and_dtype():
    for dtype in ("uint8", "float32"):
        y = RandomPadCrop(4)(keras.Input((8, 8, 3), dtype=dtype))
        assert (y.shape, y.dtype) == ((None, 8, 8, 3), dtype)


@pytest.mark.once
def test_config_and_saving(tmp_path):
    layer = RandomPadCrop(padding=3, seed=11, name="crop", dtype="float16")
    config = layer.get_config()
    again = RandomPadCrop.from_config(config)
    assert again.get_config() == config
    assert (again.padding, again.seed, again.name) == (3, 11, "crop")
    model = keras.Sequential([keras.Input((8, 8, 1)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert type(loaded) is RandomPadCrop
    assert loaded.get_config() == config
    assert keras.saving.get_registered_name(RandomPadCrop) == (
        "crl_keras>RandomPadCrop"
    )


@pytest.mark.once
def test_errors():
    for padding in (1.5, "4", None, True):
        with pytest.raises(TypeError, match=f"Received: padding={padding!r}"):
            RandomPadCrop(padding)
    with pytest.raises(ValueError, match=">= 0. Received: -1"):
        RandomPadCrop(-1)
    with pytest.raises(ValueError, match="expected ndim=4, found ndim=3"):
        RandomPadCrop(1)(np.zeros((4, 4, 1), "float32"), training=True)


def test_why_not_the_layer_of_keras():
    """Keras's RandomCrop has one offset for a whole batch."""
    x = np.pad(coded_images(50), ((0, 0), (2, 2), (2, 2), (0, 0)))
    y = to_numpy(keras.layers.RandomCrop(6, 5, seed=0)(x, training=True))
    assert len({crop.tobytes() for crop in y}) == 1
