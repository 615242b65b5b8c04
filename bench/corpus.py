"""Build the benchmark inputs: python -m bench.corpus [--dir DIR] [NAME...]

debian   a Debian minbase root made by debootstrap (as root): large binaries and small files
ansible  an unpacked wheel of ansible: tens of thousands of small files
python   Debian's Python 3.11 and numpy, the layer that goes on top of debian
site-packages  numpy, scipy and pandas, unpacked
text     the sources and message catalogues of SymPy and Django, in files of 5 MB

Each becomes DIR/NAME.tar and DIR/NAME.tar.gz (gzip -6), kept for the next time. DIR is
$STARGZ_BENCH_CORPUS or ~/.cache/stargz-bench.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

DEBIAN_SUITE = "bookworm"
ANSIBLE = "12.3.0"
NUMPY = "2.4.1"
SCIPY = "1.17.0"
PANDAS = "2.3.3"
SYMPY = "1.14.0"
DJANGO = "5.2.8"
PYTHON_PACKAGES = [
    "libexpat1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libreadline8",
    "libsqlite3-0",
    "media-types",
    "python3-minimal",
    "python3.11",
    "python3.11-minimal",
]


def folder() -> Path:
    return Path(os.environ.get("STARGZ_BENCH_CORPUS", Path.home() / ".cache/stargz-bench"))


def _debian(root: Path) -> None:
    subprocess.run(
        ["debootstrap", "--variant=minbase", DEBIAN_SUITE, root], check=True, stdout=sys.stderr
    )


def _wheel(requirement: str, root: Path) -> None:
    """Unpack a wheel for Python 3.11 below a directory."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    with tempfile.TemporaryDirectory() as temp:
        command = [*pip, "--python-version=3.11", "-d", temp, requirement]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (wheel,) = Path(temp).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root)


def _ansible(root: Path) -> None:
    _wheel(f"ansible=={ANSIBLE}", root)


def _python(root: Path) -> None:
    with tempfile.TemporaryDirectory() as temp:
        Path(temp).chmod(0o755)
        subprocess.run(
            ["apt-get", "download", "-q", *PYTHON_PACKAGES],
            check=True,
            cwd=temp,
            stdout=sys.stderr,
        )
        for package in sorted(Path(temp).glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    # As debootstrap's /lib is a link, a layer with a directory of that name would replace it.
    for name in ("bin", "lib", "sbin"):
        if (root / name).is_dir():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / name)
    _wheel(f"numpy=={NUMPY}", root / "usr/lib/python3/dist-packages")


def _site_packages(root: Path) -> None:
    for requirement in (f"numpy=={NUMPY}", f"scipy=={SCIPY}", f"pandas=={PANDAS}"):
        _wheel(requirement, root)


def _text(root: Path) -> None:
    with tempfile.TemporaryDirectory() as temp:
        for requirement in (f"sympy=={SYMPY}", f"django=={DJANGO}"):
            _wheel(requirement, Path(temp))
        paths = sorted(p for p in Path(temp).rglob("*") if p.suffix in (".py", ".po"))
        data = b"".join(path.read_bytes() for path in paths)
    for n, at in enumerate(range(0, len(data), 5_000_000)):
        (root / f"text-{n}").write_bytes(data[at : at + 5_000_000])


BUILDERS: dict[str, Callable[[Path], None]] = {
    "debian": _debian,
    "ansible": _ansible,
    "python": _python,
    "site-packages": _site_packages,
    "text": _text,
}


def build(name: str, target: Path | None = None) -> Path:
    """The path of NAME.tar.gz, made with its NAME.tar beside it if it is not there yet."""
    target = target or folder()
    tar, packed = target / f"{name}.tar", target / f"{name}.tar.gz"
    if packed.exists() and tar.exists():
        return packed
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as temp:
        root = Path(temp) / "root"
        root.mkdir()
        BUILDERS[name](root)
        options = ["--sort=name", "--numeric-owner", "--mtime=@1700000000"]
        unfinished = Path(temp) / "tar"
        subprocess.run(["tar", *options, "-C", root, "-cf", unfinished, "."], check=True)
        unfinished.rename(tar)
        with (Path(temp) / "gz").open("wb") as out:
            subprocess.run(["gzip", "-6", "-n", "-c", tar], check=True, stdout=out)
        (Path(temp) / "gz").rename(packed)
    return packed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, default=folder())
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    args = parser.parse_args()
    for name in args.names or BUILDERS:
        if name not in BUILDERS:
            parser.error(f"{name}: choose from {', '.join(BUILDERS)}")
        packed = build(name, args.dir)
        print(packed, packed.stat().st_size)


if __name__ == "__main__":
    main()
