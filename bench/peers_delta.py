"""What `pack --base`, `delta` and `apply` are compared with: ways to send a tree, or a layer, to
somebody who has the one before. Debian's rsync, zstd and xdelta3; GNU tar, gzip and igzip.

Every command as it is run (TREE has been edited since; FIRST, its first state, has the old one):

tar | gzip -6          tar -C TREE --sort=name -cf - . | gzip -6 -n > OUT
tar | igzip -1         tar -C TREE --sort=name -cf - . | igzip -1 > OUT
rsync                  rsync -a --delete --no-whole-file --only-write-batch=OUT TREE/ FIRST/
tar, zstd              tar -C TREE --sort=name -cf NEW .  and
                       zstd -q -f -T0 --patch-from=OLD NEW -o OUT
tar, xdelta3           tar likewise, and  xdelta3 -D -e -f -B SIZE -s OLD NEW OUT
zstd of the layers     zstd -q -f -T0 --patch-from=OLD NEW -o OUT
xdelta3 of the layers  xdelta3 -D -e -f -B SIZE -s OLD NEW OUT

OLD and NEW are tars of the two states, or their layers; SIZE is OLD's size, so that xdelta3 looks
at all of it (its default is 64 MiB); -D and -R let it take a layer's bytes as they are. To make
NEW again: `zstd -q -d -f --long=31 --patch-from=OLD OUT -o NEW` and `xdelta3 -D -R -d -f -B SIZE
-s OLD OUT NEW`. rsync's batch is applied to a copy of FIRST, whose making is not timed:
`rsync -a --delete --read-batch=OUT COPY/`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

# Debian's package of each program that may not be there.
PACKAGES = {"rsync": "rsync", "zstd": "zstd", "xdelta3": "xdelta3", "igzip": "isal"}


def tar(tree: Path, out: Path) -> None:
    """A tar of a tree: the same for the same tree."""
    subprocess.run(["tar", "-C", tree, "--sort=name", "-cf", out, "."], check=True)


def tar_packed(tree: Path, out: Path, packer: list[str]) -> None:
    """tar | packer > out."""
    command = ["tar", "-C", str(tree), "--sort=name", "-cf", "-", "."]
    with out.open("wb") as file, subprocess.Popen(command, stdout=subprocess.PIPE) as made:
        subprocess.run(packer, stdin=made.stdout, stdout=file, check=True)
    if made.returncode:
        raise subprocess.CalledProcessError(made.returncode, command)


def rsync_batch(tree: Path, first: Path, out: Path) -> None:
    batch = f"--only-write-batch={out}"
    options = ["-a", "--delete", "--no-whole-file"]
    subprocess.run(["rsync", *options, batch, f"{tree}/", f"{first}/"], check=True)


def rsync_apply(batch: Path, copy: Path) -> None:
    subprocess.run(["rsync", "-a", "--delete", f"--read-batch={batch}", f"{copy}/"], check=True)


def zstd_patch(old: Path, new: Path, out: Path) -> None:
    command = ["zstd", "-q", "-f", "-T0", f"--patch-from={old}", new, "-o", out]
    subprocess.run(command, check=True)


def zstd_apply(old: Path, patch: Path, out: Path) -> None:
    command = ["zstd", "-q", "-d", "-f", "--long=31", f"--patch-from={old}", patch, "-o", out]
    subprocess.run(command, check=True)


def xdelta_patch(old: Path, new: Path, out: Path) -> None:
    window = str(max(old.stat().st_size, 1 << 20))
    subprocess.run(["xdelta3", "-D", "-e", "-f", "-B", window, "-s", old, new, out], check=True)


def xdelta_apply(old: Path, patch: Path, out: Path) -> None:
    window = str(max(old.stat().st_size, 1 << 20))
    subprocess.run(
        ["xdelta3", "-D", "-R", "-d", "-f", "-B", window, "-s", old, patch, out], check=True
    )
