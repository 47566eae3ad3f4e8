"""Makes records from a table of results of other programs, one run per row.

Imports no backend.
"""

import csv
import math
import pathlib

import numpy as np

from crl_keras.experiments.runs.config import OwnConfig
from crl_keras.experiments.runs.config import own_loss
from crl_keras.experiments.runs.recipes import Recipe
from crl_keras.experiments.runs.records import KeptRecord

LOSS_COLUMNS = ("loss", "method")
GROUP_COLUMNS = ("dataset", "network", "learning_rate")


def given_records(
    results, baseline=None, paired="auto", percent="auto", name=None
):
    """Makes records of a table of results, see `crl_keras.compare_results`.

    Returns:
        `(records, baseline)`: list of `KeptRecord`, and the baseline's spec.

    Raises:
        ValueError: If a column is missing, a cell is not a number, a run
            appears twice, or an argument has a wrong value.
        OSError: If the file cannot be read.
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
        _refuse_mixture(numbers, score)
    errors = [_error(x, score, percent) for x in numbers]
    names = [str(row[loss_column]).strip() for row in rows]
    seeded = paired is not False and all(_has(row, "seed") for row in rows)
    if paired is True and not seeded:
        raise ValueError(
            "Pairs need a column `seed` with a number in every row. Received: "
            "no such column, or rows without a number. Leave out `paired`"
        )
    read = "percent" if percent else "fractions"
    text = f"{source}: {score} of {len(rows)} runs, read as {read}"
    runs, seen = [], {}
    for i, row in enumerate(rows):
        config = _config(row, i, names[i], name or source, seeded)
        if config.run_id in seen:
            raise ValueError(
                f"Rows {seen[config.run_id] + 1} and {i + 1} are the same run: "
                f"{names[i]}, seed {config.seed}. If a column tells them "
                "apart, name it dataset or network. Or leave out `seed`"
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
    """Returns the rows as a list of dicts, and the name of their source."""
    source = "results"
    if isinstance(results, (str, pathlib.Path)):
        source = pathlib.Path(results).name
        with open(results, newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            # Spreadsheets write it where a comma is the decimal point.
            semicolons = ";" in head and "," not in head
            delimiter = ";" if semicolons else ","
            results = list(csv.DictReader(file, delimiter=delimiter))
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
    """Names of the loss column and of the error or accuracy column."""
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
    return not missing and value == value  # pandas uses NaN.


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


def _refuse_mixture(numbers, score):
    """Raises if one number looks like a fraction among percents."""
    typical = float(np.median(numbers))
    for i, x in enumerate(numbers):
        if 0 < x <= 1 and 10 * x < typical:
            raise ValueError(
                f"Expected all numbers in column {score!r} in percent, or all "
                f"as fractions. Received: {x:g} in row {i + 1}, where "
                f"{typical:g} is typical. If it is right, set percent=True "
                "(--percent)"
            )


def _error(value, score, percent):
    value = value / 100 if percent else value
    if not 0 <= value <= 1:
        how = "as fractions: percent=True (--percent) reads percent"
        if percent:
            how = "in percent, because percent=True or a number is above 1"
        raise ValueError(
            f"Expected `{score}` from 0 to {'100' if percent else '1'}, read "
            f"{how}. Received: {100 * value if percent else value:g}"
        )
    return value if score == "error" else 1 - value


def _config(row, i, loss, name, seeded):
    """Makes the config of row `i`, which replaces a missing seed."""
    seed = i
    if seeded:
        seed = _number(row, "seed", i)
        if seed != int(seed):
            raise ValueError(
                f"Expected whole numbers in column 'seed'. Received: {seed}"
            )
    rate = _number(row, "learning_rate", i) if _has(row, "learning_rate") else 1
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
            continue  # Text, such as a remark or a path.
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
