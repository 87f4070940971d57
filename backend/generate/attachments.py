"""What a request puts to a loaded model, and takes away again: networks, embeddings, guides, another VAE.

The base model's weights never change and are never read again: networks hook themselves into its modules.
What was read from a file stays ready, as long as the file is the same, for the next request that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from backend import networks
from backend.errors import InputError
from backend.families.base import DiffusionModel
from backend.generate import pixels
from backend.generate.modes import device_of, dtype_of
from backend.generate.request import Guide, LoraUse, Request
from backend.generate.taught import TaughtWords
from backend.networks import lllite
from backend.networks.common import AdapterNetwork

if TYPE_CHECKING:
    from backend.generate.sampling import Passing

Shown = tuple[int, int] | None
"""The size (width, height) at which a guide's picture is shown; None: it is not."""
Say = Callable[..., None]
"""Told what is being loaded (``what``, ``path``) or noted (``note``)."""
_ENDINGS = (".safetensors", ".ckpt", ".pt", ".bin")
_KEPT = 8
"""Files that stay ready beside those in use."""


@dataclass(frozen=True)
class FileKey:
    """A file as it is now: a changed one counts as another."""

    path: Path
    changed: int
    size: int

    @classmethod
    def of(cls, path: Path, what: str) -> FileKey:
        """Raises:
        InputError: there is no such file; ``what`` it is in words.
        """
        try:
            facts = path.stat()
        except OSError as error:
            raise InputError(
                f"the {what} cannot be found: {path}",
                why=error.strerror or str(error),
                next="Choose a file that exists.",
            ) from None
        return cls(path.resolve(), facts.st_mtime_ns, facts.st_size)


class Attachments:
    """What is put to one model. A model has at most one of these."""

    def __init__(self, model: DiffusionModel, say: Say | None = None) -> None:
        self.model = model
        self._say = say or _quiet
        self._ready: dict[FileKey, AdapterNetwork] = {}
        """Networks and guides that were read, the last used last."""
        self._attached: list[FileKey] = []
        self._words = TaughtWords(model)
        self._own_vae = model.vae
        self._vae: FileKey | None = None
        self._guides: list[tuple[Guide, lllite.LLLiteNetwork]] = []
        self._shown: list[Shown] = []

    def use(self, pictures: Sequence[Request], say: Say | None = None) -> Passing:
        """Bring the model to what ``pictures`` ask for, which differ in no field that is put to a model.

        Returns what is to be told how far a pass is, so that a guide ends when it should.

        Raises:
            InputError: a file is missing, damaged or for another family. Everything that is put to the
                model is then taken away from it.
        """
        self._say = say or self._say
        first = pictures[0]
        try:
            self._use_networks(first)
            self._words.use(
                first.embeddings, [text for each in pictures for text in (each.prompt, each.negative)]
            )
            self._use_vae(first.vae)
            self._hide()
        except BaseException:
            self.clear()
            raise
        return self._passing

    def clear(self) -> None:
        """Take everything away from the model; files that were read stay ready."""
        for key in self._attached:
            self._ready[key].detach()
        self._attached = []
        self._guides = []
        self._words.use("", [])
        self._use_vae("")

    def _use_networks(self, request: Request) -> None:
        """Attach exactly the networks and guides that are wanted, each once, in their order."""
        uses = [(self._found(lora, request.lora_folder), lora) for lora in request.loras]
        guides = [(_guide_file(guide), guide) for guide in request.guides]
        if len({key for key, _ in guides}) < len(guides):
            raise InputError("a ControlNet-LLLite is named twice", next="Name each file once.", key="guides")
        names = list(dict.fromkeys(key for key, _ in [*uses, *guides]))
        read = {key: self._read_network(key) for key, _ in uses}
        read |= {key: self._read_guide(key) for key, _ in guides}
        if names != self._attached:
            for key in self._attached:
                self._ready[key].detach()
            self._attached = []
            for key in names:
                read[key].attach()
                self._attached.append(key)
        for key, network in read.items():
            _set_strengths(network, [lora for name, lora in uses if name == key])
        self._guides = [(guide, cast("lllite.LLLiteNetwork", read[key])) for key, guide in guides]
        self._forget()

    def _found(self, lora: LoraUse, folder: str) -> FileKey:
        path = Path(lora.path)
        if not path.is_file() and folder:
            path = _in_folder(Path(folder), lora.path) or path
        return FileKey.of(path, "LoRA")

    def _read_network(self, key: FileKey) -> AdapterNetwork:
        def read() -> AdapterNetwork:
            self._say(what="lora", path=key.path.name)
            modules = [*self.model.adapter_modules(), *self.model.further_modules()]
            network = cast("AdapterNetwork", networks.from_weights(networks.read_lora(key.path)[0], modules))
            if unused := network.unused:
                some = f"{len(unused)} weights fit no module of this model ({unused[0]}, ...)"
                self._say(note=f"{key.path.name}: {some}")
            return network

        return self._kept(key, read)

    def _read_guide(self, key: FileKey) -> AdapterNetwork:
        def read() -> AdapterNetwork:
            self._say(what="guide", path=key.path.name)
            return lllite.from_weights(networks.read_lora(key.path)[0], self.model.adapter_modules())

        return self._kept(key, read)

    def _kept(self, key: FileKey, read: Callable[[], AdapterNetwork]) -> AdapterNetwork:
        """A file's network, read when it is not ready; and marked as used last."""
        network = self._ready.pop(key, None)
        if network is None:
            with _naming(key.path):
                network = read()
            network.to(device=device_of(self.model), dtype=dtype_of(self.model))
            cast("nn.Module", network).requires_grad_(False).eval()
        self._ready[key] = network
        return network

    def _forget(self) -> None:
        """Drop the files that were not used for longest."""
        idle = [key for key in self._ready if key not in self._attached]
        for key in idle[: max(len(idle) - _KEPT, 0)]:
            del self._ready[key]

    def _use_vae(self, path: str) -> None:
        wanted = FileKey.of(Path(path), "VAE") if path else None
        if wanted == self._vae:
            return
        if wanted is None:
            self.model.vae = self._own_vae
        else:
            self._say(what="vae", path=wanted.path.name)
            with _naming(wanted.path):
                self.model.vae = self.model.load_vae(wanted.path)
        self._vae = wanted

    def _hide(self) -> None:
        """No guide steers until a pass begins."""
        self._shown = [None] * len(self._guides)
        for guide, network in self._guides:
            network.strength = guide.strength
            network.show(None)

    def _passing(self, share: float, size: tuple[int, int]) -> None:
        """Guides steer the first share of a pass that is theirs, by their picture at the pass's size."""
        for index, (guide, network) in enumerate(self._guides):
            wanted = size if share < guide.ratio else None
            if wanted != self._shown[index]:
                network.show(_guide_picture(guide, wanted).to(device_of(self.model)) if wanted else None)
                self._shown[index] = wanted


def _set_strengths(network: AdapterNetwork, uses: Sequence[LoraUse]) -> None:
    """The sum of what is asked for, as when a file is named twice."""
    if not uses:
        return
    text = sum(lora.strength if lora.text_strength is None else lora.text_strength for lora in uses)
    network.set_strengths(denoiser=sum(lora.strength for lora in uses), text=text)


def _in_folder(folder: Path, name: str) -> Path | None:
    """The file of a name (without ending, in any case) in a folder and those in it."""
    if not folder.is_dir():
        raise InputError(
            "the folder of LoRA files was not found",
            where=str(folder),
            next="Choose another.",
            key="lora_folder",
        )
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    exact = [path for path in files if name in (path.stem, path.name)]
    alike = [path for path in files if name.lower() in (path.stem.lower(), path.name.lower())]
    return next(iter([*exact, *alike]), None)


def _guide_file(guide: Guide) -> FileKey:
    for value, what in ((guide.path, "ControlNet-LLLite file"), (guide.image, "guide picture")):
        if not value:
            other = guide.image or guide.path
            raise InputError(f"no {what} was chosen", where=other, next="Choose both.", key="guides")
    return FileKey.of(Path(guide.path), "ControlNet-LLLite")


def _guide_picture(guide: Guide, size: tuple[int, int]) -> Tensor:
    return pixels.to_pixels(pixels.covering(pixels.open_picture(guide.image, "guides"), *size))


@contextmanager
def _naming(path: Path) -> Generator[None, None, None]:
    """Problems inside say which file they are about."""
    try:
        yield
    except InputError as error:
        raise InputError([replace(each, where=each.where or str(path)) for each in error.problems]) from error


def _quiet(**_facts: Any) -> None:
    return
