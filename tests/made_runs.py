"""Runs that are made up: of each, the number of wrong test images is given."""

import numpy as np

from crl_keras.experiments.analysis.comparison import compare
from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.records import RunFolder
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.records import write_data

SAMPLES = 100
CRL = "crl(alpha=1.5,beta=1)"
CE_WRONG = (10, 12, 9, 11, 13)
CRL_WRONG = (9, 10, 10, 9, 12)
NLLR_WRONG = (15, 16, 14, 17, 17)


def make_logits(labels, wrong, classes, rng):
    """Logits of which exactly the first `wrong` samples are wrong."""
    logits = rng.normal(size=(len(labels), classes)) * 0.5
    logits[np.arange(len(labels)), labels] += 6
    taken_for = (labels[:wrong] + 1) % classes
    logits[np.arange(wrong), taken_for] += 10
    return logits.astype("float32")


def write_run(
    folder,
    loss,
    seed,
    wrong,
    *,
    best=None,
    classes=10,
    names=None,
    held_out=True,
    held_out_wrong=None,
    rate=0.1,
    epochs=4,
    fingerprint="f00d",
    result=None,
    **config,
):
    """Writes one run; `wrong` None for one that diverged.

    Without `held_out_wrong`, twice as many held-out images are wrong.
    """
    values = dict(
        dataset="digits",
        network="mlp",
        recipe=get_recipe("digits", learning_rate=rate, epochs=epochs),
        held_out=0.1 if held_out else 0.0,
    )
    config = RunConfig(loss=loss, seed=seed, **{**values, **config})
    run = RunFolder(folder, config)
    run.path.mkdir(parents=True, exist_ok=True)
    run.begin()
    rng = np.random.default_rng([seed, len(config.loss), wrong or 0])
    labels = np.random.default_rng(1).integers(classes, size=SAMPLES)
    thumbnails = np.random.default_rng(2).integers(
        256, size=(SAMPLES, 8, 8, 1), dtype="uint8"
    )
    names = names or [f"class {k}" for k in range(classes)]
    write_data(folder, fingerprint, labels, names, thumbnails)
    values = dict(
        status="diverged" if wrong is None else "done",
        dataset=dict(
            name=config.dataset,
            fingerprint=fingerprint,
            train=1200,
            held_out=SAMPLES if held_out else 0,
            test=SAMPLES,
            classes=classes,
        ),
        network=dict(name=config.network, parameters=12345),
        loss=config.loss,
        seed=seed,
        backend=config.backend,
        versions={"keras": "3.15.1", "python": "3.11.7"},
        device="CPU (test)",
        devices=1,
        precision="float32",
        epochs=epochs,
        wall_seconds=30.0,
        images_per_second=1000.0,
        last=None,
        best=None,
        failure=None,
        command=["python", "compare.py", "--losses", "crl(beta=-1)"],
        date="2026-11-23T12:00:00",
    )
    logits = {}
    if wrong is None:
        values["failure"] = dict(
            epoch=2, step=17, learning_rate=rate, message="not finite"
        )
    else:
        logits["test"] = make_logits(labels, wrong, classes, rng)
        last = scores.all_scores(logits["test"], labels)
        assert last["error"] == wrong / SAMPLES
        values["last"] = {**last, "epoch": epochs, "test_loss": 0.5}
        best = wrong if best is None else best
        values["best"] = dict(epoch=3, test_error=best / SAMPLES)
        if held_out:
            count = 2 * wrong if held_out_wrong is None else held_out_wrong
            logits["held_out"] = make_logits(labels, count, classes, rng)
            logits["held_out_labels"] = labels
    final = 0.5 if wrong is None else wrong / SAMPLES
    history = [
        dict(
            epoch=epoch,
            learning_rate=rate,
            test_accuracy=1 - final - 0.4 * (epochs - epoch) / epochs,
        )
        for epoch in range(1, epochs + 1)
    ]
    run.finish({**values, **(result or {})}, history, logits)
    return run


def write_runs(folder, **wrong):
    """Runs of seeds 0, 1, ... of each loss; False leaves a seed out."""
    for loss, counts in wrong.items():
        for seed, count in enumerate(counts):
            if count is not False:
                write_run(folder, loss, seed, count)


def compare_folder(folder, **options):
    return compare(read_records(folder), **options)


def only_group(folder, **options):
    ((group,),) = [f.groups for f in compare_folder(folder, **options)]
    return group
