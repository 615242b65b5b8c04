"""A slow link on one machine: two network namespaces, joined by a delay and a rate.

With the kernel's netem where it has it, else by link.c over two tun devices, which does the
same. Needs root. Run a program at either end with `link.client(...)` or `link.server(...)`,
which prefix its command; mounts and files are the same at both ends.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

SERVER, CLIENT = "10.213.77.1", "10.213.77.2"


def _ip(*args: object) -> None:
    subprocess.run(["ip", *map(str, args)], check=True, capture_output=True)


class Link:
    """Two ends, by the names of their namespaces; `netem` says what makes the delay."""

    def __init__(self, server: str, client: str, netem: bool) -> None:
        self._server, self._client, self.netem = server, client, netem

    def server(self, *command: object) -> list[str]:
        """The command line that runs a command where the address is SERVER."""
        return ["nsenter", f"--net=/run/netns/{self._server}", *map(str, command)]

    def client(self, *command: object) -> list[str]:
        """The command line that runs a command at the other end."""
        return ["nsenter", f"--net=/run/netns/{self._client}", *map(str, command)]


@contextmanager
def slow_link(milliseconds: float = 25, mbit: float = 100) -> Iterator[Link]:
    """A link with this delay each way and this rate, taken down at the end."""
    with ExitStack() as stack:
        names = [f"stargz-{os.getpid()}-{end}" for end in ("server", "client")]
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("-n", name, "link", "set", "lo", "up")
        netem = _netem(names, milliseconds, mbit)
        if not netem:
            stack.enter_context(_tunnel(names, milliseconds, mbit))
        for name, own, other in zip(names, (SERVER, CLIENT), (CLIENT, SERVER), strict=True):
            _ip("-n", name, "addr", "add", own, "peer", other, "dev", "wire")
            _ip("-n", name, "link", "set", "wire", "up")
        yield Link(*names, netem)


def _netem(names: list[str], milliseconds: float, mbit: float) -> bool:
    first, second = names
    _ip("-n", first, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", second)
    for name in names:
        rule = ["qdisc", "add", "dev", "wire", "root", "netem"]
        limits = ["delay", f"{milliseconds}ms", "rate", f"{mbit}mbit"]
        done = subprocess.run(["tc", "-n", name, *rule, *limits], capture_output=True)
        if done.returncode:
            _ip("-n", first, "link", "del", "wire")
            return False
    return True


@contextmanager
def _tunnel(names: list[str], milliseconds: float, mbit: float) -> Iterator[None]:
    with ExitStack() as stack:
        temp = stack.enter_context(tempfile.TemporaryDirectory())
        program = Path(temp) / "link"
        source = Path(__file__).with_name("link.c")
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program, source], check=True)
        ends = [os.open(f"/run/netns/{name}", os.O_RDONLY) for name in names]
        try:
            process = subprocess.Popen(
                [program, str(milliseconds), str(mbit), *map(str, ends)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=ends,
            )
        finally:
            for end in ends:
                os.close(end)
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise OSError("the slow link did not start")
            yield
            process.stdin.close()
