"""Gradients and compiled functions, one way for the three backends."""

import re

import keras
import numpy as np
from keras import ops


def value_and_gradient(function, x):
    """`function(x)` summed, and its gradient, as float64 arrays."""
    x = ops.convert_to_tensor(x)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        value, gradient = jax.value_and_grad(
            lambda x: ops.sum(function(x)).astype("float32")
        )(x)
    elif backend == "torch":
        import torch

        x = x.detach().clone().requires_grad_()
        value = ops.sum(function(x))
        (gradient,) = torch.autograd.grad(value, x)
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = ops.sum(function(x))
        gradient = tape.gradient(value, x)
    return to_numpy(value), to_numpy(gradient)


def assert_no_class(losses, i=0):
    """Loss `i` of `losses()` is NaN, or the kernel of the backend raises.

    Returns the losses, or None. An error of ours would be another: JAX has no
    kernel, and TensorFlow's and PyTorch's raise neither ValueError nor
    TypeError.
    """
    backend = keras.backend.backend()
    kernel_errors = ()
    if backend == "torch":
        kernel_errors = (IndexError, RuntimeError)
    elif backend == "tensorflow":
        import tensorflow as tf

        kernel_errors = tf.errors.InvalidArgumentError
    try:
        found = to_numpy(losses())
    except kernel_errors as error:
        assert re.search("label|out of bounds", str(error)), error
        return None
    assert np.isnan(found[i])
    return found


def hessian(function, x):
    """Second derivatives of `function(x)` summed, for `x` of one sample."""
    x = ops.convert_to_tensor(x)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return to_numpy(jax.hessian(lambda x: ops.sum(function(x)))(x))
    if backend == "torch":
        import torch

        return to_numpy(
            torch.autograd.functional.hessian(lambda x: ops.sum(function(x)), x)
        )
    import tensorflow as tf

    with tf.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = ops.sum(function(x))
        gradient = inner.gradient(value, x)
    # TensorFlow's kernel of the cross-entropy has a second derivative, but
    # none that can be vectorised over rows.
    return to_numpy(outer.jacobian(gradient, x, experimental_use_pfor=False))


def compilers():
    """The ways in which the active backend compiles a function, by name."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return {"jit": jax.jit}
    if backend == "tensorflow":
        import tensorflow as tf

        return {
            "graph": tf.function,
            "xla": tf.function(jit_compile=True),
        }
    import torch

    return {
        "inductor": torch.compile,
        "aot_eager": lambda f: torch.compile(f, backend="aot_eager"),
    }


def to_numpy(x):
    x = ops.convert_to_tensor(x)
    if keras.backend.standardize_dtype(x.dtype) == "bfloat16":
        x = ops.cast(x, "float32")  # NumPy has no bfloat16.
    return np.asarray(ops.convert_to_numpy(x), dtype="float64")
