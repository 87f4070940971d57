"""Where the page listens, who may open it, and keeping it up until it is told to end."""

from __future__ import annotations

import gc
import hmac
import importlib.util
import ipaddress
import os
import secrets
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

from backend.errors import EnvironmentFault, InputError

DEFAULT_PORT = 7860
_TRIES = 50


@contextmanager
def collecting_later() -> Generator[None]:
    """No garbage is collected meanwhile, and what was made is not looked through again.

    What a start makes stays: searching it again and again takes a tenth of the start's time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def is_local(address: str) -> bool:
    """Whether only this machine can reach the address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def password_for(address: str, given: str | None) -> tuple[str | None, bool]:
    """The password to demand, and whether it was made up here and must be printed once.

    Raises:
        InputError: the password given is empty.
    """
    if given is not None and not given.strip():
        raise InputError("--password is empty", next="give a password, or leave it out to have one made")
    if given or is_local(address):
        return given, False
    return secrets.token_urlsafe(9), True


def password_check(password: str) -> Callable[[str, str], bool]:
    """What Gradio asks at login. Any user name will do; the time it takes tells nothing."""
    return lambda user, tried: hmac.compare_digest(tried.encode(), password.encode())


def require_mcp(wanted: bool) -> None:
    """See that tools for assistants can be offered, when they are wanted.

    Raises:
        EnvironmentFault: the library is not installed.
    """
    if wanted and importlib.util.find_spec("mcp") is None:
        raise EnvironmentFault(
            "--mcp needs the library mcp, which is not installed", next='pip install "gradio[mcp]", in .venv'
        )


def free_port(address: str, port: int) -> tuple[int, str]:
    """``port`` or the next free one, and one sentence when it is another.

    Raises:
        EnvironmentFault: none is free, or the address is none of this machine's.
    """
    for candidate in range(port, min(port + _TRIES, 65_536)):
        if _is_free(address, candidate):
            if candidate == port:
                return port, ""
            holder = _holder(port)
            by = f" by {holder}" if holder else ""
            return candidate, f"port {port} is in use{by}; using {candidate}"
    raise EnvironmentFault(
        f"no free port from {port} on at {address}", next="end another program, or give another --port"
    )


def _is_free(address: str, port: int) -> bool:
    try:
        family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name != "nt":  # on Windows this would let two programs share a port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except socket.gaierror as error:
        raise EnvironmentFault(f"{address} is no address of this machine", why=str(error)) from None
    except PermissionError:
        raise EnvironmentFault(f"port {port} needs more rights", next="choose one above 1023") from None
    except OSError as error:
        if error.errno == getattr(socket, "EADDRNOTAVAIL", 99) or "assign" in str(error):
            raise EnvironmentFault(f"{address} is no address of this machine", why=str(error)) from None
        return False
    return True


def _holder(port: int) -> str:
    """Name and pid of the program that listens on a port, as far as the system tells."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if local and local.port == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                process = psutil.Process(connection.pid)
                ours = any(part.endswith("app.py") for part in process.cmdline())
                name = "another Atelier" if ours else process.name()
                return f"{name} (process {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
