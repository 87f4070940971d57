"""Uploading a run's files to the Hugging Face hub, and fetching a restore point from there.

Nothing of this happens unless a repository is named. The token comes from ``HF_TOKEN`` or from an
earlier ``hf auth login`` and is written nowhere. An upload that fails never ends a run: it is told,
and tried once more when the run is over.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

from backend.errors import InputError, Problem
from backend.jobs.events import EventType, Sink
from backend.settings import Settings
from backend.settings.sections import HubSettings
from backend.system.paths import cache_root

_FILES = ("epoch", "step", "result")
_REFUSED = (401, 403, 404)
"""Answers that trying again does not change."""


@dataclass(frozen=True)
class Upload:
    """One file, or one folder of a restore point."""

    path: Path
    target: str
    """Its path in the repository."""


class Repository:
    """The repository that a run uploads to."""

    def __init__(self, wanted: HubSettings) -> None:
        from huggingface_hub import HfApi

        assert wanted.huggingface_repo_id
        self._api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
        self.id, self._kind = wanted.huggingface_repo_id, wanted.huggingface_repo_type or "model"
        self._private = wanted.huggingface_repo_visibility != "public"

    def ensure(self) -> None:
        """Make the repository unless it is there. Private, unless it is to be public."""
        self._api.create_repo(self.id, repo_type=self._kind, private=self._private, exist_ok=True)

    def put(self, upload: Upload) -> None:
        """Upload a file or the files of a folder; what is there under their names is replaced."""
        where: dict[str, Any] = {"repo_id": self.id, "repo_type": self._kind, "path_in_repo": upload.target}
        if upload.path.is_dir():
            self._api.upload_folder(folder_path=str(upload.path), **where)
        else:
            self._api.upload_file(path_or_fileobj=str(upload.path), **where)


class Uploading:
    """Passes events on, and uploads what they say was saved."""

    def __init__(self, events: Sink, wanted: HubSettings, repository: Repository) -> None:
        self._events, self._wanted, self._repository = events, wanted, repository
        self._failed: dict[Upload, None] = {}
        self._queue: Queue[Upload | None] = Queue()
        self._worker: threading.Thread | None = None
        if wanted.async_upload:
            self._worker = threading.Thread(target=self._work, name="hub-upload", daemon=True)
            self._worker.start()

    def emit(self, type: EventType, /, **fields: Any) -> None:
        self._events.emit(type, **fields)
        if type != "saved" or not self._is_wanted(fields["kind"]):
            return
        path = Path(fields["path"])
        upload = Upload(path, "/".join(filter(None, (self._wanted.huggingface_path_in_repo, path.name))))
        if self._worker is not None and fields["kind"] != "result":
            self._queue.put(upload)
        else:
            self._try(upload)

    def close(self) -> None:
        """Finish what is under way, and try again what failed."""
        if self._worker is not None:
            self._queue.put(None)
            self._worker.join()
        again, self._failed = list(self._failed), {}
        for upload in again:
            self._try(upload, last=True)

    def _is_wanted(self, kind: str) -> bool:
        return kind in _FILES or (kind == "state" and self._wanted.save_state_to_huggingface)

    def _work(self) -> None:
        while (upload := self._queue.get()) is not None:
            self._try(upload)

    def _try(self, upload: Upload, last: bool = False) -> None:
        if not upload.path.exists():
            self._events.emit("note", text=f"{upload.path.name} was removed before it was uploaded")
            return
        try:
            self._repository.put(upload)
        except Exception as error:  # whatever network and hub do, the run goes on
            self._failed[upload] = None
            advice = "it is still on the disk" if last else "it is tried again when the run is over"
            text = (
                f"{upload.path.name} could not be uploaded to {self._repository.id}: {said(error)}; {advice}"
            )
            self._events.emit("warning", text=text)
        else:
            self._events.emit("note", text=f"uploaded {upload.target} to {self._repository.id}")


@contextmanager
def uploading(settings: Settings, events: Sink) -> Generator[Sink, None, None]:
    """Events whose files are uploaded while the block runs, when a repository is named.

    Raises:
        InputError: there is no token, or the hub refuses it or the repository's name.
    """
    if not settings.hub.huggingface_repo_id:
        yield events
        return
    sink = Uploading(events, settings.hub, _open(settings.hub, events))
    try:
        yield sink
    finally:
        sink.close()


def _open(wanted: HubSettings, events: Sink) -> Repository:
    """The repository, made when it is not there. A hub that cannot be reached is only told."""
    go_online()
    from huggingface_hub import get_token

    if not get_token():
        raise InputError(
            "an upload to Hugging Face needs a token, and there is none",
            next="give it as huggingface_token, set HF_TOKEN, or run 'hf auth login' once",
            key="huggingface_token",
        )
    repository = Repository(wanted)
    try:
        repository.ensure()
    except Exception as error:  # as above; only a refusal is final
        if _is_refusal(error):
            raise InputError(
                f"Hugging Face refuses the repository {repository.id}: {said(error)}",
                next="check its name, and that the token may write to it",
                key="huggingface_repo_id",
            ) from None
        problem = Problem(f"Hugging Face cannot be reached now: {said(error)}", key="huggingface_repo_id")
        events.emit("warning", text=problem.text(), problem=problem.as_dict())
    return repository


def go_online() -> None:
    """Let the library use the network: elsewhere it is told never to."""
    os.environ["HF_HUB_OFFLINE"] = "0"
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = False


def with_local_state(settings: Settings) -> Settings:
    """Settings whose restore point lies on this machine: fetched when it is named as one on the hub.

    ``resume`` is ``user/repository/path``, with ``:revision`` and ``:type`` behind it if need be.

    Raises:
        InputError: the name is of another form, or nothing is there.
    """
    saving = settings.saving
    if not (settings.hub.resume_from_huggingface and saving.resume):
        return settings
    return settings.replace(resume=str(fetch_state(saving.resume)), resume_from_huggingface=False)


def fetch_state(name: str) -> Path:
    """A restore point from the hub, as a folder on this machine. Raises InputError as above."""
    place, _, rest = name.partition(":")
    revision, _, kind = rest.partition(":")
    owner, _, path = place.partition("/")
    repository, _, folder = path.partition("/")
    if not (owner and repository and folder.strip("/")):
        raise InputError(
            f"resume: '{name}' is not of the form user/repository/path",
            next="for example ann/cats/cat-000002-state, or ann/cats/cat-state:main:model",
            key="resume",
        )
    go_online()
    from huggingface_hub import HfApi

    api, folder = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None), folder.strip("/")
    try:
        root = api.snapshot_download(
            f"{owner}/{repository}",
            repo_type=kind or "model",
            revision=revision or None,
            allow_patterns=[f"{folder}/*"],
            cache_dir=cache_root() / "hub",
        )
    except Exception as error:  # whatever network and hub do
        raise InputError(f"resume: {place} cannot be fetched: {said(error)}", key="resume") from None
    if not (Path(str(root)) / folder).is_dir():
        raise InputError(f"resume: there is no folder {folder} in {owner}/{repository}", key="resume")
    return Path(str(root)) / folder


def said(error: Exception) -> str:
    """What a library says, on one line and not too long, without the token."""
    from huggingface_hub import get_token

    text = " ".join(str(error).split())[:300] or type(error).__name__
    token = get_token()
    return text.replace(token, "***") if token else text


def _is_refusal(error: Exception) -> bool:
    from huggingface_hub.errors import HFValidationError

    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in _REFUSED or isinstance(error, HFValidationError)
