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

from pathlib import Path

from stargz.benchmark import children


def tar(tree: Path, out: Path) -> None:
    """A tar of a tree: the same for the same tree."""
    children.run("tar", "-C", tree, "--sort=name", "-cf", out, ".")


def tar_packed(tree: Path, out: Path, packer: list[str]) -> None:
    """tar | packer > out."""
    children.pipeline(["tar", "-C", tree, "--sort=name", "-cf", "-", "."], packer, out)


def rsync_batch(tree: Path, first: Path, out: Path) -> None:
    """What makes FIRST what TREE is."""
    batch = f"--only-write-batch={out}"
    options = ["-a", "--delete", "--no-whole-file"]
    children.run("rsync", *options, batch, f"{tree}/", f"{first}/")


def rsync_apply(batch: Path, copy: Path) -> None:
    """Make it so."""
    children.run("rsync", "-a", "--delete", f"--read-batch={batch}", f"{copy}/")


def zstd_patch(old: Path, new: Path, out: Path) -> None:
    """What makes NEW of OLD."""
    children.run("zstd", "-q", "-f", "-T0", f"--patch-from={old}", new, "-o", out)


def zstd_apply(old: Path, patch: Path, out: Path) -> None:
    """NEW again."""
    options = ["-q", "-d", "-f", "--long=31"]
    children.run("zstd", *options, f"--patch-from={old}", patch, "-o", out)


def xdelta_patch(old: Path, new: Path, out: Path) -> None:
    """What makes NEW of OLD."""
    children.run("xdelta3", "-D", "-e", "-f", "-B", _window(old), "-s", old, new, out)


def xdelta_apply(old: Path, patch: Path, out: Path) -> None:
    """NEW again."""
    children.run("xdelta3", "-D", "-R", "-d", "-f", "-B", _window(old), "-s", old, patch, out)


def _window(old: Path) -> int:
    return max(old.stat().st_size, 1 << 20)
