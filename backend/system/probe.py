"""Says whether the Python that runs this file can carry Atelier; used by both launchers.

Exit status 0: yes. Otherwise one line says what is wrong. Any Python that a machine may have must be
able to read this file, however old, so it keeps to the oldest syntax.
"""

import sys

OLDEST = (3, 10)
NEWEST = (3, 13)


def reason(version, is_64_bit, has_venv):  # type: ignore[no-untyped-def]
    """What speaks against a Python, or an empty text."""
    name = "Python " + ".".join(str(part) for part in version[:3])
    if tuple(version[:2]) < OLDEST:
        return name + " is too old; Atelier needs 3.10, 3.11, 3.12 or 3.13"
    if tuple(version[:2]) > NEWEST:
        return name + " is too new; Atelier needs 3.10, 3.11, 3.12 or 3.13"
    if not is_64_bit:
        return name + " is a 32-bit program; Atelier needs the 64-bit one"
    if not has_venv:
        package = "python" + ".".join(str(part) for part in version[:2]) + "-venv"
        return name + " has no venv module; install it (Debian, Ubuntu: sudo apt install " + package + ")"
    return ""


def main():  # type: ignore[no-untyped-def]
    """Print what is wrong with this Python, if anything, and say it in the exit status."""
    try:
        import ensurepip
        import venv

        has_venv = bool(ensurepip and venv)
    except ImportError:
        has_venv = False
    found = reason(sys.version_info, sys.maxsize > 2**32, has_venv)
    if found:
        print(found + " (" + sys.executable + ")")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
