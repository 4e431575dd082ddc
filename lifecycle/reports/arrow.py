"""Arrow and Parquet: the types of the catalogue kept, its comments as metadata. Needs pyarrow, the extra `parquet`."""

from __future__ import annotations

import io
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import errors
from lifecycle.columns import UtcDateTime
from lifecycle.reports import cells, selection, sources, streams
from lifecycle.reports.chunks import Chunk

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    import pyarrow as pa

    from lifecycle.database import Database
    from lifecycle.reports.filters import Filters
    from lifecycle.views import View

_ROW_GROUP: Final = 10_000
"""Rows that a reader decodes at once, and that the writer holds: with more of them it would take over 150 MB."""

_UNIQUE: Final = frozenset(
    {
        "appointment_id",
        "case:concept:name",
        "command_id",
        "delivery_id",
        "details",
        "hash",
        "prev_hash",
        "zocdoc_request_id",
    }
)
"""Text that seldom comes twice in a row group: a dictionary of it would only take memory."""


def check() -> None:
    """Raise `ConfigurationError` if pyarrow is not installed."""
    _pyarrow()


def table(database: Database, view: str, filters: Filters) -> pa.Table:
    """Read a view as an Arrow table, all of it. Raises `InvalidArgument`, `ConfigurationError` without pyarrow."""
    source = sources.named(view)
    return _pyarrow().Table.from_batches(_batches(database, source, filters), schema=schema(source))


def chunks(database: Database, view: View, filters: Filters) -> Generator[Chunk, None, None]:
    """Iterate over a view as pieces of a Parquet file. The read ends with the iterator: exhaust or close it."""
    pa = _pyarrow()
    from pyarrow import parquet  # noqa: PLC0415 # an extra

    sink = _Sink()
    repeated = [each.name for each in view.table.columns if each.name not in _UNIQUE]
    with parquet.ParquetWriter(sink, schema(view), compression="zstd", use_dictionary=repeated) as writer:
        for group in _groups(_batches(database, view, filters)):
            made = pa.Table.from_batches(group)
            writer.write_table(made, row_group_size=_ROW_GROUP)
            pa.default_memory_pool().release_unused()
            yield Chunk(sink.taken(), made.num_rows)
    yield Chunk(sink.taken(), 0)


def schema(view: View) -> pa.Schema:
    """Give a view's columns as Arrow types, with their comments as metadata under `comment`."""
    pa = _pyarrow()
    columns = view.table.columns
    made = [pa.field(each.name, _type(each.type), metadata={"comment": each.comment or ""}) for each in columns]
    return pa.schema(made, metadata={"view": view.name, "comment": view.table.comment or ""})


def _batches(database: Database, view: View, filters: Filters) -> Iterator[pa.RecordBatch]:
    pa = _pyarrow()
    dialect = database.engine.dialect.name
    statement = selection.statement(view, filters, dialect=dialect, cells=cells.as_arrow(view, dialect=dialect))
    made = schema(view)
    for block in streams.blocks(database, statement):
        columns = zip(*block, strict=True)
        arrays = [_array(values, kind) for values, kind in zip(columns, made.types, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=made)


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    while group := list(islice(batches, _ROW_GROUP // streams.BLOCK)):
        yield group


def _array(values: Sequence[object], kind: pa.DataType) -> pa.Array:
    """Let Arrow read what SQLite stores otherwise: instants and dates as text, Booleans as numbers."""
    pa = _pyarrow()
    given = pa.array(values)
    return given if given.type == kind else given.cast(kind)


def _type(kind: sa.types.TypeEngine[Any]) -> pa.DataType:
    name = next((name for known, name in _TYPES.items() if isinstance(kind, known)), "string")
    return _pyarrow().type_for_alias(name) if name != _INSTANT else _pyarrow().timestamp("us", tz="UTC")


_INSTANT: Final = "timestamp"
_TYPES: Final[Mapping[type[Any], str]] = {
    UtcDateTime: _INSTANT,
    sa.Boolean: "bool",
    sa.Date: "date32",
    sa.BigInteger: "int64",
    sa.SmallInteger: "int16",
    sa.Integer: "int32",
    sa.Float: "float64",
}
"""Arrow's name of each type, the special before the general; whatever else there is, is text."""


def _pyarrow() -> Any:  # noqa: ANN401 # a module without types
    try:
        import pyarrow as pa  # noqa: PLC0415 # an extra
    except ModuleNotFoundError:
        problem = "pyarrow is not installed; pip install 'zocdoc-lifecycle[parquet]'"
        raise errors.ConfigurationError(problem=problem) from None
    return pa


class _Sink(io.RawIOBase):
    """A file that hands on what was written to it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 # any buffer
        self._parts.append(bytes(data))
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        """Give what was written since the last time."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
