"""DCL: permutations, their statistics, targets, the code's variant."""

import itertools

import keras
import numpy as np
import pytest
from autodiff import to_numpy
from autodiff import value_and_gradient

from crl_keras.layers import RegionAlignment
from crl_keras.layers import RegionConfusion
from crl_keras.layers import regions as module

DOWN, ALONG = np.arange(4)[:, None], np.arange(4)
ROW = ((5 * DOWN + 3 * ALONG) % 8) / 2 - 2 + 0.01 * (ALONG + 1)
COLUMN = ((3 * DOWN + 7 * ALONG + 1) % 8) / 2 - 2 + 0.01 * (DOWN + 1)
SOURCES = [0, 1, 6, 7, 5, 4, 12, 2, 13, 15, 3, 11, 8, 10, 9, 14]
DESTINATIONS = [0, 1, 7, 10, 5, 4, 2, 3, 12, 14, 13, 11, 6, 8, 15, 9]


def draws(values):
    return keras.ops.convert_to_tensor(values[None], dtype="float32")


def integers(x):
    return to_numpy(x).astype(int)


def tiles(n, size=2):
    """An image each of whose regions has its number as its value."""
    image = np.kron(np.arange(n * n).reshape(n, n), np.ones((size, size)))
    return np.repeat(image[None, :, :, None], 3, axis=3).astype("float32")


def test_the_paper_in_sequence():
    found = integers(module.confused(draws(ROW), draws(COLUMN)))[0]
    assert found.tolist() == SOURCES
    assert np.argsort(found).tolist() == DESTINATIONS
    # Eq. (3) with both from the original leaves places empty.
    rows = np.argsort(np.argsort(ALONG + ROW, axis=1), axis=1)
    columns = np.argsort(np.argsort(DOWN + COLUMN, axis=0), axis=0)
    literal = (4 * columns + rows).ravel()
    assert literal.tolist()[:4] == [0, 1, 11, 6]
    assert len(set(literal.tolist())) == 14


def test_the_released_code():
    bits = (np.arange(4)[:, None] + np.arange(1, 4)) % 2 == 1
    rows = np.array([True, False, True])
    found = module.swapped(
        *map(keras.ops.convert_to_tensor, (bits[None], rows[None]))
    )
    expected = [4, 6, 5, 7, 1, 0, 3, 2, 12, 14, 13, 15, 9, 8, 11, 10]
    assert integers(found)[0].tolist() == expected
    always = np.ones((1, 7, 6), bool), np.zeros((1, 6), bool)
    found = integers(module.swapped(*map(keras.ops.convert_to_tensor, always)))
    # What comes first is carried to the end.
    assert found[0, :7].tolist() == [1, 2, 3, 4, 5, 6, 0]


@pytest.mark.parametrize("mode", ["exact", "authors"])
def test_every_region_is_there_once(mode):
    layer = RegionConfusion(7, mode=mode, seed=0)
    if mode == "exact":
        found = integers(layer._drawn(1000))
    else:
        found = integers(layer._swapped(1000))
    assert (np.sort(found, axis=1) == np.arange(49)).all()
    assert len(np.unique(found, axis=0)) > 990


def test_displacements():
    """Bound and frequencies of 1,000 images; the expected by simulation."""
    found = integers(RegionConfusion(7, seed=1)._drawn(1000))
    place = np.arange(49)
    for axis in (found // 7 - place // 7, found % 7 - place % 7):
        assert abs(axis).max() <= 3  # Less than 2k.
        share = [np.mean(axis == d) for d in range(-3, 4)]
        expected = [0.005, 0.056, 0.205, 0.469, 0.205, 0.056, 0.005]
        np.testing.assert_allclose(share, expected, atol=0.01)
    assert np.mean(found == place) == pytest.approx(0.22, abs=0.01)


def test_displacements_of_the_released_code():
    found = integers(RegionConfusion(7, mode="authors", seed=2)._swapped(2000))
    moved = np.arange(49) % 7 - found % 7
    share = [np.mean(moved == d) for d in range(-1, 7)]
    expected = [0.429, 0.321, 0.143, 0.0625, 0.027, 0.011, 0.0045, 0.0022]
    np.testing.assert_allclose(share, expected, atol=0.01)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_pixels_go_where_sources_say(dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (3, 12, 8, 3)).astype(dtype)
    layer = RegionConfusion(4, seed=3)
    pairs, sources = layer(x, training=True)
    assert keras.backend.standardize_dtype(pairs.dtype) == dtype
    pairs, sources = to_numpy(pairs), integers(sources)
    np.testing.assert_array_equal(pairs[:, 0], x)
    np.testing.assert_array_equal(sources[:, 0], [range(16)] * 3)
    cells = x.reshape(3, 4, 3, 4, 2, 3).transpose(0, 1, 3, 2, 4, 5)
    cells = cells.reshape(3, 16, 3, 2, 3)
    for k, (j, i) in itertools.product(range(3), np.ndindex(4, 4)):
        there = pairs[k, 1, 3 * j : 3 * j + 3, 2 * i : 2 * i + 2]
        wanted = cells[k, sources[k, 1, 4 * j + i]]
        np.testing.assert_array_equal(there, wanted)
    # The inverse permutation brings the image back, bit for bit.
    back = np.argsort(sources[:, 1], axis=1).astype("int32")
    restored = layer.moved(
        *map(keras.ops.convert_to_tensor, (pairs[:, 1].astype(dtype), back))
    )
    np.testing.assert_array_equal(to_numpy(restored), x)


def test_outside_of_training_nothing_moves():
    layer = RegionConfusion(2, seed=0)
    state = to_numpy(layer.variables[0])
    pairs, sources = layer(tiles(2))
    np.testing.assert_array_equal(to_numpy(pairs)[:, 1], tiles(2))
    assert integers(sources).tolist() == [[[0, 1, 2, 3]] * 2]
    np.testing.assert_array_equal(to_numpy(layer.variables[0]), state)


def test_the_seed_makes_the_stream():
    streams = []
    for seed in (0, 0, 10_000):
        layer = RegionConfusion(4, seed=seed)
        streams.append([integers(layer._drawn(2)) for _ in range(2)])
    np.testing.assert_array_equal(streams[0], streams[1])
    assert not np.array_equal(streams[0][0], streams[2][0])
    assert not np.array_equal(*streams[0])


def test_the_code_guesses_where_regions_come_from(monkeypatch):
    """Right without its border, and mostly wrong with it."""
    rng = np.random.default_rng(0)
    layer = RegionConfusion(7, mode="authors", seed=0)
    sources = layer._swapped(8)
    # Smooth pictures, as photographs are.
    x = rng.normal(size=(8, 8, 8, 3)).astype("float32")
    x = to_numpy(
        keras.ops.image.resize(
            x, (448, 448), "bicubic", data_format="channels_last"
        )
    ).astype("float32")
    right = {}
    for border in (0, 10):
        monkeypatch.setattr(module, "BORDER", border)
        destroyed = layer._without_border(
            keras.ops.convert_to_tensor(x), sources
        )
        guessed = module.nearest_regions(x, destroyed, 7)
        right[border] = np.mean(integers(guessed) == integers(sources))
    assert right[0] == 1.0 and right[10] < 0.5


def test_truth():
    for n in (3, 4, 7):
        numbers = np.arange(n * n)[None]
        found = to_numpy(RegionAlignment(n).truth(numbers))[0]
        offset = {3: 4, 4: 8, 7: 24}[n]
        expected = (np.arange(n * n) - offset) / n**2
        np.testing.assert_allclose(found, expected, atol=1e-7)
    found = to_numpy(RegionAlignment(4).truth(np.array([SOURCES])))[0]
    assert found[:8].tolist() == [
        *(-0.5, -0.4375, -0.125, -0.0625),
        *(-0.1875, -0.25, 0.25, -0.375),
    ]
    found = RegionAlignment(3, "paper").truth(np.array([[0, 5, 7]]))
    assert integers(found).tolist() == [[[1, 1], [2, 3], [3, 2]]]


T = 6 * np.arange(6)[:, None] + np.arange(6)
ORIGINAL, DESTROYED = 0.6 * np.sin(0.7 * T), 0.6 * np.cos(1.1 * T)
ORDER = np.array([3, 0, 1, 6, 4, 2, 7, 8, 5])
BOTH = np.stack([np.arange(9), ORDER])


def aligned(maps, form="code", sources=BOTH):
    """The layer with a convolution that passes its channels on."""
    layer = RegionAlignment(3, form)
    maps = np.asarray(maps, "float32").reshape(2, 6, 6, -1)
    layer.build([maps.shape, (2, 9)])
    channels = maps.shape[-1]
    layer.set_weights([np.eye(channels), np.zeros(channels)])
    return layer([maps, sources])


def test_location_loss_of_the_code():
    found = to_numpy(aligned([ORIGINAL, DESTROYED]))
    says = found + (BOTH - 4) / 9
    expected = [
        *(-0.1795054, 0.1830445, 0.2396511, 0.2743238, 0.0882964),
        *(-0.2462720, -0.1104700, -0.2701939, 0.0167345),
    ]
    np.testing.assert_allclose(says[0], expected, atol=1e-6)
    each = abs(found).mean(axis=1)
    np.testing.assert_allclose(each, [0.3820260, 0.4184661], atol=1e-6)
    assert abs(found).mean() == pytest.approx(0.4002460, abs=1e-6)
    assert abs(found).sum() == pytest.approx(7.2044286, abs=1e-5)
    for wrong, value in (
        (np.argsort(ORDER), 0.3038102),
        (np.arange(9), 0.3697354),
    ):
        sources = np.stack([np.arange(9), wrong])
        loss = abs(to_numpy(aligned([ORIGINAL, DESTROYED], sources=sources)))
        assert loss[1].mean() == pytest.approx(value, abs=1e-6)


def test_gradient_of_the_location_loss():
    layer = RegionAlignment(3)
    layer.build([(2, 6, 6, 1), (2, 9)])
    layer.set_weights([np.ones((1, 1)), np.zeros(1)])
    maps = np.stack([ORIGINAL, DESTROYED])[..., None].astype("float32")

    def loss(maps):
        return keras.ops.mean(keras.ops.abs(layer([maps, BOTH])))

    _, gradient = value_and_gradient(loss, maps)
    expected = [0.0134414] * 2 + [0.0134235] * 2 + [0.0130912] * 2
    np.testing.assert_allclose(gradient[0, 0, :, 0], expected, atol=1e-6)


def test_location_loss_of_the_paper():
    two = [2 + 1.5 * np.sin(0.7 * T), 2 + 2.5 * np.cos(1.1 * T)]
    maps = np.stack([np.stack(two, axis=-1)] * 2)
    found = abs(to_numpy(aligned(maps, "paper"))).sum(axis=(1, 2))
    assert found[0] == pytest.approx(20.0659543, abs=1e-4)
    assert found[1] == pytest.approx(19.5524176, abs=1e-4)
    sources = np.stack([np.arange(9), np.argsort(ORDER)])
    wrong = abs(to_numpy(aligned(maps, "paper", sources)))[1].sum()
    assert wrong == pytest.approx(20.0987306, abs=1e-4)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_saved_and_compiled(form, tmp_path):
    inputs = keras.Input((8, 8, 3))
    pairs, sources = RegionConfusion(4, seed=5)(inputs)
    first, destroyed = pairs[:, 0], pairs[:, 1]
    outputs = [
        RegionAlignment(4, form)([destroyed, sources[:, 1]]),
        keras.ops.abs(first - destroyed),
    ]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", ["mae", None])
    x = np.random.default_rng(0).random((5, 8, 8, 3)).astype("float32")
    y = np.zeros(outputs[0].shape[1:], "float32")[None].repeat(5, axis=0)
    history = model.fit(x, [y, np.zeros_like(x)], batch_size=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(
        model.predict(x, verbose=0), loaded.predict(x, verbose=0), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="5 x 5 regions"):
        RegionConfusion(5)(np.zeros((1, 8, 8, 3), "float32"))
    with pytest.raises(ValueError, match="24 pixels"):
        RegionConfusion(4, mode="authors")(np.zeros((1, 20, 20, 3), "f"))
    with pytest.raises(ValueError, match="mode"):
        RegionConfusion(mode="mine")
    with pytest.raises(ValueError, match="form"):
        RegionAlignment(form="mine")
    with pytest.raises(ValueError, match="choose other"):
        RegionAlignment(3)([np.zeros((1, 4, 4, 8)), np.zeros((1, 9))])
    with pytest.raises(ValueError, match="reach"):
        RegionConfusion(reach=0)
