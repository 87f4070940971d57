"""Addresses, ports and passwords."""

from __future__ import annotations

import gc
import socket

import pytest

from backend.errors import EnvironmentFault, InputError
from ui.server import collecting_later, free_port, is_local, password_check, password_for


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.3.2.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("my-host", False),
    ],
)
def test_what_is_only_this_machine(address: str, local: bool):
    assert is_local(address) is local


def test_another_address_always_has_a_password():
    password, made_up = password_for("0.0.0.0", None)
    assert made_up and password and len(password) >= 12
    assert password_for("0.0.0.0", None)[0] != password
    assert password_for("0.0.0.0", "mine") == ("mine", False)
    assert password_for("127.0.0.1", None) == (None, False)
    with pytest.raises(InputError):
        password_for("0.0.0.0", "  ")


def test_only_the_password_opens():
    check = password_check("pässword")
    assert check("anyone", "pässword")
    assert not check("anyone", "password")
    assert not check("anyone", "")


def test_a_port_in_use_is_told_with_its_holder_and_the_next_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found, note = free_port("127.0.0.1", port)
        assert found > port
        assert f"port {port} is in use by python" in note
        assert f"using {found}" in note
    assert free_port("127.0.0.1", port) == (port, "")


def test_a_foreign_address_is_refused():
    with pytest.raises(EnvironmentFault, match="no address of this machine"):
        free_port("203.0.113.7", 7860)


def test_garbage_is_collected_again_after_a_start() -> None:
    with pytest.raises(ValueError), collecting_later():
        assert not gc.isenabled()
        raise ValueError
    assert gc.isenabled() and gc.get_freeze_count() > 0
    gc.unfreeze()
