"""Over a link of 25 ms each way and 100 Mbit/s: an image's Python to its first printed line.

Mounted lazily, against pulling and unpacking the whole image first; and mounted with what that
run reads recorded and put first. Needs root (network namespaces, FUSE, chroot).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import images, link

RUN = "chroot {root} /usr/bin/python3 -c 'print(6 * 7)'"
# Every run starts with an empty cache; the mount is taken down behind the clock.
MOUNT = f"""
set -eu
cache=$(mktemp -d -p {{caches}})
{{python}} -m stargz -q mount docker://{{image}} {{root}} --plain-http --cache-dir $cache {{more}}
[ "$({RUN})" = 42 ]
"""
UNMOUNT = "umount {root}"
# In the foreground, so that the record is written when the shell ends.
RECORD = f"""
set -eu
{{python}} -m stargz -q mount docker://{{image}} {{root}} --foreground --no-background \
    --cache-dir {{caches}} --record {{recording}} &
until mountpoint -q {{root}}; do sleep 0.05; done
[ "$({RUN})" = 42 ]
umount {{root}}
wait $!
"""
PULL = f"""
set -eu
skopeo copy -q --src-tls-verify=false docker://{{image}} oci:{{work}}/layout:image
umoci --log error unpack --image {{work}}/layout:image {{work}}/bundle
[ "$(root={{work}}/bundle/rootfs; {RUN.replace("{root}", "$root")})" = 42 ]
"""
# The strongest way of the usual tools: both layers at once.
STREAM = f"""
set -eu
mkdir {{work}}/root
for digest in {{digests}}; do
    curl -sSf http://{{host}}/v2/plain/blobs/$digest -o {{work}}/$digest &
done
wait
for digest in {{digests}}; do tar -C {{work}}/root -xzf {{work}}/$digest; done
[ "$(root={{work}}/root; {RUN.replace("{root}", "$root")})" = 42 ]
"""


def test_python_over_a_slow_link(tmp_path: Path, compare: Any) -> None:
    root, caches = tmp_path / "root", tmp_path / "caches"
    for path in (root, caches):
        path.mkdir(mode=0o700)
    storage = tmp_path / "registry"
    recording = tmp_path / "recording"
    common = {"python": sys.executable, "root": root, "caches": caches}

    def shell(script: str, prefix: Any = lambda *command: list(command), **words: Any) -> None:
        command = prefix("sh", "-c", script.format(**common, **words))
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    plain, digests = images.plain(tmp_path / "plain")
    pushed = {"plain": plain, "seekable": images.seekable(tmp_path / "seekable")}
    images.push(storage, pushed)
    # What the run reads, by a mount of the very image.
    with images.serve(storage, "127.0.0.1", []) as host:
        shell(RECORD, image=f"{host}/seekable", recording=recording)
    names = [json.loads(line)["path"] for line in recording.read_text().splitlines()]
    options = {"prioritized": names, "allow_missing": True}
    images.push(storage, {"recorded": images.seekable(tmp_path / "recorded", **options)})

    with link.slow_link() as slow, images.serve(storage, link.SERVER, slow.server()) as host:

        def mounted(name: str) -> None:
            shell(MOUNT, slow.client, image=f"{host}/{name}", more="")

        def pulled() -> None:
            work = tempfile.mkdtemp(dir=tmp_path)
            shell(PULL, slow.client, image=f"{host}/plain", work=work)

        def streamed() -> None:
            work = tempfile.mkdtemp(dir=tmp_path)
            shell(STREAM, slow.client, host=host, digests=" ".join(digests), work=work)

        def clean() -> None:
            if os.path.ismount(root):
                shell(UNMOUNT)

        peers = {
            "recorded": lambda: mounted("recorded"),
            "skopeo and umoci": pulled,
            "curl and tar": streamed,
        }
        seconds = compare.medians(lambda: mounted("seekable"), peers, rounds=3, between=clean)
        clean()
    whole = min(seconds["skopeo and umoci"], seconds["curl and tar"])
    compare.figure("slow link: Python, lazily: seconds", seconds["ours"])
    compare.figure("slow link: pulled whole, the faster way: seconds", whole)
    compare.figure("slow link: times as fast as pulled whole", whole / seconds["ours"], ">= 5")
    compare.figure(
        "slow link: recorded, times as fast again", seconds["ours"] / seconds["recorded"], ">= 2"
    )
