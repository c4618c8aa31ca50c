"""The index of a store: which batches there are, and the digests of their files, so that a lost or altered one is noticed.

`index.json` names a batch's next digest before the file is put in place, takes it for the batch's own afterwards, and loses a
batch before its file is deleted. So a crash at any moment leaves an index that the files agree with.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from agentdistill.durable import digest, replace
from agentdistill.errors import StoreError

NAME = "index.json"


class Index:
    """The index of a store's folder; a store without one, such as an older one, has nothing to be checked by."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME

    def announce(self, batch: str, digest: str) -> None:
        """A file with this SHA-256 is about to be put in place; the present one, if any, counts until then."""
        found = self.read()
        self._write(found | {batch: found.get(batch, {}) | {"next": digest}})

    def settle(self, batch: str) -> None:
        """The file that was announced is in place."""
        found = self.read()
        self._write(found | {batch: {"sha256": found[batch]["next"]}})

    def forget(self, batches: Iterable[str]) -> None:
        """These batches are about to be deleted."""
        found, gone = self.read(), set(batches)
        if gone & found.keys():
            self._write({batch: entry for batch, entry in found.items() if batch not in gone})

    def read(self) -> dict[str, dict[str, str]]:
        """The digest `sha256` of each batch's file, and the `next` one while it is being written; empty without an index.

        Raises:
            StoreError: when it is damaged.
        """
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))["batches"]
            return {str(batch): {str(key): str(value) for key, value in entry.items()} for batch, entry in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = type(error).__name__
            raise StoreError(f"{self.path} is damaged ({reason}); delete it, and the store's files go unchecked") from error

    def problems(self, batches: Collection[str] | None = None) -> list[str]:
        """A sentence for each file that is missing, or is not the one that was written.

        The store may be written to meanwhile: what does not agree with the index is held against it once more.

        Args:
            batches: which are looked at; all by default.

        Raises:
            StoreError: when the index is damaged.
        """
        known = [(batch, digests) for batch, digests in sorted(self.read().items()) if batches is None or batch in batches]
        found = (self._problem(batch, digests) and self._problem(batch, self.read().get(batch, {})) for batch, digests in known)
        return [problem for problem in found if problem]

    def _problem(self, batch: str, digests: Mapping[str, str]) -> str:
        """What is wrong with a batch's file, or an empty string."""
        file = self.folder / f"{batch}.parquet"
        try:
            if digest(file) in digests.values():
                return ""
        except FileNotFoundError:
            return f"{file} is missing: it was written once; restore it from a copy" if "sha256" in digests else ""
        except OSError as error:
            return f"{file} cannot be read: {error.strerror or error}; restore it from a copy"
        return f"{file} is not as it was written: its SHA-256 has changed; restore it from a copy" if digests else ""

    def _write(self, batches: dict[str, dict[str, str]]) -> None:
        replace(self.path, json.dumps({"version": 1, "batches": batches}, indent=0).encode())
