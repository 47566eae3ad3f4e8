"""Shows the tables of the paper beside the results of our runs.

paper | ours, mean and standard deviation (n) | difference. Uses only records
and imports no backend. A run counts for a row if it has the protocol of the
row: the same epochs, recipe and limits.
"""

import collections
import dataclasses
import pathlib

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.analysis import tables
from crl_keras.experiments.analysis.tables import NONE
from crl_keras.experiments.analysis.tables import PLUS_MINUS
from crl_keras.experiments.analysis.tables import Cell
from crl_keras.experiments.analysis.tables import Column
from crl_keras.experiments.analysis.tables import Table
from crl_keras.experiments.analysis.tables import mean_std_cell
from crl_keras.experiments.measures import results
from crl_keras.experiments.measures import statistics
from crl_keras.experiments.paper.tables import P_VALUE
from crl_keras.experiments.paper.tables import SOURCE
from crl_keras.experiments.paper.tables import TABLES
from crl_keras.experiments.paper.tables import printed_std
from crl_keras.experiments.paper.tables import protocol_key
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.words import counted
from crl_keras.experiments.words import listed
from crl_keras.experiments.words import p_text
from crl_keras.experiments.words import points


@dataclasses.dataclass(frozen=True)
class Ours:
    """The results of our runs for one row.

    Attributes:
        last: `results.Summary` of the last epoch in percent. If there are
            folds, it is over the folds, each averaged over its seeds.
        best: `results.Summary` of the best epoch on the test set, or None if
            the records do not have it.
        planned: Number of runs, or folds, that the scale requires.
        diverged: Number of runs that diverged.
        test: `results.PairedTTest` of a p-value, otherwise None.
        results: Tuple of dicts of the result.json files used.
        left_out: Ids of runs left out because of their backend, precision,
            reader or number of devices.
    """

    last: results.Summary
    best: results.Summary | None
    planned: int
    diverged: int
    test: results.PairedTTest | None
    results: tuple
    left_out: frozenset


def write_paper_report(names, protocol, folder, show=True, console=None):
    """Writes NAME.md and NAME.csv of each table into FOLDER/paper.

    Args:
        names: Keys of `paper.TABLES`.
        protocol: `paper.Protocol` of the runs to show.
        folder: Folder of the records; it need not exist.
        show: Print the tables.
        console: `rich.console.Console` to print on, or None for a new one.

    Returns:
        Tuple of the paths written.

    Raises:
        ValueError: If a record cannot be read, or runs of one row were made
            from different data.
    """
    folder = pathlib.Path(folder)
    console = console or require("rich.console").Console(quiet=not show)
    records = read_records(folder) if folder.is_dir() else []
    written = []
    (folder / "paper").mkdir(parents=True, exist_ok=True)
    for name in names:
        table = paper_table(TABLES[name], protocol, records)
        console.print(tables.to_rich(table, console.width))
        for note in table.notes:
            console.print(f"- {note}", markup=False, highlight=False)
        console.print()
        for suffix, text in (
            (".md", tables.to_markdown(table)),
            (".csv", tables.to_csv([table])),
        ):
            path = folder / "paper" / (name + suffix)
            path.write_text(text, encoding="utf-8", newline="\n")
            written.append(path)
    console.print("Written:", highlight=False)
    for path in written:
        console.print(
            f"  {path}", markup=False, highlight=False, soft_wrap=True
        )
    return tuple(written)


def paper_table(spec, protocol, records):
    """Makes the `Table` of a `PaperTable`: paper, ours, difference.

    Args:
        spec: `PaperTable`.
        protocol: `Protocol` of the runs to show.
        records: `Record`s, as `read_records` returns them.

    Raises:
        ValueError: If compared rows were made from different data.
    """
    entries = spec.entries(protocol)
    found = by_protocol(records, protocol)
    settings = chosen_settings(entries, found)
    _check_data(entries, found, settings)
    ours = [
        _ours(entry, found, settings[compared(entry)])
        if entry.configs
        else None
        for entry in entries
    ]
    smoke = protocol.scale == "smoke"
    names, titles = _name_columns(entries)
    title = f"Table {spec.number} of {SOURCE}: {spec.title}"
    columns = (
        *names,
        Column("Paper", ("paper", "paper_std")),
        Column(
            "Ours, last epoch",
            ("mean", "std", "n", "planned", "diverged"),
            short="ours,\nlast epoch",
        ),
        Column("Difference", ("difference",), short="differ-\nence"),
        Column(
            "Ours, best epoch on the test set",
            ("best_mean", "best_std"),
            short="ours, best\non test",
        ),
    )
    rows = tuple(
        (
            *(Cell(text, (text,)) for text in _names(entry)),
            _paper_cell(entry),
            _ours_cell(entry, o),
            _difference_cell(entry, o, smoke),
            _best_cell(o),
        )
        for entry, o in zip(entries, ours, strict=True)
    )
    notes = (
        *_notes(protocol, titles, entries, ours, records),
        *spec.notes,
    )
    context = {"table": spec.number, "scale": protocol.scale}
    title += f" (scale {protocol.scale}{': no result' if smoke else ''})"
    return Table(title, columns, rows, notes, context)


def _names(entry):
    return (*entry.names, entry.metric.title)


def _name_columns(entries):
    """Makes the columns of names; only CSV shows columns of equal cells.

    Returns the columns, and sentences with the values of the hidden columns.
    """
    columns, said = [], []
    for i, (title, name) in enumerate(
        (
            ("Data", "dataset"),
            ("Network", "network"),
            ("Loss", "loss"),
            ("Number", "metric"),
        )
    ):
        values = {_names(entry)[i] for entry in entries}
        if len(values) == 1:
            said.append(f"{title}: {values.pop()}.")
            title = ""
        columns.append(Column(title, (name,), numeric=False))
    return columns, said


def _ours(entry, found, setting):
    """Makes the `Ours` of an `Entry` from its runs of one setting."""
    runs = by_setting(found, entry.configs)
    records = runs.get(setting, [])
    others = (of for key, of in runs.items() if key != setting)
    versus = []
    if entry.versus:
        versus = by_setting(found, entry.versus).get(setting, [])
    done = [r for r in records if r.result["status"] == "done"]
    planned = {_unit(config) for config in entry.configs}
    last = {r.config.pair: _last(r, entry.metric) for r in done}
    best = {r.config.pair: _best(r, entry.metric) for r in done}
    test = None
    if entry.metric is P_VALUE:
        of_other = {
            r.config.pair: _last(r, entry.metric)
            for r in versus
            if r.result["status"] == "done"
        }
        shared = sorted(set(last) & set(of_other))
        test = statistics.paired_t_test(
            np.array([last[pair] for pair in shared], np.float64),
            np.array([of_other[pair] for pair in shared], np.float64),
        )
    return Ours(
        last=_over_folds(last),
        best=None if None in best.values() else _over_folds(best),
        planned=len(planned),
        diverged=len(records) - len(done),
        test=test,
        results=tuple(r.result for r in (*records, *versus)),
        left_out=frozenset(r.config.run_id for of in others for r in of),
    )


def _unit(config):
    """The fold of a run if it has one, otherwise its seed."""
    return config.seed if config.fold is None else config.fold


def by_protocol(records, protocol):
    """{`protocol_key`: records} of the records that a `Protocol` shows."""
    found = collections.defaultdict(list)
    for record in records:
        if protocol.shows(record.config):
            found[protocol_key(record.config)].append(record)
    return found


def by_setting(found, configs):
    """{(backend, precision, reader, devices): records} of one row."""
    settings = collections.defaultdict(list)
    for record in found.get(protocol_key(configs[0]), ()):
        config = record.config
        setting = (
            config.backend,
            config.precision,
            config.reader,
            config.devices,
        )
        settings[setting].append(record)
    return settings


def compared(entry):
    """The data set and network, which the rows of a comparison share."""
    config = entry.configs[0]
    return config.dataset, config.network


def chosen_settings(entries, found):
    """Chooses {result of `compared`: setting}; None if there are no runs.

    Compared rows must have one setting. Otherwise their backends would differ
    and not only their losses. The setting is the one with the most runs in the
    row with the fewest runs of it.
    """
    rows = collections.defaultdict(list)
    for entry in entries:
        if entry.configs:
            rows[compared(entry)].append(by_setting(found, entry.configs))
    return {
        key: max(
            sorted(set().union(*group)),
            key=lambda setting: (
                min(len(row.get(setting, ())) for row in group),
                sum(len(row.get(setting, ())) for row in group),
            ),
            default=None,
        )
        for key, group in rows.items()
    }


def _check_data(entries, found, settings):
    """Raises ValueError if compared rows were made from different data."""
    made_of = {}
    for entry in entries:
        if not entry.configs:
            continue
        setting = settings[compared(entry)]
        # With --only, the other loss of a p-value may not be a row.
        records = by_setting(found, entry.configs).get(setting, [])
        if entry.versus:
            versus = by_setting(found, entry.versus).get(setting, [])
            records = [*records, *versus]
        for record in records:
            fingerprint = record.result["dataset"]["fingerprint"]
            key = (*compared(entry), record.config.fold)
            first = made_of.setdefault(key, record)
            if first.result["dataset"]["fingerprint"] != fingerprint:
                raise ValueError(
                    f"{record.path} and {first.path} are compared but were "
                    "made from different data: keep them in different folders"
                )


def _last(record, metric):
    """The number of a run in percent, or None if it was not recorded."""
    value = record.result["last"].get(metric.key)
    if value is None:
        return None
    return 100 * (1 - value if metric.complement else value)


def _best(record, metric):
    error = record.result["best"]["test_error"]
    if metric.key == "error":
        return 100 * error
    return 100 * (1 - error) if metric.key == "accuracy" else None


def _over_folds(values):
    """Summarises `{seed: value}`, or `{(seed, fold): value}` by fold."""
    by_unit = collections.defaultdict(list)
    for pair, value in values.items():
        unit = pair[1] if isinstance(pair, tuple) else pair
        if value is not None:
            by_unit[unit].append(value)
    means = [np.mean(by_unit[unit]) for unit in sorted(by_unit)]
    return statistics.summarise(np.array(means, np.float64))


def _paper_cell(entry):
    printed = entry.printed
    if printed is None or not printed.value:
        return Cell(NONE, (None, None))
    text, std = printed.value, printed_std(printed)
    if std is not None:
        text += f" {PLUS_MINUS} {std:.2f}"
    if "variance" in printed.note:
        text += f" (var. {printed.spread})"
    strong = "bold" in printed.note
    return Cell(text, (printed.number, std), strong=strong)


def _ours_cell(entry, ours):
    if ours is None:
        return Cell(entry.missing, (None,) * 5)
    last = ours.last
    values = (last.mean, last.std, last.n, ours.planned, ours.diverged)
    if ours.test is not None:
        p, n = ours.test.p, ours.test.n
        values = (p, None, n, ours.planned, ours.diverged)
        return Cell(f"{p_text(p)} ({n} pairs)", values)
    if last.n == 0 and not ours.diverged:
        return Cell(NONE, values)
    count = f"{last.n}"
    if last.n < ours.planned:
        count += f" of {ours.planned}"
    if ours.diverged:
        count += f", {ours.diverged} diverged"
    text = mean_std_cell(last, scale=1).text
    return Cell(f"{text} ({count})", values)


def _difference_cell(entry, ours, smoke):
    printed = entry.printed
    if (
        smoke
        or ours is None
        or ours.test is not None
        or ours.last.mean is None
        or printed is None
        or printed.number is None
    ):
        return Cell(NONE, (None,))
    difference = ours.last.mean - printed.number
    return Cell(points(difference / 100, sign=True), (difference,))


def _best_cell(ours):
    if ours is None or ours.best is None or ours.test is not None:
        return Cell(NONE, (None, None))
    return mean_std_cell(ours.best, scale=1)


def _notes(protocol, titles, entries, ours, records):
    if titles:
        yield " ".join(titles)
    yield protocol.about
    yield (
        f"Ours: mean {PLUS_MINUS} standard deviation over the seeds, or over "
        "the folds (their number). Difference: ours, last epoch, minus the "
        "paper's, in points. The best epoch is chosen on the test set, so it "
        "is optimistic. The paper does not say which epoch it reports; most "
        "likely it is the best one."
    )
    if any("bold" in e.printed.note for e in entries if e.printed):
        yield "Marked numbers are bold in the paper."
    if protocol.clamped:
        yield "NLLR and CRL have the clamps of the released code."
    found = [o for o in ours if o is not None]
    results = [r for o in found for r in o.results]
    if results:
        yield from _provenance(results)
    left_out = frozenset().union(*(o.left_out for o in found))
    if left_out:
        yield (
            f"{counted(len(left_out), 'run')} of another backend, precision, "
            "reader or number of devices than the other runs on the same data "
            "and network: not shown."
        )
    shown = [r for r in records if protocol.shows(r.config)]
    if len(shown) < len(records):
        yield (
            f"{counted(len(records) - len(shown), 'run')} in the folder are "
            "of other seeds or another backend, precision, reader or number "
            "of devices than requested: not shown."
        )
    others = _other_protocols(protocol, shown)
    if others:
        yield (
            f"{counted(others, 'run')} in the folder are of another scale or "
            "protocol: not shown."
        )


def _provenance(results):
    def distinct(values):
        return listed(sorted(set(values)))

    yield (
        f"Data: {distinct(r['dataset']['name'] for r in results)}. "
        f"Device: {distinct(r['device'] for r in results)}; "
        f"{distinct(r['precision'] for r in results)}; Keras "
        f"{distinct(r['versions'].get('keras', '?') for r in results)} on "
        f"{distinct(r['backend'] for r in results)}."
    )


def _other_protocols(protocol, records):
    every = dataclasses.replace(protocol, only=())
    wanted = {
        protocol_key(config)
        for table in TABLES.values()
        for entry in table.entries(every)
        for config in (*entry.configs[:1], *entry.versus[:1])
    }
    return sum(protocol_key(r.config) not in wanted for r in records)
