"""Estimates the device hours of a rerun from measured images per second.

rates.csv has the measured speeds and their commands. The speed of another
network is estimated from the measured network on the same device with the
nearest number of multiplications, in inverse proportion. `runs.speed` measures.
"""

import collections
import csv
import dataclasses
import math
import pathlib

from crl_keras.experiments.runs.backbone_names import check_backbone
from crl_keras.experiments.runs.method_names import split_method

RATES = pathlib.Path(__file__).parent / "rates.csv"

# Millions of multiplications and additions of a forward pass of one image, and
# the side of that image in pixels.
MACS = {
    "logistic": (0.00784, 28),
    "mlp": (0.2688, 28),
    "zhu2018": (20.74, 32),
    "resnet20": (40.55, 32),
    "resnet34": (72.8, 32),
    "resnet50": (81.4, 32),
    "resnet101": (157.2, 32),
    "resnet34_w64": (1159.4, 32),
    "resnet50_w64": (1297.8, 32),
    "resnet101_w64": (2510.0, 32),
    "resnet164": (247.6, 32),
    "vgg16": (313.2, 32),
    "vgg19": (398.1, 32),
    "densenet40": (264.8, 32),
    "mobilenetv2": (91.2, 32),
    "backbone/resnet18": (1814, 224),
    "backbone/resnet34": (3664, 224),
    "backbone/resnet50": (4089, 224),
    "backbone/resnet101": (7801, 224),
    "backbone/resnet152": (11514, 224),
    "backbone/vgg16": (15347, 224),
}
# A training image costs as much as this number of test images.
TRAINING_OF_TEST = 3


@dataclasses.dataclass(frozen=True)
class Rate:
    """A measured speed of training, a row of rates.csv.

    Attributes:
        network: Our name of the network.
        image_size: Side of the images in pixels.
        batch_size: Images per step.
        precision: Keras dtype policy.
        backend: Backend of Keras.
        device: Name of the device.
        images_per_second: Speed of training.
        date: Year, month and day.
        command: Command of the measurement.
    """

    network: str
    image_size: int
    batch_size: int
    precision: str
    backend: str
    device: str
    images_per_second: float
    date: str
    command: str


FIELDS = tuple(field.name for field in dataclasses.fields(Rate))


def read_rates(path=None):
    """Reads measured rates from rates.csv or another file; a tuple of `Rate`.

    Raises ValueError for wrong columns, FileNotFoundError for a missing file.
    """
    path = RATES if path is None else pathlib.Path(path)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0]) != FIELDS:
        raise ValueError(
            f"Expected the columns {', '.join(FIELDS)} in {path}. "
            f"Received: {', '.join(rows[0]) if rows else 'an empty file'}"
        )
    kinds = [field.type for field in dataclasses.fields(Rate)]
    rates = {}
    for number, row in enumerate(rows[1:], 2):
        try:
            rate = Rate(*(k(v) for k, v in zip(kinds, row, strict=True)))
        except ValueError as error:
            raise ValueError(
                f"Expected the {len(FIELDS)} values of a rate in line {number} "
                f"of {path}. Received: {','.join(row)}"
            ) from error
        # A later measurement replaces an earlier one.
        what = dataclasses.replace(
            rate, batch_size=0, images_per_second=0, date="", command=""
        )
        rates[what] = rate
    return tuple(rates.values())


def choose_device(rates, device=None):
    """Chooses the device with the most measurements, or with a given name.

    Also chooses the backend and precision with the most measurements on it.

    Args:
        rates: Tuple of `Rate`.
        device: Part of the device's name, in upper or lower case, or None.

    Returns:
        `(name, rates)`: the device and its rates.

    Raises:
        ValueError: If nothing was measured on such a device.
    """
    by_device = {}
    for rate in rates:
        by_device.setdefault(rate.device, []).append(rate)
    found = {
        name: of_device
        for name, of_device in by_device.items()
        if device is None or device.lower() in name.lower()
    }
    if not found:
        raise ValueError(
            "Expected one of the measured devices: "
            f"{', '.join(by_device) or 'none'}. Received: {device!r}. Measure "
            "a device with: python examples/reproduce.py measure"
        )
    name = max(found, key=lambda name: len(found[name]))
    settings = collections.defaultdict(list)
    for rate in found[name]:
        settings[rate.backend, rate.precision].append(rate)
    return name, tuple(max(settings.values(), key=len))


def measured_size(network, image_size=None):
    """Side in pixels of the images for measuring a network.

    Raises ValueError for an unknown network or a side that it does not take.

    >>> measured_size("resnet34"), measured_size("keras_hub/resnet50", 448)
    (32, 448)
    """
    backbone = split_method(network)[0]
    library, _, name = backbone.rpartition("/")
    if (f"backbone/{name}" if library else network) not in MACS:
        small = [key for key in MACS if "/" not in key]
        large = [key.partition("/")[2] for key in MACS if "/" in key]
        raise ValueError(
            f"Expected a network of {', '.join(small)}, or a backbone such as "
            f"keras_hub/NAME with {', '.join(large)}. Received: {network!r}"
        )
    if library:
        check_backbone(network)
        if image_size is not None and image_size < 1:
            raise ValueError(
                f"Expected a side of at least 1 pixel. Received: {image_size}"
            )
        return image_size or MACS[f"backbone/{name}"][1]
    size = MACS[network][1]
    if image_size not in (None, size):
        raise ValueError(
            f"Expected no size of images for {network}, which takes {size} "
            f"pixels a side. Received: {image_size}"
        )
    return size


def multiplications(network, image_size=None):
    """Millions of multiplications of a network for images of this side.

    >>> multiplications("resnet34"), multiplications("resnet34", 64)
    (72.8, 291.2)
    """
    network, method, _ = split_method(network)
    library, _, name = network.rpartition("/")
    macs, size = MACS[f"backbone/{name}" if library else name]
    # DCL sees every image twice. The heads of the methods cost little.
    times = 2 if method == "dcl" else 1
    return times * macs * ((image_size or size) / size) ** 2


def images_per_second(rates, network, image_size=None):
    """Speed of training a network on the device of the rates.

    Returns `(rate, measured)`: images per second, and whether this network was
    measured.
    """
    macs = multiplications(network, image_size)
    size = image_size or MACS.get(network, (0, 32))[1]
    for rate in rates:
        if (rate.network, rate.image_size) == (network, size):
            return rate.images_per_second, True

    def distance(rate):
        other = multiplications(rate.network, rate.image_size)
        return abs(math.log(other / macs))

    nearest = min(rates, key=distance)
    other = multiplications(nearest.network, nearest.image_size)
    return nearest.images_per_second * other / macs, False


def _images(config, sizes):
    """Training images of a run over all epochs; a test image counts 1/3."""
    train, test = sizes[config.dataset]
    train = min(train, config.train_limit or train)
    test = min(test, config.test_limit or test)
    return config.recipe.epochs * (train + test / TRAINING_OF_TEST)


def run_hours(config, sizes, rates):
    """Hours that one run takes on the device of the rates.

    Args:
        config: `RunConfig`; its data set is a key of `sizes`.
        sizes: Dict from a data set to its numbers of training and test images.
        rates: Tuple of `Rate` of one device.

    Returns:
        `(hours, measured)`: the hours, and whether the network was measured.
    """
    rate, measured = images_per_second(
        rates, config.network, config.recipe.image_size
    )
    return _images(config, sizes) / rate / 3600, measured


def run_operations(config, sizes):
    """Floating-point operations of one run, the same on every device.

    Args:
        config: `RunConfig`; its data set is a key of `sizes`.
        sizes: Dict from a data set to its numbers of training and test images.

    Returns:
        Their number as a float. A multiplication with its addition counts 2. A
        training image counts 3 forward passes, a test image 1.
    """
    macs = multiplications(config.network, config.recipe.image_size)
    return 2e6 * macs * TRAINING_OF_TEST * _images(config, sizes)
