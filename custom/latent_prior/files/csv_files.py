"""Records as CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def to_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """CSV: a header of keys, then one line per record; missing values are empty."""
    out = io.StringIO()
    flat = [_flat(record) for record in records]
    names = list(dict.fromkeys(name for record in flat for name in record))
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}_{key}": inner for key, inner in value.items()}
        else:
            flat[name] = " ".join(f"{part:.4f}" for part in value) if isinstance(value, list | tuple) else value
    return flat
