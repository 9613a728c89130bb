"""Parquet files: one row per sample, the split in a column."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equimodal.data.files.stored import SPELT, Stored
from equimodal.errors import SetupError, unknown
from equimodal.system.extras import require

if TYPE_CHECKING:
    from equimodal.data.files.stored import Array


def stored(path: Path) -> Stored:
    """Return what a file holds.

    A column ``split`` says train, val or test for every row. Lists of numbers, nested for more
    axes and equally long in all rows, are modalities; the others hold one value per sample.

    Raises:
        SetupError: it cannot be read, a value is missing, or lists differ in length.
    """
    require("data", "numpy", "pyarrow")
    import numpy as np

    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
    try:
        table = pq.read_table(path).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise SetupError(f"{path}: cannot be read: {error}") from error
    if "split" not in table.column_names:
        raise SetupError(
            f"{path}: expected a column split with train, val or test for every row, found "
            f"{', '.join(table.column_names)}"
        )
    split = np.array([SPELT.get(str(each), str(each)) for each in table["split"].to_pylist()])
    for each in sorted(set(split) - set(SPELT.values())):
        raise SetupError(f"{path}: split: " + unknown("split", each, SPELT))
    columns = {
        name: _array(table[name], f"{path}: {name}")
        for name in table.column_names
        if name != "split"
    }
    return Stored(
        path,
        {
            name: {part: column[split == part] for part in sorted(set(split))}
            for name, column in columns.items()
        },
    )


def _array(column: Any, name: str) -> Array:
    """Return a column as one array: lists in every row are an axis more."""
    import numpy as np

    pa: Any = import_module("pyarrow")
    pc: Any = import_module("pyarrow.compute")
    kinds = pa.types
    values = column.combine_chunks()
    shape = [len(values)]
    while True:
        if values.null_count:
            raise SetupError(
                f"{name}: expected a value in every row, {values.null_count} are missing"
            )
        kind = values.type
        if not (kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)):
            break
        lengths = pc.unique(pc.list_value_length(values)).to_pylist()
        if len(lengths) > 1:
            found = f"{min(lengths)} to {max(lengths)}"
            raise SetupError(
                f"{name}: expected lists of one length in all rows, found {found}: pad them to one "
                "length"
            )
        shape += lengths
        values = values.flatten()
    array: Array = values.to_numpy(zero_copy_only=False).reshape(shape)
    return array.astype(np.str_) if array.dtype.kind == "O" else array
