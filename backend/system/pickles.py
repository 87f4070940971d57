"""Looking into torch pickles (.ckpt, .pt) without running anything in them.

:func:`globals_in` walks the opcodes. :func:`tensors_in` rebuilds the *shape* of the contents with
an unpickler whose every global is an inert stand-in of ours, so a pickle can neither import nor
call anything.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from backend.errors import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First object of a torch file from before the zip layout."""

_READABLE_MODULES = {
    "posix": "os",
    "nt": "os",
    # Python 2's names, which pickles up to protocol 2 use.
    "__builtin__": "builtins",
    "commands": "subprocess",
}

_HARMLESS = frozenset(
    {
        "collections.OrderedDict",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.Size",
        "torch.device",
        "torch.Tensor",
        "torch.nn.parameter.Parameter",
        "torch.nn.modules.container.ParameterDict",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "builtins.set",
        "_codecs.encode",
    }
)
TRAINER_PACKAGES = ("pytorch_lightning.", "lightning.", "lightning_fabric.")
"""Old training checkpoints name these beside their weights; they are never imported."""

_STORAGE_DTYPES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
_TORCH_DTYPES = frozenset(
    ("float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool")
)


def looks_like_pickle(start: bytes) -> bool:
    """Whether a file beginning with ``start`` is a torch checkpoint: a zip of one, or a bare pickle."""
    if start[:4] == b"PK\x03\x04":
        return b"data.pkl" in start or b"constants.pkl" in start or b"/version" in start
    if start[5:9] == b"\x00\x00\x00{":  # a safetensors header whose length begins with the same bytes
        return False
    return len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def is_harmless(name: str) -> bool:
    """Whether a global in a pickle is one of those that only rebuild tensors and plain values."""
    module, _, leaf = name.rpartition(".")
    if module in ("torch", "torch.storage") and leaf.endswith("Storage"):
        return True
    if module == "torch" and leaf in _TORCH_DTYPES:
        return True
    return name in _HARMLESS or name.startswith(TRAINER_PACKAGES)


def globals_in(path: Path) -> list[str]:
    """Every global that the pickles of a file name, as ``module.name``, in order, without twins.

    Raises:
        InputError: the pickle is damaged.
    """
    found: dict[str, None] = {}
    try:
        with _open_pickle(path) as stream:
            for _ in range(4 if _skip_legacy_head(stream) else 1):
                found.update(dict.fromkeys(_globals(stream)))
    except _FAULTS as error:
        raise _damaged(path, error) from None
    return list(found)


def tensors_in(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name -> (dtype, shape) of the tensors in a torch file, from its table alone.

    A ``state_dict`` wrapper is taken off; nested tables give dotted names.

    Raises:
        InputError: the pickle is damaged.
    """
    try:
        with _open_pickle(path) as stream:
            if _skip_legacy_head(stream):
                for _ in range(3):
                    _InertUnpickler(stream).load()
            content: object = _InertUnpickler(stream).load()
    except _FAULTS as error:
        raise _damaged(path, error) from None
    table = cast("dict[object, object]", content) if isinstance(content, dict) else {}
    inner = table.get("state_dict")
    return dict(_shapes(cast("dict[object, object]", inner) if isinstance(inner, dict) else table, "", 0))


_FAULTS = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    RecursionError,
    OverflowError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    OSError,
)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path.name} is damaged: its table cannot be read",
        where=str(path),
        why=str(error) or type(error).__name__,
        next="Download it again, or use the model's safetensors file",
    )


def _open_pickle(path: Path) -> io.BufferedIOBase:
    """The pickle stream of a torch file: ``*/data.pkl`` in a zip, otherwise the file itself."""
    if not zipfile.is_zipfile(path):
        return path.open("rb")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if not names:
            raise ValueError("the archive has no data.pkl")
        if archive.getinfo(names[0]).file_size > 256_000_000:
            raise ValueError("data.pkl is far larger than a table of tensors")
        return io.BytesIO(archive.read(names[0]))


def _skip_legacy_head(stream: io.BufferedIOBase) -> bool:
    """Whether the old layout (magic number, protocol, system, content) begins here; rewinds."""
    head = stream.read(32)
    stream.seek(0)
    return LEGACY_MAGIC.to_bytes(10, "little") in head


def _globals(stream: io.BufferedIOBase) -> Iterator[str]:
    """Names that one pickle's GLOBAL, INST and STACK_GLOBAL opcodes refer to."""
    memo: dict[int, object] = {}
    recent: list[object] = []
    for opcode, argument, _ in pickletools.genops(cast(IO[bytes], stream)):
        if opcode.name in ("GLOBAL", "INST"):
            module, _, name = str(argument).partition(" ")
            yield _readable(module, name)
        elif opcode.name == "STACK_GLOBAL":
            module, name = [None, None, *recent][-2:]
            texts = isinstance(module, str) and isinstance(name, str)
            yield _readable(str(module), str(name)) if texts else "a global with a hidden name"
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = recent[-1] if recent else None
        elif opcode.name.endswith("PUT"):
            memo[int(str(argument))] = recent[-1] if recent else None
        elif opcode.name.endswith("GET"):
            recent.append(memo.get(int(str(argument))))
        else:
            recent.append(argument if isinstance(argument, str) else None)


def _readable(module: str, name: str) -> str:
    return f"{_READABLE_MODULES.get(module, module)}.{name}"


class _Shape:
    """Stands for a tensor."""

    def __init__(self, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = dtype, shape


class _Inert:
    """Stands for any class or function of a pickle; does nothing whatever it is given."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> _Inert:
        return self

    def __setstate__(self, _: object) -> None:
        pass

    def __setitem__(self, _: object, __: object) -> None:
        pass

    def append(self, _: object) -> None:
        pass

    def extend(self, _: object) -> None:
        pass


class _Storage(_Inert):
    """Stands for a storage class; remembers which."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.dtype = _STORAGE_DTYPES.get(name, "U8")


def _rebuild_tensor(storage: object, _: object, size: object, *__: object) -> _Shape:
    dtype = storage.dtype if isinstance(storage, _Storage) else "U8"
    return _Shape(dtype, tuple(cast("tuple[int, ...]", size)))


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


class _InertUnpickler(pickle.Unpickler):
    """Rebuilds plain containers, tensors as :class:`_Shape`, and everything else as nothing."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if global_name == "OrderedDict":
            return dict
        if global_name.endswith("Storage"):
            return _Storage(global_name)
        if global_name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if global_name in ("_rebuild_parameter", "Parameter"):
            return _rebuild_parameter
        return tuple if global_name == "Size" else _Inert

    def persistent_load(self, pid: Any, /) -> Any:
        return pid[1] if isinstance(pid, tuple) and len(cast("tuple[object, ...]", pid)) > 1 else _Inert()


def _shapes(
    table: dict[object, object], prefix: str, depth: int
) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    for key, value in table.items():
        if isinstance(value, _Shape):
            yield f"{prefix}{key}", (value.dtype, value.shape)
        elif isinstance(value, dict) and depth < 3:
            yield from _shapes(cast("dict[object, object]", value), f"{prefix}{key}.", depth + 1)
