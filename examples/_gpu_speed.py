"""Measures losses and training steps on arrays that are on the device.

Two parts of benchmark_gpu.py.
"""

import gc
import math
import statistics
import time

ITEM_SIZES = {"float32": 4, "bfloat16": 2}


def losses(report, size, arguments):
    """Times value and gradient of the losses, with logits on the device."""
    import keras
    import numpy as np

    bandwidth = _copied_bytes_per_second(size["copied"], size["seconds"])
    rng = np.random.default_rng(0)
    for classes in reversed(size["losses"]):
        shape = (size["samples"], classes)
        values = rng.normal(0, 3, shape).astype("float32")
        labels = rng.integers(0, classes, size["samples"]).astype("int32")
        for dtype in ("float32", "bfloat16"):
            for kind in ("sparse", "dense"):
                case = f"{kind} {shape[0]}x{classes}"
                with report.unless_missing(f"{case} of {dtype}"):
                    logits = keras.ops.cast(values, dtype)
                    row = _beside(kind, labels, logits, size["seconds"])
                    # Bytes that must be moved: logits read, gradients written.
                    moved = 2 * values.size * ITEM_SIZES[dtype]
                    row["share"] = moved / row["crl_us"] * 1e6 / bandwidth
                    row["bandwidth"] = bandwidth / 1e9
                    report.row("losses", case=case, dtype=dtype, **row)


def _beside(kind, labels, logits, seconds):
    """Returns time (µs) and memory of each loss; the losses take turns."""
    import benchmark_loss
    import keras

    backend = keras.backend.backend()
    dtype = keras.backend.standardize_dtype(logits.dtype)
    held = math.prod(logits.shape) * ITEM_SIZES[dtype]
    steps, peaks = {}, {}
    for name, loss in benchmark_loss.make_losses(kind, backend).items():
        y = _labels(labels, logits.shape[1], kind, name)
        steps[name], peaks[name] = _gradient(loss, y, logits)
    times = _medians(steps, seconds)
    return dict(
        keras_ratio=times["crl"] / times["keras"],
        **{f"{name}_us": 1e6 * taken for name, taken in times.items()},
        **{f"{name}_peak": p and p / held for name, p in peaks.items()},
    )


def _labels(labels, classes, kind, name):
    import keras

    if kind == "dense":
        return keras.ops.one_hot(labels, classes)
    # PyTorch's own loss takes only 64-bit labels.
    return keras.ops.cast(labels, "int64" if name == "torch" else "int32")


def _gradient(loss, labels, logits):
    """Returns a step (value and gradient), and the bytes that it adds."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        compiled = (
            jax.jit(jax.value_and_grad(lambda x, y: loss(y, x)))
            .lower(logits, labels)
            .compile()
        )
        held = compiled.memory_analysis()
        peak = held.temp_size_in_bytes + held.output_size_in_bytes
        return lambda: compiled(logits, labels), peak
    import torch

    logits = logits.detach().clone().requires_grad_()

    def step():
        value = loss(labels, logits)
        return value, *torch.autograd.grad(value, logits)

    step()
    if not logits.is_cuda:
        return step, None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return step, torch.cuda.max_memory_allocated() - before


def _copied_bytes_per_second(values, seconds):
    """Returns the bandwidth of a plain pass over an array, both ways."""
    import keras

    array = keras.ops.ones((values,), "float32")
    if keras.backend.backend() == "jax":
        import jax

        # The compiler may leave out a copy, but not a change of sign.
        negative = jax.jit(lambda x: -x)
        times = _medians({"copy": lambda: negative(array)}, seconds)
    else:
        import torch

        target = torch.empty_like(array)
        times = _medians({"copy": lambda: target.copy_(array)}, seconds)
    return 2 * 4 * values / times["copy"]


def _wait(value=None):
    """Waits until the device has finished its work."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jax.block_until_ready(value)
    else:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def _medians(steps, seconds):
    """Returns the median seconds of each step; the steps take turns."""
    inner = {}
    for name, step in steps.items():
        for _ in range(3):
            _wait(step())
        start = time.perf_counter()
        for _ in range(5):
            value = step()
        _wait(value)
        # Queue 5 ms of steps at once, as training does.
        once = (time.perf_counter() - start) / 5
        inner[name] = max(1, min(2000, round(5e-3 / once)))
    taken, names, begin = {name: [] for name in steps}, list(steps), time.time()
    while time.time() - begin < seconds or len(taken[names[0]]) < 5:
        for name in names:
            start = time.perf_counter()
            for _ in range(inner[name]):
                value = steps[name]()
            _wait(value)
            taken[name].append((time.perf_counter() - start) / inner[name])
        names = names[1:] + names[:1]
    return {name: statistics.median(values) for name, values in taken.items()}


def step(report, size, arguments):
    """Times a training step, on images that are on the device already."""
    import keras
    import numpy as np

    if keras.backend.backend() == "torch":
        import torch

        # For both networks, Keras's and torchvision's.
        torch.backends.cudnn.benchmark = True
    rng = np.random.default_rng(0)
    shape = (size["batch"], size["pixels"], size["pixels"], 3)
    images = rng.integers(0, 256, shape, np.uint8)
    labels = np.arange(size["batch"], dtype=np.int32) % size["classes"]
    for network, precision in size["steps"]:
        library = network.partition("/")[0]
        if library == "torchvision":
            if keras.backend.backend() != "torch":
                continue  # It needs PyTorch.
            make = _torchvision
        else:
            make = _keras_trainer
        with report.unless_missing(f"{network} in {precision}"):
            row = _in_turn(make, network, precision, images, labels, size)
            report.row(
                "step",
                network=network,
                precision=precision,
                batch=size["batch"],
                pixels=size["pixels"],
                **row,
            )
            if arguments.profile:
                with report.unless_missing(f"the profile of {network}"):
                    _profile(
                        report, make, network, precision, images, labels, size
                    )


def _in_turn(make, network, precision, images, labels, size):
    """Returns images/s with cross-entropy and CRL, memory, and more."""
    start = time.perf_counter()
    _reset_peak()
    steps, scales, values = {}, {}, {}
    for loss in ("ce", "crl"):
        steps[loss], scales[loss] = make(
            network, precision, loss, images, labels, size["classes"]
        )
    first = scales["crl"]()
    for one in steps.values():
        for _ in range(3):
            one()
    prepared = time.perf_counter() - start
    taken = {loss: [] for loss in steps}
    for i in range(size["pairs"]):
        for loss in list(steps)[:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            values[loss] = steps[loss]()  # A float, so the step is done.
            taken[loss].append(time.perf_counter() - start)
    ratios = [b / a for a, b in zip(taken["ce"], taken["crl"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    row = dict(
        ce_images_per_second=len(images) / statistics.median(taken["ce"]),
        crl_images_per_second=len(images) / statistics.median(taken["crl"]),
        crl_over_ce=middle,
        quartiles=f"{low:.3f} to {high:.3f}",
        loss_finite=all(map(math.isfinite, values.values())),
        loss_scale=None
        if first is None
        else f"{first:g} to {scales['crl']():g}",
        peak_gib=_peak_gib(),
        seconds_before=prepared,
    )
    del one, steps, scales
    _free()
    return row


def _reset_peak():
    import keras

    if keras.backend.backend() != "torch":
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_gib():
    """Returns the peak of memory; on JAX, since the process began."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        return None if peak is None else peak / 2**30
    import torch

    if not torch.cuda.is_available():
        return None
    return torch.cuda.max_memory_allocated() / 2**30


def _free():
    import keras

    keras.backend.clear_session()
    gc.collect()
    if keras.backend.backend() == "torch":
        import torch

        torch.cuda.empty_cache()


def _keras_trainer(network, precision, loss, images, labels, classes):
    import keras

    model = keras_model(network, precision, loss, images.shape[1:], classes)
    x = keras.ops.convert_to_tensor(images)
    y = keras.ops.convert_to_tensor(labels)

    def scale():
        found = getattr(model.optimizer, "dynamic_scale", None)
        return None if found is None else float(found)

    return lambda: float(model.train_on_batch(x, y)), scale


def keras_model(network, precision, loss, shape, classes):
    import keras

    from crl_keras.experiments.runs.backbones import build_backbone
    from crl_keras.experiments.runs.config import make_loss
    from crl_keras.networks import build_network

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    try:
        if "/" in network:
            inner, scaling = build_backbone(network, shape, classes)
        else:
            inner = build_network(network, shape, classes)
            scaling = keras.layers.Rescaling(1 / 255, dtype="float32")
        inputs = keras.Input(shape, dtype="uint8")
        model = keras.Model(inputs, inner(scaling(inputs)))
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
        if precision == "mixed_float16":
            # The scale doubles early, so a short measurement sees it change.
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, initial_scale=2.0**10, dynamic_growth_steps=3
            )
        model.compile(optimizer, make_loss(loss, classes))
        # The optimizer has a scale only after this.
        model.optimizer.build(model.trainable_variables)
    finally:
        keras.config.set_dtype_policy("float32")
    return model


def _torchvision(network, precision, loss, images, labels, classes):
    """torchvision's network with channels last, autocast and SGD, as usual."""
    import torch
    import torchvision

    from crl_keras import SparseCompetingRatioLoss

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = getattr(torchvision.models, network.partition("/")[2])(
        num_classes=classes
    )
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    dtype = dict(mixed_bfloat16=torch.bfloat16, mixed_float16=torch.float16)
    half = dtype.get(precision)
    scaler = torch.amp.GradScaler(
        device,
        init_scale=2.0**10,
        growth_interval=3,
        enabled=half is torch.float16,
    )
    x = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    y = torch.from_numpy(labels).to(device, torch.int64)
    crl = SparseCompetingRatioLoss(from_logits=True)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, half, enabled=half is not None):
            logits = model(x.float() / 255)
            value = (
                torch.nn.functional.cross_entropy(logits, y)
                if loss == "ce"
                else crl(y, logits)
            )
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        return float(value.detach())

    return step, lambda: scaler.get_scale() if scaler.is_enabled() else None


def _profile(report, make, network, precision, images, labels, size):
    """Measures where the device spends a step with cross-entropy."""
    import keras

    one, _ = make(network, precision, "ce", images, labels, size["classes"])
    for _ in range(3):
        one()
    name = f"{network}-{precision}".replace("/", "-")
    folder = report.records / name
    folder.mkdir(parents=True, exist_ok=True)
    if keras.backend.backend() == "jax":
        import jax

        with jax.profiler.trace(str(folder)):  # For TensorBoard.
            one()
        return
    import torch

    with torch.profiler.profile() as profile:
        one()
    profile.export_chrome_trace(str(folder / "trace.json"))
    kind = "device" if torch.cuda.is_available() else "cpu"
    times = {
        event.key: getattr(event, f"self_{kind}_time_total")
        for event in profile.key_averages()
    }
    for what in sorted(times, key=times.get, reverse=True)[:8]:
        report.row(
            "profile",
            network=network,
            precision=precision,
            what=what[:60],
            milliseconds=times[what] / 1e3,
            share=times[what] / (sum(times.values()) or 1),
        )
