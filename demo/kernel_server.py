"""An HTTP file server on the kernel's own MPTCP sockets: `kernel_server.py DIRECTORY PORT`.

Standard library only; the stack of this project has no part in it.
"""

from __future__ import annotations

import functools
import http.server
import socket
import sys


class MptcpServer(http.server.ThreadingHTTPServer):
    """http.server's, on a socket of protocol IPPROTO_MPTCP."""

    def __init__(self, directory: str, port: int) -> None:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
        super().__init__(("0.0.0.0", port), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
        self.server_bind()
        self.server_activate()


if __name__ == "__main__":
    try:
        MptcpServer(sys.argv[1], int(sys.argv[2])).serve_forever()
    except OSError as error:
        sys.exit(f"no MPTCP socket: {error}")
