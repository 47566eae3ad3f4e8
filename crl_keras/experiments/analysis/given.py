"""Records of results that were made elsewhere: a table of numbers, a row a run.

Imports no backend.
"""

import csv
import math
import pathlib

from crl_keras.experiments.runs.config import OwnConfig
from crl_keras.experiments.runs.config import own_loss
from crl_keras.experiments.runs.recipes import Recipe
from crl_keras.experiments.runs.records import KeptRecord

LOSS_COLUMNS = ("loss", "method")
GROUP_COLUMNS = ("dataset", "network", "learning_rate")


def given_records(
    results, baseline=None, paired="auto", percent="auto", name=None
):
    """Records of a table of results, see `crl_keras.compare_results`.

    Returns:
        `(records, baseline)`: list of `KeptRecord`, and the baseline's spec.

    Raises:
        ValueError: A column is missing, a cell is no number, a run is there
            twice, or an argument is not one of its values.
        OSError: The file cannot be read.
    """
    for word, value in (("paired", paired), ("percent", percent)):
        if value not in ("auto", True, False):
            raise ValueError(
                f'`{word}` must be True, False or "auto". Received: {value!r}'
            )
    rows, source = _rows(results)
    loss_column, score = _columns(rows)
    numbers = [_number(row, score, i) for i, row in enumerate(rows)]
    if percent == "auto":
        percent = max(numbers) > 1
    errors = [_error(x, score, percent) for x in numbers]
    names = [str(row[loss_column]).strip() for row in rows]
    seeded = paired is not False and all(_has(row, "seed") for row in rows)
    if paired is True and not seeded:
        raise ValueError(
            "Pairs need a column `seed` with a number in every row. Received: "
            "none, or rows without; leave out `paired`"
        )
    read = "percent" if percent else "fractions"
    text = f"{source}: {score} of {len(rows)} runs, read as {read}"
    runs, seen = [], {}
    for i, row in enumerate(rows):
        number = None if seeded else i
        number = None if seeded else i
        config = _config(row, names[i], name or source, number)
        if config.run_id in seen:
            raise ValueError(
                f"Rows {seen[config.run_id] + 1} and {i + 1} are the same run: "
                f"{names[i]}, seed {config.seed}. Give other columns that tell "
                "them apart the name dataset or network, or leave out `seed`"
            )
        seen[config.run_id] = i
        with_rate = _has(row, "learning_rate")
        metrics = _metrics(row, loss_column, score)
        result = _result(errors[i], metrics, text, not seeded, with_rate)
        runs.append(KeptRecord(config, result, [], pathlib.Path(source)))
    return runs, _baseline(baseline, names)


def _baseline(baseline, names):
    if baseline is not None and baseline not in names:
        raise ValueError(
            f"`baseline` must be one of {', '.join(dict.fromkeys(names))}. "
            f"Received: {baseline!r}"
        )
    return own_loss(names[0] if baseline is None else baseline, "given")


def _rows(results):
    """A list of dicts, and where it comes from."""
    source = "results"
    if isinstance(results, (str, pathlib.Path)):
        source = pathlib.Path(results).name
        with open(results, newline="", encoding="utf-8-sig") as file:
            results = list(csv.DictReader(file))
    elif hasattr(results, "to_dict"):  # pandas
        results = results.to_dict("records")
    elif isinstance(results, dict):
        columns = {key: list(values) for key, values in results.items()}
        results = [
            dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]
    rows = [{str(k).strip(): v for k, v in dict(r).items()} for r in results]
    if not rows:
        raise ValueError("Expected results of at least one run. Received: none")
    return rows, source


def _columns(rows):
    """Names of the columns of the loss and of the error or accuracy."""
    found = rows[0].keys()
    loss = [name for name in LOSS_COLUMNS if name in found]
    score = [name for name in ("error", "accuracy") if name in found]
    if not loss or not score:
        raise ValueError(
            "Expected a column `loss` (or `method`) and a column `error` or "
            f"`accuracy`: rename yours. Received: {', '.join(found)}"
        )
    return loss[0], score[0]


def _has(row, name):
    value = row.get(name)
    missing = value is None or value == ""
    return not missing and value == value  # Not NaN, as pandas has it.


def _number(row, name, i):
    try:
        value = float(row[name])
        if not math.isfinite(value):
            raise ValueError
    except (TypeError, ValueError, KeyError):
        raise ValueError(
            f"Expected a number in column {name!r} of row {i + 1}. Received: "
            f"{row.get(name)!r}; leave out runs that did not end"
        ) from None
    return value


def _error(value, score, percent):
    value = value / 100 if percent else value
    if not 0 <= value <= 1:
        raise ValueError(
            f"Expected `{score}` from 0 to {'100' if percent else '1'}, as "
            f"percent={percent} says. Received: "
            f"{100 * value if percent else value:g}"
        )
    return value if score == "error" else 1 - value


def _config(row, loss, name, number):
    """Of runs without seeds, `number` tells one from another."""
    seed = number
    if seed is None:
        seed = _number(row, "seed", 0)
        if seed != int(seed):
            raise ValueError(
                f"Expected whole numbers in column 'seed'. Received: {seed}"
            )
    rate = _number(row, "learning_rate", 0) if _has(row, "learning_rate") else 1
    return OwnConfig(
        dataset=str(row["dataset"]) if _has(row, "dataset") else name,
        network=str(row["network"]) if _has(row, "network") else "",
        loss=own_loss(loss, "given"),
        recipe=Recipe("given", epochs=1, batch_size=1, learning_rate=rate),
        seed=int(seed),
        backend="not known",
        own="given",
    )


def _metrics(row, *without):
    found = {}
    for name, value in row.items():
        if name in (*without, "seed", *GROUP_COLUMNS) or not _has(row, name):
            continue
        try:
            found[name] = float(value)
        except (TypeError, ValueError):
            continue  # A remark, a path.
    return found


def _result(error, metrics, text, unpaired, with_rate):
    none = dict.fromkeys(("device", "versions", "wall_seconds", "date"))
    return dict(
        none,
        given=text,
        unpaired=unpaired,
        with_rate=with_rate,
        status="done",
        backend="not known",
        precision="not known",
        network=dict(name="", parameters=0),
        dataset=dict(fingerprint=None, held_out=0),
        devices=1,
        epochs=None,
        images_per_second=None,
        failure=None,
        command=(),
        last=dict(error=error, metrics=metrics),
        best=dict(epoch=1, test_error=error),
    )
