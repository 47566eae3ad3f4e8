"""Writes the report on an experiment from its records.

Imports no backend, so a laptop can report on the runs of another machine. The
same records give the same files.
"""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import shlex
import textwrap

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.analysis import figures
from crl_keras.experiments.analysis import pictures
from crl_keras.experiments.analysis import tables
from crl_keras.experiments.analysis.comparison import compare
from crl_keras.experiments.analysis.diagnosis import signs
from crl_keras.experiments.analysis.evaluation import METHODS
from crl_keras.experiments.analysis.metrics import metric_table
from crl_keras.experiments.analysis.single import sentences
from crl_keras.experiments.analysis.single import telling_images
from crl_keras.experiments.analysis.verdicts import short_verdict
from crl_keras.experiments.analysis.verdicts import verdict
from crl_keras.experiments.runs.config import control_of
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.config import own_parts
from crl_keras.experiments.runs.config import parse_loss
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.words import counted
from crl_keras.experiments.words import listed
from crl_keras.experiments.words import pair_text
from crl_keras.experiments.words import plural

LOSS_NAMES = {
    "nllr": "competing ratio loss",
    "crl": "competing ratio loss",
    "focal": "focal loss",
    "dualce": "dual cross-entropy",
    "tamed": "tamed cross-entropy, our reading",
    "released": "competing ratio loss with its authors' clamps",
    "lsoftmax": "large-margin softmax",
    "asoftmax": "angular softmax",
}
CONTROL_NAMES = {
    "steps": "control, cross-entropy with the steps of the loss",
    "weights": "control, the loss with the steps of cross-entropy",
}
CLASSES_PRINTED = 10
TEMPLATES = pathlib.Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class Report:
    """A written report.

    Attributes:
        families: tuple of `comparison.Family`: all its numbers.
        files: tuple of paths, report.html first.
    """

    families: tuple
    files: tuple


def write_report(
    runs_folder,
    output=None,
    baseline=None,
    show=True,
    console=None,
    rates_by_seed=False,
):
    """Writes report.html, table.md, table.csv, table.tex, calibration.csv.

    If there are several learning rates, it also writes own-rates.csv. If
    there are losses with their controls, it writes steps-or-weighting.csv.

    With several losses, the report compares them. With one loss, it describes
    the model: the accuracy with an interval, the classes (also in
    classes.csv), and the most telling test images.

    Args:
        runs_folder: folder of the runs, from `examples/compare_losses.py`.
        output: folder of the report; `runs_folder`/report by default.
        baseline: loss that the others are compared with. By default "ce", or
            the first loss if "ce" was not run.
        show: print the tables and the paths of the files.
        console: `rich.console.Console` to print on, or None for a new one.
        rates_by_seed: choose the learning rate of a loss for each seed,
            instead of one for all seeds.

    Returns:
        A `Report`.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if it holds no finished run, no run of the baseline, or a
            run that cannot be read.
        OSError: if the report cannot be written.
        ImportError: without SciPy, Matplotlib, Jinja2 or Rich.
    """
    runs_folder = pathlib.Path(runs_folder)
    console = console or require("rich.console").Console(quiet=not show)
    records = read_records(runs_folder)
    if not records:
        begun = len(list(runs_folder.glob("*/config.json")))
        raise ValueError(
            f"There is no finished run in {runs_folder} ({begun} begun). A "
            "report needs at least one. Run examples/compare_losses.py with "
            "this folder as --output first"
        )
    output = runs_folder / "report" if output is None else pathlib.Path(output)
    # First, because an error here would lose the work.
    output.mkdir(parents=True, exist_ok=True)
    with _progress(console) as on_run:
        families = compare(records, baseline, on_run, rates_by_seed)
    written = {
        "report.html": to_html(families),
        "table.md": to_markdown(families),
        "table.csv": tables.to_csv(_of_groups(families, tables.error_table)),
        "table.tex": to_latex(families),
        "calibration.csv": tables.to_csv(
            _of_groups(families, tables.calibration_table)
        ),
    }
    if owns := [t for f in families if (t := tables.own_rate_table(f))]:
        written["own-rates.csv"] = tables.to_csv(owns)
    if found := [t for f in families if (t := tables.effect_table(f))]:
        written["steps-or-weighting.csv"] = tables.to_csv(found)
    if classes := _of_groups(families, _class_table):
        written["classes.csv"] = tables.to_csv(classes)
    for name, text in written.items():
        (output / name).write_text(text, encoding="utf-8", newline="\n")
    report = Report(families, tuple(output / name for name in written))
    print_report(report, console)
    return report


def _class_table(group):
    return group.model and tables.class_table(group)


def print_report(report, console):
    """Prints tables, verdicts and paths on a `rich.console.Console`."""

    def say(text="", **options):
        console.print(text, markup=False, highlight=False, **options)

    def show(table):
        if table is not None:
            console.print(tables.to_rich(table, console.width))

    for family in report.families:
        show(tables.own_rate_table(family))
        if family.own:
            for c in family.own.comparisons:
                say(verdict(c))
            for note in family.own.notes:
                say(f"Note: {note}")
            say()
        show(tables.effect_table(family))
        if len(family.groups) > 1:
            show(tables.rate_table(family))
            say("* lowest error of the loss on the test set: optimistic.\n")
        for group in family.groups:
            if group.model:
                show(tables.accuracy_table(group))
                show(tables.class_table(group, CLASSES_PRINTED))
                for sentence in sentences(group):
                    say(sentence)
            else:
                show(tables.error_table(group))
            show(tables.fold_table(group))
            if any(c.shown for c in group.comparisons):
                say("* p < 0.05 after Holm's correction.\n")
            for c in group.comparisons:
                say(verdict(c))
            for note in group.notes:
                say(f"Note: {note}")
            say()
            show(tables.calibration_table(group))
    show(tables.diverged_table(report.families))
    say("Written:")
    for path in report.files:
        say(f"  {path}", soft_wrap=True)


def to_markdown(families):
    """Writes all facts, verdicts and tables as Markdown."""
    parts = [f"# {tables.escape_markdown(_title(families))}", ""]
    for name, values in facts(families):
        text = "; ".join(tables.escape_markdown(value) for value in values)
        parts.append(f"- **{name}:** {text}")
    for command in commands(_records(families)):
        parts += ["", textwrap.indent(command, "    ")]
    parts += ["", "## What the numbers support", ""]
    parts += [
        f"- {tables.escape_markdown(f'{title}: {sentence}')}"
        for title, sentence in verdicts(families)
    ]
    parts += ["", "## Tables", ""]
    text = "\n".join(parts)
    return "\n".join([text, *map(tables.to_markdown, _tables(families))])


def to_latex(families):
    """Writes all tables as a LaTeX file for \\input."""
    head = "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.\n\n"
    return head + "\n".join(map(tables.to_latex, _tables(families)))


def to_html(families):
    """Writes the whole report as one page without other files."""
    jinja2 = require("jinja2", "experiments")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        # Escapes class names and paths. Only our own SVG is not escaped.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    styles = figures.loss_styles(families)
    # A figure may occur twice: each time it has ids of its own.
    number = itertools.count(1)
    environment.filters["own_ids"] = lambda svg: figures.with_ids(
        svg, f"f{next(number)}"
    )
    page = environment.get_template("report.html.jinja").render(
        title=_title(families),
        facts=facts(families),
        commands=commands(_records(families)),
        given=any(r.result.get("given") for r in _records(families)),
        lead=_lead(families),
        compared=any(g.comparisons for f in families for g in f.groups),
        styles=styles,
        labels={loss: loss_label(loss) for loss in styles},
        sections=[_family_section(f, styles) for f in families],
        diverged=tables.diverged_table(families),
    )
    return page + "\n"


def verdicts(families):
    """Pairs of a group's title and a sentence on one of its losses.

    Verdicts on losses at their own learning rates come first.
    """
    groups = [family.own for family in families if family.own]
    groups += [group for family in families for group in family.groups]
    return [pair for group in groups for pair in verdicts_of(group)]


def verdicts_of(group):
    """The `verdicts` of one group."""
    found = [verdict(c) for c in group.comparisons]
    if group.model:
        found += sentences(group)
    return [(group.title, sentence) for sentence in found]


def _lead(families):
    """The full verdicts of a single group, or a line for each group.

    Verdicts on losses at their own learning rates come first.
    """
    groups = [group for family in families for group in family.groups]
    if len(groups) == 1:
        return [("", sentence) for _, sentence in verdicts(families)]
    owns = [family.own for family in families if family.own]
    found = [pair for own in owns for pair in verdicts_of(own)]
    return found + [(group.title, _short(group)) for group in groups]


def _short(group):
    return sentences(group)[0] if group.model else short_verdict(group)


def facts(families):
    """Describes data, training and machine: pairs of a name and its values."""
    records = _records(families)
    results = [r.result for r in records]
    if any(r.get("given") for r in results):
        return _facts_given(families, records)
    losses = dict.fromkeys(loss for f in families for loss in f.losses)
    found = [
        ("Data", _distinct(map(_data_text, records))),
        ("Network", _distinct(_network_text(r) for r in records)),
        ("Losses", [_loss_text(loss) for loss in losses]),
        ("Seeds", [_seeds_text({r.config.seed for r in records})]),
        *_folds(records),
        ("Training", _distinct(_recipe_text(r.config) for r in records)),
        ("Learning rate", [_rates_text(records)]),
        ("Device", _distinct(_device_text(r) for r in results)),
        ("Precision", _distinct(r["precision"] for r in results)),
        ("Software", _distinct(_versions_text(r) for r in results)),
        ("Time", [_time_text(records)]),
        ("Date", [_dates_text(results)]),
    ]
    return found


def _facts_given(families, records):
    """The facts of results from `compare_results`."""
    losses = dict.fromkeys(loss for f in families for loss in f.losses)
    return [
        ("Results", _distinct(r.result["given"] for r in records)),
        ("Losses", [loss_label(loss) for loss in losses]),
        ("Runs", [str(len(records))]),
    ]


def _folds(records):
    folds = {r.config.fold for r in records} - {None}
    if not folds:
        return []
    return [("Folds", [listed([str(k) for k in sorted(folds)])])]


def _family_section(family, styles):
    return dict(
        title=family.title,
        own=family.own and _own_section(family.own, styles),
        effects=tables.effect_table(family),
        effect_figures=figures.effect_figures(family),
        rate_table=tables.rate_table(family),
        rate_figure=figures.rate_figure(family, styles),
        groups=[_group_section(g, styles) for g in family.groups],
    )


def _own_section(own, styles):
    """The section of each loss at its best rate on held-out images."""
    drawn = [figures.seed_strip(own, styles), figures.differences(own, styles)]
    return dict(
        title=own.title,
        verdicts=[sentence for _, sentence in verdicts_of(own)],
        errors=tables.error_table(own),
        figures=[f for f in drawn if f],
    )


def _group_section(group, styles):
    errors = tables.error_table(group)
    main = [
        figures.error_curves(group, styles),
        figures.seed_strip(group, styles),
        figures.differences(group, styles),
    ]
    if group.model:
        errors = tables.accuracy_table(group)
        main = [figures.learning_curves(group.losses[0], "error")]
        main.append(figures.learning_curves(group.losses[0], "loss"))
        if len(group.losses[0].records) > 1:
            main.append(figures.seed_strip(group, styles))
    reliability = [figures.reliability(group, m, styles) for m in METHODS]
    names = _class_names(group)
    confusions, confused = [], None
    if len(names) > figures.MOST_CLASSES:
        confused = figures.confused_pairs(group, names)
    elif len(names):
        confusions = figures.confusion_matrices(group, names)
    return dict(
        title=group.title,
        # The page shows the notes of the group in a box of their own.
        errors=dataclasses.replace(
            errors,
            notes=tuple(n for n in errors.notes if n not in group.notes),
        ),
        notes=(*group.notes, *signs(group.records)),
        verdicts=[sentence for _, sentence in verdicts_of(group)],
        classes=group.model
        and tables.class_table(group, tables.MOST_CLASS_ROWS),
        telling=_telling(group.model) if group.model else [],
        method=_method_pictures(group),
        figures=[f for f in main if f],
        folds=tables.fold_table(group),
        further=tables.further_table(group),
        metrics=metric_table(group),
        calibration=tables.calibration_table(group),
        reliability=[f for f in reliability if f],
        confusions=confusions,
        confused=confused,
        disagreements=_disagreements(group),
    )


def _telling(model):
    """Pairs of a heading and the pictures under it, for the page."""
    mistakes, hits = telling_images(model)
    return [
        (heading, [_picture(shown) for shown in found])
        for heading, found in (
            ("The most confident mistakes", mistakes),
            ("The least confident hits", hits),
        )
        if found
    ]


def _method_pictures(group):
    """The method's pictures of the first run that kept them, or None."""
    kept = (record.pictures("method") for record in group.records)
    found = next((arrays for arrays in kept if arrays is not None), None)
    if found is None:
        return None
    return dict(
        heading=str(found["heading"]),
        caption=str(found["caption"]),
        rows=[
            (str(title), [pictures.data_uri(image) for image in row])
            for title, row in zip(found["titles"], found["images"], strict=True)
        ],
    )


def _picture(shown):
    heat = shown.heat
    if heat is not None:
        heat = pictures.overlay_data_uri(shown.pixels, heat)
    return {
        **vars(shown),
        "right": shown.truth == shown.predicted,
        "image": pictures.data_uri(shown.pixels),
        "small": max(shown.pixels.shape[:2]) <= pictures.SMALL,
        "heat": heat,
    }


def _disagreements(group):
    found = figures.disagreements(group)
    return found and (pair_text(found[0]), found[1])


def _class_names(group):
    for result in group.losses:
        for record in result.records:
            if record.config.pair in result.evaluations:
                return record.data()["class_names"]
    return []


@contextlib.contextmanager
def _progress(console):
    """A context with a function (done, total) that shows a progress bar."""
    progress = require("rich.progress", "experiments").Progress(
        console=console,
        transient=True,
        disable=not console.is_terminal or console.quiet,
    )
    with progress:
        task = progress.add_task("Reading runs", total=None)
        yield lambda done, total: progress.update(
            task, completed=done, total=total
        )


def _tables(families):
    return [*tables.all_tables(families), *_of_groups(families, metric_table)]


def _of_groups(families, make):
    made = [make(group) for family in families for group in family.groups]
    return [table for table in made if table is not None]


def _records(families):
    return [r for f in families for group in f.groups for r in group.records]


def _title(families):
    losses = dict.fromkeys(loss for f in families for loss in f.losses)
    where = dict.fromkeys(
        " on ".join(filter(None, (f.config.network, f.config.dataset)))
        for f in families
    )
    names = listed([loss_label(loss) for loss in losses])
    return f"{names}: {listed(list(where))}"


def _distinct(texts):
    return sorted(set(texts))


def _data_text(record):
    dataset, samples = record.result["dataset"], plural(record.config.noun)
    parts = [f"{dataset['train']:,} training"]
    if dataset["held_out"]:
        parts.append(f"{dataset['held_out']:,} held-out")
    parts.append(f"{dataset['test']:,} test {samples}")
    return (
        f"{dataset['name']}: {listed(parts)}, {dataset['classes']:,} classes "
        f"(fingerprint {dataset['fingerprint']})"
    )


def _loss_text(loss):
    if own := own_parts(loss):
        return f"{own[1]}: {own[0]}"
    name, parameters = parse_loss(loss)
    if name == "ce":
        return "CE: cross-entropy"
    if name.startswith("nllr"):
        parameters = {"alpha": 0.0, "beta": 1.0}
    values = ", ".join(f"{key} {v:g}" for key, v in parameters.items())
    if control := control_of(loss):
        return f"{loss_label(loss)}: {CONTROL_NAMES[control[1]]}, {values}"
    return f"{loss_label(loss)}: {LOSS_NAMES[name]}, {values}"


def _network_text(record):
    network, weights = record.result["network"], record.config.weights
    start = "" if weights == "none" else f", from weights {weights}"
    return f"{network['name']}, {network['parameters']:,} parameters{start}"


def _recipe_text(config):
    if own := getattr(config, "own", None):
        recipe = config.recipe
        own = {k: v for k, v in json.loads(own).items() if k != "data"}
        own = {"epochs": recipe.epochs, "batch size": recipe.batch_size, **own}
        return "; ".join(f"{name} {value}" for name, value in own.items())
    values = dataclasses.asdict(config.recipe)
    del values["learning_rate"]  # It has its own line.
    values = {"recipe": values.pop("name"), **values}
    values["train_limit"] = config.train_limit
    values["test_limit"] = config.test_limit
    if config.reader != "memory":  # Image files.
        values["reader"] = config.reader
        values["crop_to_box"] = config.crop_to_box
    return ", ".join(
        f"{name.replace('_', ' ')} {_value_text(value)}"
        for name, value in values.items()
        if value not in (None, ())
    )


def _value_text(value):
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _rates_text(records):
    rates = sorted({r.config.recipe.learning_rate for r in records})
    return ", ".join(f"{rate:g}" for rate in rates)


def _seeds_text(seeds):
    seeds = sorted(seeds)
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 2 and seeds == list(range(first, last + 1)):
        return f"{first} to {last}"
    return ", ".join(map(str, seeds))


def _device_text(result):
    count = result["devices"]
    return f"{count} \N{MULTIPLICATION SIGN} {result['device']}"


def _versions_text(result):
    versions = (f"{k} {v}" for k, v in sorted(result["versions"].items()))
    return f"backend {result['backend']}; {', '.join(versions)}"


def _time_text(records):
    results = [record.result for record in records]
    seconds = sum(r["wall_seconds"] for r in results)
    rates = [r["images_per_second"] for r in results if r["images_per_second"]]
    text = f"{_duration(seconds)} for {counted(len(results), 'run')}"
    if rates:
        samples = plural(records[0].config.noun)
        text += f", {np.median(rates):,.0f} {samples}/s (median)"
    return text


def _duration(seconds):
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _dates_text(results):
    days = sorted({r["date"][:10] for r in results})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def commands(records):
    """The command lines that made the runs, each once."""
    made_by = (tuple(r.result["command"]) for r in records)
    return [shlex.join(c) for c in dict.fromkeys(made_by) if c]
