"""What a bulk run knows: an SQLite file that outlives it, however it ends.

Every finished layer and image is one small transaction. A rerun reads what was done; a process
that was killed loses what was under way and nothing else. Rows that outlive a run have a checksum:
one that has been spoilt since is as good as absent.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from stargz.errors import StateError

_APPLICATION = 0x53475A42  # "SGZB", in the file's header
_VERSION = 2
FAILED = ("failed", "throttled")  # what becomes of images that are not converted
DONE = ("converted", "indexed", "not indexable", "unchanged")  # of those that have a report
_PATIENCE = 0.3  # seconds that another process may need to end

_SCHEMA = """
CREATE TABLE layers (
    root TEXT, sources TEXT, options TEXT, report TEXT NOT NULL, place TEXT NOT NULL,
    made INTEGER NOT NULL, used INTEGER NOT NULL, bytes_before INTEGER, bytes_after INTEGER,
    status TEXT, sum TEXT, PRIMARY KEY (root, sources, options)
) WITHOUT ROWID;
CREATE TABLE images (
    destination TEXT PRIMARY KEY, source TEXT NOT NULL, source_digest TEXT, options TEXT,
    digest TEXT, status TEXT NOT NULL, error TEXT, seconds REAL, size_before INTEGER,
    size_after INTEGER, report TEXT, sum TEXT
) WITHOUT ROWID;
CREATE TABLE uploads (url TEXT PRIMARY KEY, repository TEXT NOT NULL, sum TEXT) WITHOUT ROWID;
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, source TEXT NOT NULL, destination TEXT, started REAL NOT NULL,
    seconds REAL, totals TEXT
);
"""
# The columns that `sum` is of, which begin with the key.
_SEALED = {
    "layers": (
        *("root", "sources", "options", "report"),
        *("place", "bytes_before", "bytes_after", "status"),
    ),
    "images": (
        *("destination", "source", "source_digest", "options", "digest", "status"),
        *("error", "seconds", "size_before", "size_after", "report"),
    ),
    "uploads": ("url", "repository"),
}
# What is read of every report, and its type; lists, of items of a type, may be absent.
_REPORTS: dict[str, dict[str, type | tuple[type, type]]] = {
    "layers": {"source_size": int, "size": int, "status": str},
    "images": {
        **dict.fromkeys(("destination", "source_digest", "digest", "status"), str),
        **dict.fromkeys(("size_before", "size_after"), int),
        **{"layers": (list, dict), "stale": (list, dict), "warnings": (list, str)},
    },
}
_MAGIC = b"SQLite format 3\0"

_log = logging.getLogger("stargz")

# Of the run under way, and of the last one until the next begins.
_OUTCOMES = """
CREATE {kind} TABLE IF NOT EXISTS outcomes (
    number INTEGER PRIMARY KEY, source TEXT NOT NULL, destination TEXT NOT NULL,
    status TEXT NOT NULL, error TEXT, transient INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS {where}outcomes_destination ON outcomes (destination);
"""


@dataclass(frozen=True, slots=True)
class LayerKey:
    """What a finished layer is known by: where its blob can be had from without converting (a
    registry, or the layouts of this machine), what it was made of, and how."""

    root: str
    sources: str
    options: str


@dataclass(frozen=True, slots=True)
class KnownLayer:
    """A finished layer: its report, and the repository that has its blob."""

    report: dict[str, Any]
    place: str


@dataclass(frozen=True, slots=True)
class KnownImage:
    """What was once made of an image at a destination."""

    source: str
    source_digest: str
    options: str
    digest: str
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image in this run; `report` is that of the conversion, which may have
    been an earlier run's."""

    number: int
    source: str
    destination: str
    status: str  # running, one of DONE or FAILED, skipped, to do
    error: str | None
    seconds: float
    report: dict[str, Any] | None


class State:
    """A state file, kept from all others as long as it is open; any number of threads may use it.

    `path` None keeps everything in memory. With `read_only` the file is only read, and need not
    be there. Raises StateError for a file that another process uses, that a newer version wrote,
    or that is none: it is left as it is.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, read_only: bool = False
    ) -> None:
        self.name: str = ":memory:" if path is None else os.fspath(path)
        self.run: int = 0
        self._lock = threading.RLock()
        known = path is not None and (Path(path).exists() or not read_only)
        if known and not read_only:
            _make_folder(Path(self.name).parent)
        mode = "rw" if read_only else "rwc"  # SQLite cannot keep others out with "ro"
        target = f"file:{quote(os.path.abspath(self.name))}?mode={mode}" if known else ":memory:"  # noqa: PTH100
        with self._explained():
            self._db = sqlite3.connect(
                target,
                uri=known,
                timeout=_PATIENCE,
                isolation_level=None,
                check_same_thread=False,
            )
        # A row whose text is none any more is one that is spoilt, and no reason to end.
        self._db.text_factory = lambda data: data.decode("utf-8", "replace")
        try:
            with self._explained():
                self._prepare(known, read_only and known)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, known: bool, read_only: bool) -> None:
        run = self._db.execute
        # Before the first read: the file is then never shared, and needs no -shm beside it.
        run("PRAGMA locking_mode=EXCLUSIVE")
        tables = self._number("SELECT count(*) FROM sqlite_schema")
        version = self._number("PRAGMA user_version")
        application = self._number("PRAGMA application_id")
        ours = application == _APPLICATION
        # What a process leaves that is killed before its first transaction is new, too.
        blank = not (tables or version or application) and (not known or self._is_database())
        if not ours and not blank:
            raise StateError(f"{self.name}: not a state file of stargz; name another (--state)")
        if ours and version != _VERSION:
            which = "a newer" if version > _VERSION else "an older"
            raise StateError(
                f"{self.name}: {which} version of stargz wrote this state file (its version is "
                f"{version}, known is {_VERSION}); use that one, or name another (--state)"
            )
        run("PRAGMA temp_store=MEMORY")
        run("CREATE TEMP TABLE plans (number INTEGER PRIMARY KEY, plan TEXT NOT NULL)")
        if read_only:
            self._db.executescript(_OUTCOMES.format(kind="TEMP", where="temp."))
            return
        # What a killed process wrote is there; a machine that loses power may lose the last.
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        run("BEGIN IMMEDIATE")
        if not ours:
            for statement in _SCHEMA.split(";"):
                run(statement)
            run(f"PRAGMA application_id={_APPLICATION}")
            run(f"PRAGMA user_version={_VERSION}")
        for statement in _OUTCOMES.format(kind="", where="").split(";"):
            run(statement)
        run("COMMIT")

    def _is_database(self) -> bool:
        """Whether the file is empty or SQLite's (who takes one of a few bytes for an empty one)."""
        with Path(self.name).open("rb") as file:
            return file.read(len(_MAGIC)) in (b"", _MAGIC)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StateError(f"{self.name}: {_meaning(str(error))}") from error
        except UnicodeDecodeError as error:  # SQLite's own message, about names that are spoilt
            raise StateError(f"{self.name}: {_meaning('malformed schema')}") from error

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            yield self._db

    def _number(self, query: str, *values: object) -> int:
        return int(self._db.execute(query, values).fetchone()[0] or 0)

    def _row(self, db: sqlite3.Connection, table: str, *key: object) -> dict[str, Any] | None:
        """The sealed columns of a row, unless they are not what they were; then it is forgotten."""
        columns = _SEALED[table]
        where = " AND ".join(f"{name} = ?" for name in columns[: len(key)])
        found = db.execute(
            f"SELECT {', '.join(columns)}, sum FROM {table} WHERE {where}", key
        ).fetchone()
        if found is None:
            return None
        if found[-1] == _sum(found[:-1]):
            row = dict(zip(columns, found, strict=False))
            try:
                if row.get("report") is None:
                    return row
                row["report"] = json.loads(row["report"])
                if _is_report(table, row["report"]):
                    return row
            except (ValueError, TypeError, RecursionError):
                pass
        _log.warning("%s: the row of %s is damaged: done anew", self.name, key[:2][-1])
        if self.run:
            db.execute(f"DELETE FROM {table} WHERE {where}", key)
        return None

    def _seal(self, db: sqlite3.Connection, table: str, *key: object) -> None:
        """A row is as it should be; in the transaction that makes it so."""
        columns = _SEALED[table]
        where = " AND ".join(f"{name} = ?" for name in columns[: len(key)])
        row = db.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE {where}", key).fetchone()
        db.execute(f"UPDATE {table} SET sum = ? WHERE {where}", (_sum(row), *key))

    # --- runs ---------------------------------------------------------------------------

    def begin(self, source: str, destination: str | None, started: float) -> None:
        """A run begins: the outcomes of the last are forgotten."""
        with self._using() as db:
            db.execute("BEGIN")
            db.execute("DELETE FROM outcomes")
            made = db.execute(
                "INSERT INTO runs (source, destination, started) VALUES (?, ?, ?)",
                (source, destination, started),
            )
            self.run = made.lastrowid or 0
            db.execute("COMMIT")

    def end(self, seconds: float, totals: dict[str, Any]) -> None:
        """The run has come to its end."""
        with self._using() as db:
            db.execute(
                "UPDATE runs SET seconds = ?, totals = ? WHERE run = ?",
                (seconds, json.dumps(totals), self.run),
            )

    # --- images -------------------------------------------------------------------------

    def claim(self, source: str, destination: str) -> int:
        """The number of an image of this run that begins now."""
        with self._using() as db:
            made = db.execute(
                "INSERT INTO outcomes (source, destination, status) VALUES (?, ?, 'running')",
                (source, destination),
            )
            return made.lastrowid or 0

    def claimed(self, destination: str) -> str | None:
        """The source that is converted to this destination in this run."""
        with self._using() as db:
            found = db.execute(
                "SELECT source FROM outcomes WHERE destination = ? AND destination <> '' "
                "ORDER BY number LIMIT 1",
                (destination,),
            ).fetchone()
            return str(found[0]) if found else None

    def image(self, destination: str) -> KnownImage | None:
        """What was converted to a destination, in whichever run."""
        with self._using() as db:
            if not self.run and not self._has("images"):
                return None
            found = self._row(db, "images", destination)
            if found is None or found["digest"] is None or found["report"] is None:
                return None
            names = ("source", "source_digest", "options", "digest", "report")
            return KnownImage(*(found[name] for name in names))

    def finish(
        self,
        number: int,
        status: str,
        seconds: float,
        *,
        options: str = "",
        report: dict[str, Any] | None = None,
        error: str | None = None,
        transient: bool = False,
    ) -> None:
        """An image's outcome. `report` is that of a conversion that was done."""
        with self._using() as db:
            db.execute("BEGIN")
            db.execute(
                "UPDATE outcomes SET status = ?, seconds = seconds + ?, error = ?, transient = ? "
                "WHERE number = ?",
                (status, seconds, error, transient, number),
            )
            source, destination = db.execute(
                "SELECT source, destination FROM outcomes WHERE number = ?", (number,)
            ).fetchone()
            if report is not None:
                db.execute(
                    "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, '')",
                    (
                        destination,
                        source,
                        report["source_digest"],
                        options,
                        report["digest"],
                        status,
                        seconds,
                        report["size_before"],
                        report["size_after"],
                        json.dumps(report),
                    ),
                )
            elif error is not None and self.run and destination:
                # What is there of it from an earlier run is kept.
                db.execute(
                    "INSERT INTO images (destination, source, status, error, seconds) "
                    "VALUES (?, ?, ?, ?, ?) ON CONFLICT (destination) DO UPDATE SET "
                    "source = excluded.source, status = excluded.status, error = excluded.error",
                    (destination, source, status, error, seconds),
                )
            if report is not None or (error is not None and self.run and destination):
                self._seal(db, "images", destination)
            db.execute("COMMIT")

    def plan(self, number: int, plan: dict[str, Any]) -> None:
        """What a dry run found that there is to do for an image: its outcome's report."""
        with self._using() as db:
            db.execute("INSERT INTO plans VALUES (?, ?)", (number, json.dumps(plan)))

    def transient(self) -> list[tuple[int, str, str]]:
        """Number, source and destination of the images that may succeed when tried again."""
        with self._using() as db:
            return db.execute(
                "SELECT number, source, destination FROM outcomes WHERE transient ORDER BY number"
            ).fetchall()

    def outcomes(self, status: str | None = None, *, reports: bool = True) -> Iterator[Outcome]:
        """The images of this run, in the order in which they began; read one at a time."""
        stored = reports and bool(self.run)
        select = (
            "SELECT number, source, destination, status, error, seconds FROM outcomes "
            "WHERE number > ? AND (? IS NULL OR status = ?) ORDER BY number LIMIT 1"
        )
        last = 0
        while True:
            with self._using() as db:
                row = db.execute(select, (last, status, status)).fetchone()
                if row is None:
                    return
                done = stored and row[3] in DONE
                image = self._row(db, "images", row[2]) if done else None
                plan = db.execute("SELECT plan FROM plans WHERE number = ?", row[:1]).fetchone()
            last = row[0]
            report = image["report"] if image is not None else None
            if plan is not None:
                report = json.loads(plan[0])
            yield Outcome(row[0], row[1], row[2], row[3], row[4], row[5], report)

    # --- layers -------------------------------------------------------------------------

    def layer(self, key: LayerKey, *, use: bool = True) -> KnownLayer | None:
        """A finished layer, of which this run makes `use`."""
        with self._using() as db:
            if not self.run and not self._has("layers"):
                return None
            values = key.root, key.sources, key.options
            found = self._row(db, "layers", *values)
            if found is None:
                return None
            if self.run and use:
                db.execute(
                    "UPDATE layers SET used = ?1 WHERE root = ? AND sources = ? AND options = ? "
                    "AND used <> ?1",
                    (self.run, *values),
                )
            return KnownLayer(found["report"], found["place"])

    def keep_layer(
        self, key: LayerKey, report: dict[str, Any], place: str, *, made: bool = True
    ) -> None:
        """A layer is finished; or, where nothing was made of it in this run, found to be."""
        run = self.run if made else 0
        with self._using() as db:
            db.execute("BEGIN")
            db.execute(
                "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')",
                (
                    key.root,
                    key.sources,
                    key.options,
                    json.dumps(report),
                    place,
                    run,
                    run,
                    report["source_size"],
                    report["size"],
                    report["status"],
                ),
            )
            self._seal(db, "layers", key.root, key.sources, key.options)
            db.execute("COMMIT")

    def forget_layer(self, key: LayerKey) -> None:
        """A finished layer's blob is gone from where it was."""
        with self._using() as db:
            db.execute(
                "DELETE FROM layers WHERE root = ? AND sources = ? AND options = ?",
                (key.root, key.sources, key.options),
            )

    # --- uploads ------------------------------------------------------------------------

    def upload_began(self, url: str, repository: str) -> None:
        """A registry keeps an upload of ours, which a killed process would leave behind."""
        with self._using() as db:
            values = url, repository
            db.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?)", (*values, _sum(values)))

    def upload_ended(self, url: str) -> None:
        """It was completed or cancelled."""
        with self._using() as db:
            db.execute("DELETE FROM uploads WHERE url = ?", (url,))

    def uploads(self) -> list[tuple[str, str]]:
        """The uploads that a run has left, and their repositories (host/repo)."""
        with self._using() as db:
            rows = db.execute("SELECT url, repository, sum FROM uploads").fetchall()
            return [row[:-1] for row in rows if row[-1] == _sum(row[:-1])]

    # --- sums ---------------------------------------------------------------------------

    def totals(self, images: Sequence[str], layers: Sequence[str]) -> dict[str, int]:
        """Numbers of images and layers of this run, and bytes: of the images by these statuses and
        those of every run, of the layers that were made by these."""
        with self._using() as db:
            counts = dict(db.execute("SELECT status, count(*) FROM outcomes GROUP BY status"))
            found = {
                "images": sum(counts.values()),
                **{
                    status.replace(" ", "_"): counts.get(status, 0)
                    for status in (*images, "unchanged", *FAILED, "skipped")
                },
            }
            if not self.run:
                return found
            made = "coalesce(sum(made = ?1 AND status = ?), 0), " * (len(layers) - 1)
            row = db.execute(
                f"SELECT count(*), {made}"
                f"coalesce(sum(status = ?{len(layers) + 1}), 0), "
                f"coalesce(sum(made <> ?1 AND status <> ?{len(layers) + 1}), 0), "
                # What is made of a layer in two ways is there once.
                "(SELECT coalesce(sum(size), 0) FROM (SELECT max(bytes_before) AS size FROM layers "
                "WHERE used = ?1 GROUP BY root, sources)), coalesce(sum(bytes_after), 0), "
                "coalesce(sum(CASE WHEN made = ?1 THEN bytes_before END), 0), "
                "coalesce(sum(CASE WHEN made = ?1 THEN bytes_after END), 0) "
                "FROM layers WHERE used = ?1",
                (self.run, *layers),
            ).fetchone()
            names = [f"layers_{status.replace(' ', '_')}" for status in (*layers, "reused")]
            sizes = ("bytes_before", "bytes_after", "bytes_read", "bytes_written")
            return found | dict(zip(("layers", *names, *sizes), row, strict=True))

    def _has(self, table: str) -> bool:
        return bool(self._number("SELECT count(*) FROM sqlite_schema WHERE name = ?", table))

    def close(self) -> None:
        """Let others have it."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def default_path(src: str, dst: str | None, *, index: bool = False) -> Path:
    """The state file of a source and a destination: $XDG_STATE_HOME/stargz/bulk-HEX.db, below
    ~/.local/state by default. That of indexes is another."""
    home = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "state"
    places = [_absolute(place) for place in (src, dst or "")] + ["index"] * index
    name = hashlib.sha256("\0".join(places).encode(errors="surrogateescape")).hexdigest()[:20]
    return folder / "stargz" / f"bulk-{name}.db"


def _is_report(table: str, report: object) -> bool:
    """Whether it has what is read of reports in such a table."""
    if not isinstance(report, dict):
        return False
    for name, kind in _REPORTS[table].items():
        if isinstance(kind, type):
            if not isinstance(report.get(name), kind):
                return False
        elif not _is_list(report.get(name, []), kind[1]):
            return False
    return True


def _is_list(value: object, of: type) -> bool:
    return isinstance(value, list) and all(isinstance(one, of) for one in value)


def _sum(values: Iterable[object]) -> str:
    """The checksum of a row."""
    text = repr(tuple(values)).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _absolute(place: str) -> str:
    """The place as it is called from any directory."""
    if "://" in place:
        return place
    kind, path = "", place
    for prefix in ("oci:", "oci-archive:", "storage:", "docker-archive:"):
        if place.startswith(prefix):
            kind, path = prefix, place.removeprefix(prefix)
    return kind + os.path.abspath(path)  # noqa: PTH100


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(f"{folder}: {error.strerror}; --state names the state file") from error


def _meaning(text: str) -> str:
    if "locked" in text or "busy" in text:
        return "another bulk run uses this state file; wait for its end, or name another (--state)"
    if "not a database" in text:
        return f"not a state file of stargz ({text}); name another (--state)"
    if "malformed" in text or "corrupt" in text:
        return (
            f"the state file is damaged ({text}); delete it, or name another (--state): what was "
            "done is then done anew"
        )
    if "unable to open" in text:
        return "the state file cannot be opened; name another (--state)"
    return f"the state cannot be kept: {text}; name another state file (--state)"
