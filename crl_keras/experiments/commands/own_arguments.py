"""Checks and prepares the arguments of `compare_losses`."""

import contextlib
import inspect
import json

import numpy as np

from crl_keras.experiments.runs import own
from crl_keras.experiments.runs import own_data
from crl_keras.experiments.runs.config import OwnConfig
from crl_keras.experiments.runs.config import canonical_loss
from crl_keras.experiments.runs.config import controls
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.config import make_head
from crl_keras.experiments.runs.config import make_loss
from crl_keras.experiments.runs.config import own_loss
from crl_keras.experiments.runs.recipes import Recipe

FROM_LOGITS = (
    "Models are compared from logits, without a last softmax and with losses "
    "that have from_logits=True"
)


def check_numbers(given):
    for name in ("epochs", "batch_size", "steps_per_epoch"):
        value = given[name]
        if name == "steps_per_epoch" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise ValueError(
                f"`{name}` must be an integer, at least 1. Received: {value!r}"
            )
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {value}")
    build = given["build_model"]
    is_model = hasattr(build, "fit") and not inspect.isclass(build)
    if is_model or not callable(build):
        raise ValueError(
            "`build_model` must be a function that returns a new keras.Model "
            "in each call, such as lambda: keras.Sequential([...]). Received: "
            f"{type(build).__name__}"
        )
    for make in given["callbacks"]:
        if not callable(make) or hasattr(make, "on_epoch_end"):
            _refuse_callback(make)
    _check_together(given["together"])
    if given["verbose"] not in ("auto", 0, 1, 2):
        raise ValueError(
            '`verbose` must be 0, 1, 2 or "auto". '
            f"Received: {given['verbose']!r}"
        )


def _check_together(asked):
    import keras

    backend = keras.backend.backend()
    is_number = isinstance(asked, (int, np.integer)) and asked is not True
    if asked not in ("auto", "off") and not (is_number and asked >= 1):
        raise ValueError(
            '`together` must be "auto", "off" or a number of runs, at least '
            f"1. Received: {asked!r}"
        )
    if is_number and asked > 1 and backend != "jax":
        raise ValueError(
            "Runs cannot be trained as one program: it needs JAX, and Keras is "
            f"on {backend}. Received: together={asked}. Leave it out"
        )


def _refuse_callback(make):
    if inspect.isclass(make):
        return  # A call of the class makes a new callback.
    raise ValueError(
        "`callbacks` must be functions that return a new callback, as every "
        "run needs its own: lambda: keras.callbacks.EarlyStopping(...). "
        f"Received: {type(make).__name__}"
    )


def _seeds(seeds):
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        found = range(seeds)
    else:
        try:
            found = [int(seed) for seed in seeds]
        except (TypeError, ValueError):
            found = []
    if not len(found) or len(set(found)) < len(found):
        raise ValueError(
            "`seeds` must be a number of seeds, at least 1, or a list of "
            f"different seeds. Received: {seeds!r}"
        )
    return list(found)


def _rates(rates):
    try:
        found = [] if isinstance(rates, str) else [float(x) for x in rates]
    except (TypeError, ValueError):
        found = []
    if not found:
        raise ValueError(
            "`learning_rates` must be a list of numbers, as [0.001, 0.003]. "
            f"Received: {rates!r}"
        )
    return found


def policy_name(policy):
    import keras

    if policy is None:
        policy = keras.config.dtype_policy()
    return getattr(policy, "name", policy)


@contextlib.contextmanager
def dtype_policy(policy):
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def make_problem(given):
    """Makes the `OwnProblem` without losses and a model of the first seed."""
    steps = given["steps_per_epoch"]
    train = own_data.as_split(
        given["train"], "train", given["sample_weight"], steps
    )
    test = own_data.as_split(given["test"], "test")
    held_out = None
    if given["validation"] is not None:
        held_out = own_data.as_split(given["validation"], "validation")
    model, classes = _checked_model(given, train)
    for split in filter(None, (train, test, held_out)):
        _check_labels(split, train, classes)
    names = given["class_names"]
    names = range(classes) if names is None else names
    if len(names) != classes:
        raise ValueError(
            f"Expected {classes} `class_names`, one for each output of the "
            f"model. Received: {len(names)}"
        )
    problem = own.OwnProblem(
        name=given["name"],
        make_model=given["build_model"],
        make_optimizer=_optimizers(given["optimizer"], given["learning_rates"]),
        losses={},
        train=train,
        test=test,
        held_out=held_out,
        class_names=tuple(map(str, names)),
        class_weight=_class_weight(given["class_weight"], classes),
        make_callbacks=tuple(given["callbacks"]),
        steps_per_epoch=steps,
        jit_compile=given["jit_compile"],
        keeps_models=given["keep_models"],
    )
    _hold_out(problem, given)
    return problem, model


def _hold_out(problem, given):
    fraction = given["held_out"]
    possible = problem.held_out is None and not problem.train.streamed
    if fraction is None:
        fraction = 0.1 if possible else 0.0
    if not 0 <= fraction < 1:
        raise ValueError(
            f"`held_out` must be a fraction in [0, 1). Received: {fraction}"
        )
    if fraction and not possible:
        raise ValueError(
            "`held_out` needs arrays in `train`, and no `validation`. "
            f"Received: held_out={fraction}. Leave it out, and give the part "
            "as `validation`"
        )
    given["held_out"] = fraction
    if fraction:
        problem.with_held_out(fraction)


def _class_weight(weights, classes):
    if weights is None:
        return None
    weights = {int(k): float(w) for k, w in dict(weights).items()}
    if not all(0 <= k < classes and w >= 0 for k, w in weights.items()):
        raise ValueError(
            f"`class_weight` must have weights >= 0 of classes from 0 to "
            f"{classes - 1}. Received: {weights}"
        )
    return weights


def _checked_model(given, train):
    import keras

    # Layer names start again, so that they are the same in every session.
    keras.backend.clear_session()
    keras.utils.set_random_seed(_seeds(given["seeds"])[0])
    model = given["build_model"]()
    if not isinstance(model, keras.Model):
        raise ValueError(
            "Expected `build_model` to return a keras.Model. Received: "
            f"{type(model).__name__}"
        )
    outputs = model(own.as_tensors(train.first()[0]), training=False)
    shape = getattr(outputs, "shape", None)
    if shape is None or len(shape) != 2 or shape[1] < 2:
        raise ValueError(
            "Expected a model that ends in logits, (batch, classes), of two "
            "classes or more: a last Dense layer with one unit per class, "
            f"without activation. Received: {shape or type(outputs).__name__}"
        )
    values = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1, atol=1e-2):
        raise ValueError(
            f"{FROM_LOGITS}. Received: a model that ends in probabilities; "
            "leave out its last activation"
        )
    return model, int(shape[1])


def _check_labels(split, train, classes):
    targets = split.first()[1]
    width = targets.shape[1] if targets.ndim == 2 else classes
    if split.labels.max() >= classes or width != classes:
        found = f"labels up to {split.labels.max()}"
        if targets.ndim == 2:
            found = f"{width} columns"
        raise ValueError(
            f"Expected labels of {split.where} for the {classes} outputs of "
            f"the model. Received: {found}"
        )
    if (split.kind == "integer") != (train.kind == "integer"):
        raise ValueError(
            "Expected labels of one kind in all splits, integers or one-hot. "
            f"Received: {train.kind} in train, {split.kind} in {split.where}"
        )


def _optimizers(given, rates):
    """Returns a function that makes the optimizer for a learning rate."""
    import keras

    if isinstance(given, str):
        kind = type(keras.optimizers.get(given))
        return lambda rate: kind(
            **({} if rate is None else {"learning_rate": rate})
        )
    if isinstance(given, keras.optimizers.Optimizer):
        raise ValueError(
            "`optimizer` must be a function that returns a new optimizer, as "
            "every run needs its own: lambda: keras.optimizers.Adam(1e-3). "
            f"Received: {type(given).__name__}"
        )
    try:
        needed = [
            p.name
            for p in inspect.signature(given).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except TypeError:
        raise ValueError(
            "`optimizer` must be a function or a name. "
            f"Received: {type(given).__name__}"
        ) from None
    if rates is not None and not needed:
        raise ValueError(
            "With `learning_rates`, `optimizer` must be a function of the "
            "rate: lambda rate: keras.optimizers.Adam(rate). Received: one "
            "without arguments"
        )
    return lambda rate: given() if rates is None else given(rate)


def add_losses(problem, model, given):
    """Adds the losses to the problem; returns the spec of the baseline."""
    losses = given["losses"]
    if isinstance(losses, str) or not losses:
        raise ValueError(
            "`losses` must be a dict from names to Keras losses, or a list of "
            f'names such as ["ce", "crl"]. Received: {losses!r}'
        )
    named = isinstance(losses, dict)
    if not named:
        losses = {loss_label(spec): spec for spec in losses}
    if given["split_effect"]:
        losses = _with_controls(losses)
    specs = {}
    for label, loss in losses.items():
        spec, loss = _spec(problem, str(label), loss, named)
        _check_loss(problem, model, label, loss)
        problem.losses[spec] = loss
        specs[str(label)] = spec
        if isinstance(losses[label], str):
            specs[losses[label]] = spec
    baseline = given["baseline"]
    if baseline is None:
        return next(iter(problem.losses))
    if baseline not in specs:
        raise ValueError(
            f"`baseline` must be one of {', '.join(map(str, losses))}. "
            f"Received: {baseline!r}"
        )
    return specs[baseline]


def _with_controls(losses):
    """Adds two controls after each loss of this package."""
    import keras

    from crl_keras.losses import StepMatchedCrossEntropy
    from crl_keras.losses import StepNormalizedLoss

    found, known = {}, set()
    for label, loss in losses.items():
        found[label] = loss
        steps, weights = f"CE with {label}'s steps", f"{label} with CE's steps"
        if isinstance(loss, str):
            known.add(canonical_loss(loss))
            found.update(zip((steps, weights), controls(loss), strict=False))
            continue
        if isinstance(loss, keras.losses.Loss):
            known.add(type(loss).__name__)
        with contextlib.suppress(TypeError, ValueError):
            found[steps] = StepMatchedCrossEntropy(loss)
            found[weights] = StepNormalizedLoss(loss)
    if len(found) == len(losses):
        raise ValueError(
            "`split_effect` needs a loss of crl_keras.losses with "
            'from_logits=True, or a name such as "crl". Received: '
            f"{', '.join(map(str, losses))}"
        )
    plain = {"ce", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"}
    return found if known & plain else {"CE": "ce", **found}


def _spec(problem, label, loss, named):
    kind = problem.train.kind
    if isinstance(loss, str):
        spec = canonical_loss(loss)
        if make_head(spec, 2) is not None:
            raise ValueError(
                f"The loss {spec} needs its own last layer. End the model with "
                "crl_keras.layers.LSoftmaxDense or ASoftmaxDense, and give "
                "SparseMarginCrossEntropy in a dict of `losses`"
            )
        loss = make_loss(spec, problem.classes, kind != "integer")
        if kind != "soft":
            return (own_loss(label, spec) if named else spec), loss
        # Soft labels have no known posterior, so tables must not show one.
        return own_loss(label, f"soft labels, {spec}"), loss
    if not callable(loss):
        raise ValueError(
            f"Expected the loss {label!r} to be a Keras loss, a function or a "
            f"name. Received: {type(loss).__name__}"
        )
    return own_loss(label, own.definition_of(loss, kind != "soft")), loss


def _check_loss(problem, model, label, loss):
    import keras

    if own.is_from_logits(loss) is False:
        raise ValueError(
            f"{FROM_LOGITS}. Received: {label!r} with from_logits=False"
        )
    inputs, targets = problem.train.first()
    outputs = model(own.as_tensors(inputs), training=False)
    outputs = keras.ops.cast(outputs, "float32")
    other = "sparse" if targets.ndim == 1 else "dense (not sparse)"
    try:
        found = loss(keras.ops.convert_to_tensor(targets), outputs)
        finite = np.isfinite(keras.ops.convert_to_numpy(found)).all()
    except Exception as error:
        raise ValueError(
            f"The loss {label!r} cannot be computed from the labels, which "
            f"are {problem.train.kind}. Use its {other} form. "
            f"{type(error).__name__}: {error}"
        ) from error
    if not finite:
        raise ValueError(
            f"The loss {label!r} of the first batch is not finite, before any "
            "training. Check the inputs (NaN, their scale) and the labels, "
            f"which are {problem.train.kind} and need {other} losses"
        )


def make_metrics(problem, model, given):
    import keras

    if isinstance(given, (str, dict)) or not hasattr(given, "__iter__"):
        raise ValueError(
            "`metrics` must be a list of Keras metrics, functions or names. "
            f"Received: {given!r}"
        )
    metrics = {}
    inputs, targets = problem.test.first()
    outputs = model(own.as_tensors(inputs), training=False)
    logits = keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32"))
    for metric in given:
        name = metric if isinstance(metric, str) else None
        if metric in ("accuracy", "acc"):
            dense = targets.ndim == 2
            metric = (
                keras.metrics.CategoricalAccuracy
                if dense
                else keras.metrics.SparseCategoricalAccuracy
            )(name="accuracy")
        found = keras.metrics.get(metric)
        if not isinstance(found, keras.metrics.Metric):
            name = name or getattr(metric, "__name__", "metric")
            found = keras.metrics.MeanMetricWrapper(found, name=name)
        try:
            measured(found, targets, logits)
        except Exception as error:
            raise ValueError(
                f"The metric {found.name!r} cannot be computed from labels "
                f"that are {problem.test.kind}, and logits. "
                f"{type(error).__name__}: {error}"
            ) from error
        metrics[found.name] = found
    return metrics


def measured(metric, targets, logits):
    metric.reset_state()
    for i in range(0, len(targets), 1000):
        metric.update_state(targets[i : i + 1000], logits[i : i + 1000])
    return float(metric.result())


def make_configs(problem, model, policy, given):
    import keras

    rates = given["learning_rates"]
    rates = [None] if rates is None else _rates(rates)
    extra = {
        "class_weight": problem.class_weight and str(problem.class_weight),
        "callbacks": [_text_of(make()) for make in problem.make_callbacks],
        "steps_per_epoch": problem.steps_per_epoch,
    }
    recipes = []
    for rate in rates:
        optimizer = problem.make_optimizer(rate)
        problem.scheduled |= isinstance(
            optimizer.get_config().get("learning_rate"), dict
        )
        text = own.identity(problem, model, optimizer, extra)
        if rate is None:
            value = keras.ops.convert_to_numpy(optimizer.learning_rate)
            rate = float(f"{float(value):.6g}")
            problem.make_optimizer = _ignoring_rate(problem.make_optimizer)
        recipes.append(
            Recipe(
                "own",
                epochs=given["epochs"],
                batch_size=getattr(
                    problem.train, "batch_size", given["batch_size"]
                ),
                learning_rate=rate,
                scaling="unit",
            )
        )
    network = getattr(given["build_model"], "__name__", "model")
    return [
        OwnConfig(
            dataset=given["name"],
            network="model" if network == "<lambda>" else network,
            loss=loss,
            recipe=recipe,
            seed=seed,
            held_out=given["held_out"],
            precision=policy,
            backend=keras.backend.backend(),
            own=text,
        )
        for recipe in recipes
        for seed in _seeds(given["seeds"])
        for loss in problem.losses
    ]


def _ignoring_rate(make):
    return lambda rate: make(None)


def _text_of(callback):
    values = {
        name: value
        for name, value in vars(callback).items()
        if isinstance(value, (bool, int, float, str)) and name[0] != "_"
    }
    return f"{type(callback).__name__} {json.dumps(values, sort_keys=True)}"
