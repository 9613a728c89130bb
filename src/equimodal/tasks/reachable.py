"""Whether a server that speaks gRPC answers at an address: found out within seconds."""

from __future__ import annotations

import os
import socket

from equimodal.errors import SetupError

PATIENCE = 3.0  # seconds to answer
# How a client of HTTP/2 begins (RFC 9113, section 3.4): the preface, and a frame of no settings.
# A server answers with a frame of its own settings, which are of type 4.
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4


def refuse_silence(address: str) -> None:
    """Refuse an address at which no server of gRPC answers.

    Where RAY_USE_TLS says that it would only answer what is encrypted, one that listens is enough.

    Args:
        address: ``HOST:PORT``.

    Raises:
        SetupError: it is not of this form, or nobody answers there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SetupError(f"--address: expected HOST:PORT or auto, found {address}")
    problem = "something else than Ray answers"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as server:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            server.sendall(HELLO)
            if len(frame := server.recv(9)) > 3 and frame[3] == SETTINGS:
                return
    except TimeoutError:
        problem = f"nobody answers within {PATIENCE:g} s"
    except OSError as error:
        problem = error.strerror or str(error)
    raise SetupError(
        f"--address {address}: no Ray cluster could be joined there ({problem}). Name the head of "
        "one that runs, or start one with `ray start --head`: it is not started for you"
    )
