# SPDX-License-Identifier: Apache-2.0
"""Bags (mcap, sqlite3) -> recordings; serialized messages -> one .mcap file. Without rosbag2.

What is written describes our own message types inside the file, so that Foxglove, `ros2 bag play`
and rosbags open it without this package's sources. rosbags is imported where it is used: a node
that neither plays nor records runs without it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from occany_core.errors import InputError
from occany_ros.recording import Entry, Topic
from occany_ros.share import PACKAGE, share_folder

if TYPE_CHECKING:
    from rosbags.rosbag2 import Reader
    from rosbags.typesys.store import Typestore


class BagRecording:
    """A rosbag2 recording, read without rosbag2."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        with self._opened() as reader:
            if not reader.message_count:
                raise InputError(f"{path} holds no messages")
            self.topics = tuple(
                {
                    connection.topic: Topic(
                        connection.topic,
                        connection.msgtype,
                        is_latched=connection.topic.endswith("tf_static"),
                    )
                    for connection in reader.connections
                }.values()
            )
            self.start_ns = reader.start_time
            most = max(connection.msgcount for connection in reader.connections)
            self.duration_ns = round(reader.duration * most / max(1, most - 1))

    @contextmanager
    def _opened(self) -> Iterator["Reader"]:
        from rosbags.rosbag2 import Reader, ReaderError

        try:
            with Reader(self._path) as reader:
                yield reader
        except (ReaderError, OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{self._path} is not a readable bag ({error}); "
                "expected mcap or sqlite3 of rosbag2"
            ) from error

    def entries(self) -> Iterator[Entry]:
        """See `Recording.entries`."""
        with self._opened() as reader:
            for connection, stamp_ns, data in reader.messages():
                yield Entry(stamp_ns, connection.topic, bytes(data))


def message_types() -> "Typestore":
    """Return the type store of ROS 2 with this package's messages added."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted((share_folder() / "msg").glob("*.msg")):
        definitions = get_types_from_msg(path.read_text(), f"{PACKAGE}/msg/{path.stem}")
        store.register({name: d for name, d in definitions.items() if name not in store.fielddefs})
    return store


class ResultWriter:
    """Writes serialized messages; the file appears under its name only when all are in it."""

    def __init__(self, path: Path) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        self._path = path
        self._folder = path.with_name(f".{path.stem}_unfinished")
        shutil.rmtree(self._folder, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._store = message_types()
        self._writer = Writer(self._folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, object] = {}

    def write(self, topic: str, type_name: str, stamp_ns: int, data: bytes) -> None:
        """Append a serialized message with the time it was received."""
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, type_name, typestore=self._store
            )
        self._writer.write(self._connections[topic], stamp_ns, data)

    def close(self) -> None:
        """Finish the file and put it in place; without any message there is no file."""
        self._writer.close()
        files = list(self._folder.glob("*.mcap"))
        if self._connections and files:
            files[0].replace(self._path)
        shutil.rmtree(self._folder, ignore_errors=True)


def read_messages(path: Path) -> Iterator[tuple[str, bytes]]:
    """Give out topic and serialized message of everything in a file, in the order of reception.

    Raises:
        InputError: The file does not exist.
    """
    from rosbags.rosbag2 import Reader

    if not path.exists():
        raise InputError(f"{path} does not exist; nothing was received")
    with Reader(path) as reader:
        for connection, _, data in reader.messages():
            yield connection.topic, bytes(data)
