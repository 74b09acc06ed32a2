"""The store: one SQLite file a study, one writer, one transaction a finished group."""

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from retroprop.ensemble.planner import Group
from retroprop.errors import StoreError
from retroprop.study.trial import Trial

SCHEMA = "3"
_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE groups (
    id INTEGER PRIMARY KEY AUTOINCREMENT, phase TEXT NOT NULL, keys TEXT NOT NULL,
    way TEXT NOT NULL, status TEXT NOT NULL,
    record TEXT NOT NULL DEFAULT '{}');
CREATE TABLE trials (
    key TEXT PRIMARY KEY, settings TEXT NOT NULL, group_id INTEGER NOT NULL, result TEXT NOT NULL,
    correct BLOB, weights TEXT NOT NULL);
CREATE TABLE looks (time TEXT NOT NULL, seeds TEXT NOT NULL, settings TEXT NOT NULL);
"""
# Sources that decide a trial's numbers; report and command line may change without a new store.
_DECIDING = (
    "anatomy.py", "augment.py", "fix.py", "fix_config.py", "losses.py", "randomness.py", "surgery.py",
    "tracing.py", "study/trial.py", "study/tuning.py", "study/worker.py", "data", "ensemble", "fixes",
    "networks", "optim", "sparse", "stacking",
)  # fmt: skip


def code_hash() -> str:
    """A hash of the sources that decide numbers."""
    root = Path(__file__).parents[1]
    files = sorted(
        file
        for part in _DECIDING
        for file in ([root / part] if part.endswith(".py") else (root / part).rglob("*.py"))
    )
    digest = hashlib.blake2b(digest_size=12)
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


class Store:
    """Everything a study has planned and finished. Use `open_store`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path

    @property
    def weights_folder(self) -> Path:
        """Where final weights of reporting trials lie, one file a trial."""
        return self.path.parent / "weights"

    def meta(self) -> dict[str, str]:
        """What the store was made by and for."""
        return dict(self._connection.execute("SELECT key, value FROM meta").fetchall())

    def finished(self) -> set[str]:
        """Keys of finished trials."""
        return {key for (key,) in self._connection.execute("SELECT key FROM trials")}

    def rows(self) -> Iterator[tuple[str, dict[str, Any], np.ndarray | None, str]]:
        """Key, result, which test images were right, and hash of the weights, of every trial."""
        for key, result, correct, weights in self._connection.execute(
            "SELECT key, result, correct, weights FROM trials ORDER BY key"
        ):
            found = json.loads(result)
            bits = None
            if correct is not None:
                packed = np.frombuffer(correct, dtype=np.uint8)
                bits = np.unpackbits(packed)[: found["images"]].astype(bool)
            yield key, found, bits, weights

    def planned(self, phase: str) -> list[tuple[int, Group]]:
        """Groups of a phase that were planned and have not finished, in the order of the plan."""
        rows = self._connection.execute(
            "SELECT id, keys, way FROM groups WHERE status != 'done' AND phase = ? ORDER BY id", (phase,)
        ).fetchall()
        return [(i, Group(tuple(json.loads(keys)), way)) for i, keys, way in rows]

    def add_plan(self, phase: str, groups: Iterable[Group]) -> None:
        """Write groups down before any of them starts."""
        with self._connection:
            self._connection.executemany(
                "INSERT INTO groups (phase, keys, way, status) VALUES (?, ?, ?, 'planned')",
                [(phase, json.dumps(group.keys), group.way) for group in groups],
            )

    def drop_plan(self, ids: Iterable[int]) -> None:
        """Forget groups that are wanted no more."""
        with self._connection:
            self._connection.executemany("DELETE FROM groups WHERE id = ?", [(i,) for i in ids])

    def finish(
        self,
        group: int,
        trials: Sequence[Trial],
        rows: Sequence[Mapping[str, Any]],
        record: Mapping[str, Any],
    ) -> None:
        """Write a finished group down, all or nothing."""
        entries = []
        for trial, row in zip(trials, rows, strict=True):
            digest = self._keep_weights(trial.key, row["weights"])
            right = row["test_correct"]
            bits = None if right is None else np.packbits(right).tobytes()
            result = json.dumps(row["result"], sort_keys=True)
            entries.append((trial.key, trial.text, group, result, bits, digest))
        with self._connection:
            self._connection.executemany("INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?)", entries)
            self._connection.execute(
                "UPDATE groups SET status = 'done', record = ? WHERE id = ?",
                (json.dumps(record, sort_keys=True), group),
            )

    def fail(self, group: int, error: str) -> None:
        """Write down why a group failed; it is tried again at the next run."""
        with self._connection:
            self._connection.execute(
                "UPDATE groups SET status = 'failed', record = ? WHERE id = ?",
                (json.dumps({"error": error}), group),
            )

    def failures(self) -> dict[str, str]:
        """Why each trial that failed did so, by key."""
        rows = self._connection.execute("SELECT keys, record FROM groups WHERE status = 'failed'")
        return {
            key: json.loads(record).get("error", "unknown")
            for keys, record in rows
            for key in json.loads(keys)
        }

    def records(self) -> list[dict[str, Any]]:
        """How each finished group ran."""
        rows = self._connection.execute("SELECT record FROM groups WHERE status = 'done' ORDER BY id")
        return [json.loads(record) for (record,) in rows]

    def add_window(self, window: Mapping[str, Any]) -> None:
        """Write down the energy of some finished groups."""
        with self._connection:
            self._connection.execute("CREATE TABLE IF NOT EXISTS energy (window TEXT NOT NULL)")
            self._connection.execute("INSERT INTO energy VALUES (?)", (json.dumps(window),))

    def windows(self) -> list[dict[str, Any]]:
        """Energy of finished groups, where it was measured."""
        try:
            rows = self._connection.execute("SELECT window FROM energy ORDER BY rowid").fetchall()
        except sqlite3.OperationalError:  # never measured
            return []
        return [json.loads(window) for (window,) in rows]

    def groups_of_trials(self) -> dict[str, int]:
        """The group that every finished trial was trained in, by key."""
        return dict(self._connection.execute("SELECT key, group_id FROM trials").fetchall())

    def log_look(self, seeds: Sequence[int], settings: Mapping[str, Any]) -> None:
        """Note that the reporting seeds were analysed."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._connection:
            self._connection.execute(
                "INSERT INTO looks VALUES (?, ?, ?)", (now, json.dumps(list(seeds)), json.dumps(settings))
            )

    def looks(self) -> list[tuple[str, tuple[int, ...]]]:
        """Time and reporting seeds of every analysis so far."""
        rows = self._connection.execute("SELECT time, seeds FROM looks ORDER BY rowid")
        return [(time, tuple(json.loads(seeds))) for time, seeds in rows]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _keep_weights(self, key: str, weights: bytes | None) -> str:
        if weights is None:
            return ""
        self.weights_folder.mkdir(exist_ok=True)
        target = self.weights_folder / f"{key}.safetensors"
        part = target.with_suffix(".part")
        part.write_bytes(weights)
        os.replace(part, target)
        return hashlib.blake2b(weights, digest_size=12).hexdigest()


@contextlib.contextmanager
def open_store(folder: Path, made_by: Mapping[str, str] | None) -> Iterator[Store]:
    """The store of a study's folder, closed afterwards.

    Args:
        folder: of the study.
        made_by: code and data that are to train; an existing store must have been made by the same. None
            opens an existing store to read.

    Raises:
        StoreError: when it is corrupt, of another schema, made by other code or data, or missing.
    """
    path = folder / "study.db"
    new = not path.exists()
    if new and made_by is None:
        raise StoreError(
            f"No study was found in {str(folder)!r}. Give the folder that `retroprop ablate` wrote."
        )
    if new and made_by is not None:
        _create(path, made_by)
    store = Store(sqlite3.connect(path), path)
    try:
        _check(store, made_by)
        yield store
    finally:
        store.close()


def _create(path: Path, made_by: Mapping[str, str]) -> None:
    """An empty store; made beside its place, so that a half-made one is never found."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(part)) as connection, connection:
        connection.executescript(_TABLES)
        meta = [("schema", SCHEMA), *made_by.items()]
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta)
    os.replace(part, path)


def _check(store: Store, made_by: Mapping[str, str] | None) -> None:
    where = f"The store {str(store.path)!r}"
    away = "Give another folder with --out, or move this one away."
    try:
        sound = store._connection.execute("PRAGMA quick_check").fetchone()[0]
        found = store.meta()
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{where} is corrupt ({error}); it is left as it is. {away}") from None
    if sound != "ok":
        raise StoreError(f"{where} is corrupt ({sound}); it is left as it is. {away}")
    if found.get("schema") != SCHEMA:
        raise StoreError(f"{where} has schema {found.get('schema')!r}; this version reads {SCHEMA!r}. {away}")
    for kind, expected in (made_by or {}).items():
        if kind in ("code", "data") and found.get(kind) != expected:
            advice = " Or go back to the code that made it." if kind == "code" else ""
            raise StoreError(
                f"{where} was made with other {kind} ({found.get(kind)!r}, now {expected!r}); its trials "
                f"and new ones would not be pairs. {away}{advice}"
            )
