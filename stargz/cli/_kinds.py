"""What SRC is, where a command was given something that another one takes: that is named."""

from __future__ import annotations

import argparse
from pathlib import Path

from stargz.cli._errors import CommandError
from stargz.errors import UsageError

_STORAGE = Path("docker", "registry", "v2", "repositories")


def check_layer(src: str) -> None:
    """For `convert`: refuse images, archives of them, and directories."""
    from stargz.oci.formats.reference import IMAGE_PREFIXES, parse_image

    path = Path(src)
    if src.startswith(IMAGE_PREFIXES) and not path.exists():
        parse_image(src)  # UsageError
        raise UsageError(f"{src}: is an image, and no layer: stargz image convert {src} DST")
    if path.is_dir():
        raise CommandError(f"{src}: {_directory(path)}")
    if not path.is_file():
        return
    from stargz.oci.formats.recognise import archive_kind

    kind = archive_kind(src)
    if kind is not None:
        raise UsageError(
            f"{src}: is an archive of images, and no layer: stargz image convert {kind}:{src} DST "
            f"(to convert it as any tar: stargz convert - DST < {src})"
        )


def check_file(src: str) -> None:
    """For commands that read a layer: refuse directories, pipes and devices."""
    path = Path(src)
    if path.is_char_device():
        raise UsageError(f"{src}: a character device; give a file, or - for standard input")
    if path.is_fifo() or path.is_socket():
        raise CommandError(
            f"{src}: a layer is read at random offsets, which a pipe cannot do; give - for "
            "standard input, which is copied, or save it to a file first"
        )
    if path.is_dir():
        if (path / "oci-layout").exists():
            raise CommandError(f"{src}: is a directory of images: give oci:{src}")
        raise CommandError(f"{src}: {_directory(path)}")


def of_images(args: argparse.Namespace) -> bool:
    """Whether the command is one of `stargz image`: its SRC is a whole image."""
    return bool(args.prog.startswith("stargz image "))


def check_image(args: argparse.Namespace) -> None:
    """For `image COMMAND`: refuse files and directories that are given without a prefix."""
    from stargz.oci.formats.reference import IMAGE_PREFIXES

    src = args.src
    path = Path(src)
    if src.startswith(IMAGE_PREFIXES):
        return
    if src == "-":
        raise UsageError(
            "-: an image on standard input is docker-archive:- (of `docker save`) or oci-archive:-"
        )
    if path.is_dir():
        if (path / "oci-layout").exists():
            raise UsageError(f"{src}: is an OCI image layout: give oci:{src}")
        raise UsageError(f"{src}: {_directory(path)}")
    if path.is_file():
        from stargz.oci.formats.recognise import archive_kind

        kind = archive_kind(src)
        if kind is not None:
            raise UsageError(f"{src}: is an archive of images: give {kind}:{src}")
        command = args.prog.replace(" image ", " ")
        raise UsageError(f"{src}: is no image but a file: of a layer it is {command} {src}")


def check_directory(src: str) -> None:
    """For `pack`: refuse files."""
    if Path(src).is_file():
        raise CommandError(f"{src}: is a file: stargz convert {src} DST makes a layer of a tar")


def _directory(path: Path) -> str:
    if (path / "oci-layout").exists():
        return f"is an OCI image layout: stargz image convert oci:{path} DST"
    if (path / _STORAGE).is_dir():
        return f"is the storage folder of a registry: stargz image bulk {path} DST"
    return f"is a directory: stargz pack {path} DST makes a layer of it"
