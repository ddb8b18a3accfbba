# SPDX-License-Identifier: Apache-2.0
"""Reads .rrd files back: what stands in them by entity and component."""

import pyarrow
import rerun.dataframe


def contents(file, timeline="capture time"):
    """Map `entity:Archetype:component` to its last value; the timeline to all times [ns]."""
    recording = rerun.dataframe.load_recording(str(file))
    values = {}
    for static in (True, False):
        view = recording.view(index=None if static else timeline, contents="/**")
        table = (view.select_static() if static else view.select()).read_all()
        for name in table.column_names:
            column = table[name]
            if pyarrow.types.is_timestamp(column.type):
                column = column.cast(pyarrow.int64())
            kept = [value for value in column.to_pylist() if value is not None]
            if kept:
                values[name] = kept if name == timeline else kept[-1]
    return values
