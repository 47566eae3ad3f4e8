"""Devices, how processes share them, and the precision that suits them."""

import contextlib
import functools
import os
import platform

# Environment variables by which a user limits the GPU memory of JAX.
JAX_MEMORY = (
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
)


def resolve_precision(precision):
    """Returns a dtype policy; "auto" depends on the device.

    "auto" is mixed_bfloat16 on a GPU that supports it, mixed_float16 on an
    older GPU, and float32 on a CPU.
    """
    if precision != "auto":
        return precision
    capability = gpu_capability()
    if capability is None:
        return "float32"
    # NVIDIA's tensor cores have bfloat16 from compute capability 8 on.
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16"


def gpu_capability():
    """Returns the first GPU's compute capability (major, minor), or None."""
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        if not torch.cuda.is_available():
            return None
        return torch.cuda.get_device_capability()
    if backend == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "gpu":
            return None
        text = device.compute_capability
    else:
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        if not devices:
            return None
        details = tf.config.experimental.get_device_details(devices[0])
        return details.get("compute_capability", (0, 0))
    return tuple(int(part) for part in str(text).split("."))


def cores():
    """Cores that this process may use: NPROC if set, which JAX also reads."""
    if asked := os.environ.get("NPROC"):
        return max(1, int(asked))
    with contextlib.suppress(AttributeError):  # Only Linux has it.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name():
    """Returns the name of the first device."""
    import keras

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    elif backend == "jax":
        import jax

        device = jax.devices()[0]
        if device.platform != "cpu":
            return device.device_kind
    else:
        import tensorflow as tf

        devices = tf.config.list_physical_devices("GPU")
        if devices:
            details = tf.config.experimental.get_device_details(devices[0])
            return details.get("device_name", "GPU")
    return f"CPU ({platform.machine()})"


def leave_gpus_to_backend():
    """Keeps TensorFlow off the GPUs if it only reads images.

    TensorFlow would take all GPU memory and leave none to JAX or PyTorch.
    """
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        # RuntimeError: TensorFlow has already started and keeps the GPUs.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")


@contextlib.contextmanager
def device_scope(devices):
    """Shares each batch over `devices` devices while a model is built and run.

    It uses `keras.distribution` on JAX and `tf.distribute` on TensorFlow. The
    global batch size is the same as on one device. Raises ValueError if there
    are fewer devices, NotImplementedError on PyTorch.
    """
    import keras

    if devices == 1:
        yield
        return
    backend = keras.backend.backend()
    if backend == "jax":
        _check_count(devices, keras.distribution.list_devices())
        names = keras.distribution.list_devices()[:devices]
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(devices=names)
        )
        try:
            yield
        finally:
            keras.distribution.set_distribution(None)
    elif backend == "tensorflow":
        import tensorflow as tf

        names = [d.name for d in tf.config.list_logical_devices("GPU")]
        names = names or [d.name for d in tf.config.list_logical_devices("CPU")]
        _check_count(devices, names)
        with _mirrored_strategy(tuple(names[:devices])).scope():
            yield
    else:
        raise NotImplementedError(
            "Keras shares a batch over several devices on JAX and TensorFlow. "
            f"Received: devices={devices} on PyTorch; set KERAS_BACKEND=jax"
        )


@functools.lru_cache
def _mirrored_strategy(names):
    # All runs of a process share one strategy: the runs of a second one would
    # collide with the first in TensorFlow's collectives and stop.
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(names))


def _check_count(devices, found):
    if devices > len(found):
        raise ValueError(
            f"`devices` must be at most the {len(found)} found here. "
            f"Received: devices={devices}"
        )


def share_gpu(environment):
    """Sets environment variables that let several processes use one GPU.

    By default, the first process on JAX or TensorFlow takes most of the memory
    at once and leaves none for the next. With these variables each process
    takes what it needs, as PyTorch always does. Values set by the user stay.

    Args:
        environment: Mapping such as `os.environ`, which is changed. The
            variables are read when a process first uses the GPU.

    >>> sorted(share_gpu({}))
    ['TF_FORCE_GPU_ALLOW_GROWTH', 'XLA_PYTHON_CLIENT_PREALLOCATE']
    """
    if not any(name in environment for name in JAX_MEMORY):
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    environment.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    return environment
