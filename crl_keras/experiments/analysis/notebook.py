"""Shows a comparison in a notebook: one piece of HTML without links.

Imports no backend.
"""

import html
import zlib

from crl_keras.experiments.analysis.figures import with_ids
from crl_keras.experiments.analysis.metrics import metric_table
from crl_keras.experiments.analysis.tables import effect_table
from crl_keras.experiments.analysis.tables import error_table
from crl_keras.experiments.analysis.tables import rate_table
from crl_keras.experiments.analysis.verdicts import verdict

# The colours are set because the notebook may have a dark theme.
STYLE = (
    "background:#fff;color:#1a1a1a;padding:0.8em 1em;border-radius:4px;"
    "font-family:system-ui,sans-serif;font-size:14px;line-height:1.45;"
    "max-width:60em;overflow-x:auto"
)
CELL = (
    "white-space:nowrap;padding:0.25em 0.7em;border-top:1px solid #ddd;"
    "color:#1a1a1a"
)
TABLE = "border-collapse:collapse;font-size:13px"
FAINT = "color:#595959;font-size:12px"


def to_notebook(families, figure=None):
    """Makes HTML of the verdicts, the tables and a figure.

    Args:
        families: Tuple of `Family`, from `compare`.
        figure: `figures.Figure` to show below the tables, or None.
    """
    parts = []
    for family in families:
        if family.own:
            parts += _verdicts(family.own)
            parts.append(_table(error_table(family.own), family.own.notes))
        parts.append(_table(effect_table(family)))
        parts.append(_table(rate_table(family)))
        for group in family.groups:
            parts += _verdicts(group)
            parts.append(_table(error_table(group), group.notes))
            parts.append(_table(metric_table(group)))
    if figure is not None:
        # Each output of a notebook needs ids of its own.
        prefix = f"n{zlib.crc32(figure.svg.encode()):08x}"
        svg = with_ids(figure.svg, prefix)
        parts.append(f'<div style="max-width:28em">{svg}</div>')
        parts.append(f'<p style="{FAINT}">{html.escape(figure.caption)}</p>')
    return f'<div style="{STYLE}">{"".join(parts)}</div>'


def _verdicts(group):
    sentences = [verdict(c) for c in group.comparisons]
    return [f"<p><b>{html.escape(s)}</b></p>" for s in sentences]


def _table(table, notes=()):
    if table is None:
        return ""
    columns, rows = table.shown
    keep = [i for i, column in enumerate(columns) if not column.optional]
    columns = [columns[i] for i in keep]
    rows = [[row[i] for i in keep] for row in rows]
    head = "".join(_cell("th", column.title, column) for column in columns)
    lines = [f"<tr>{head}</tr>"]
    for row in rows:
        cells = (
            _cell("td", cell.text, column, cell.strong)
            for cell, column in zip(row, columns, strict=True)
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    said = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    said = said and f'<ul style="{FAINT}">{said}</ul>'
    return (
        f'<p style="margin-bottom:0.2em">{html.escape(table.title)}</p>'
        f'<table style="{TABLE}">{"".join(lines)}</table>'
        f"{said}"
    )


def _cell(tag, text, column, strong=False):
    side = "right" if column.numeric else "left"
    text = html.escape(text)
    text = f"<b>{text}</b>" if strong else text
    if tag == "th":
        side += ";white-space:normal;vertical-align:bottom"
    return f'<{tag} style="{CELL};text-align:{side}">{text}</{tag}>'
