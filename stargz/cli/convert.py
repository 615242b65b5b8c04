"""Convert a tar, tar.gz or tar.zst into a seekable layer.

The result is still one valid tar.gz, of zstd:chunked a tar.zst. Its bytes depend on the input and
the options alone, never on the number of threads. DST appears complete or not at all. SRC may be a
seekable layer of any format: its tar is converted to another."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stargz.cli import _convert_options, _options
from stargz.cli._destination import add_destination, is_stdout, named, writable
from stargz.cli._errors import OK, CommandError
from stargz.cli._kinds import check_layer
from stargz.cli._layers import binary_stdin, check_not_url, is_ordinary
from stargz.cli._output import layer_rows, layer_speed, print_result
from stargz.cli._progress import Progress
from stargz.endpoints import is_same_file, is_stream
from stargz.errors import EntryNotFoundError, UsageError

if TYPE_CHECKING:
    from stargz.conversion import ConvertResult
    from stargz.options import Level

EXAMPLE = """\
stargz convert layer.tar.gz
stargz convert --level 6 --prioritize usr/bin/python3 layer.tar.gz small.stargz
stargz convert --format zstd:chunked layer.tar.gz
zcat layer.tar.gz | stargz convert - - | ssh host 'cat > layer.stargz'"""

# A layer is larger than its input by more than its TOC and its members' headers: worth a word.
_LARGER = 1.2
_SMALLER_LEVEL = 6
# Where members hold more on average, putting small files together saves nothing.
_SMALL_FILES = 256 << 10

_SUFFIXES = (".tar.gz", ".tar.zst", ".tar", ".tgz", ".tzst")
_OWN_SUFFIX = ".stargz"
_ZSTD_SUFFIX = ".chunked.tar.zst"

# What gzip does besides compressing, and who does it here.
_ELSEWHERE = (
    ("-d", "--decompress", "a layer is a tar.gz: gzip -dc (zcat) makes it a tar again, and "
     "stargz extract unpacks it"),
    ("-t", "--test", "stargz verify checks a layer"),
    ("-l", "--list", "stargz info has a layer's sizes, and stargz ls its files"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `stargz convert`."""
    parser.add_argument(
        "src", metavar="SRC", help="a tar, tar.gz or tar.zst file, or - for standard input"
    )
    add_destination(
        parser,
        "the layer to write, or - for standard output (default: SRC less its suffix plus .stargz, "
        "of zstd:chunked plus .chunked.tar.zst)",
    )
    parser.add_argument(
        "-c", "--stdout", action="store_true", help="write to standard output: DST is -"
    )
    _convert_options.add_layout_options(parser)
    _convert_options.add_strict(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="inflate each gzip member again before it is written, and compare (not of the zstd "
        "formats)",
    )
    parser.add_argument(
        "--toc-out",
        metavar="FILE",
        help="of external-toc: where its TOC goes (default: DST plus .toc)",
    )
    parser.add_argument(
        "-f", "--force", action="store_true", help="replace DST (and its TOC) if it exists"
    )
    parser.add_argument(
        "-k", "--keep", action="store_true", help="nothing changes: SRC is always kept"
    )
    for letter, name, instead in _ELSEWHERE:
        parser.add_argument(
            letter,
            name,
            dest="instead",
            action="store_const",
            const=f"{letter}: {instead}",
            help=argparse.SUPPRESS,
        )
    _options.add_threads(parser)
    _options.add_limits(parser)
    _options.add_output_options(parser)


def run(args: argparse.Namespace) -> int:
    """Convert SRC to DST."""
    from stargz.conversion import convert
    from stargz.options import ConvertOptions, default_level, is_zstd

    if args.instead:
        raise UsageError(args.instead)
    if args.src != "-":
        check_layer(args.src)
    dst = _destination(args.src, _named(args), is_zstd(args.format))
    to_stdout = dst == "-"
    options = {
        "level": default_level(args.format) if args.level is None else args.level,
        "chunk_size": args.chunk_size,
        "min_chunk_size": args.min_chunk_size,
        "prioritized": _convert_options.prioritized(args),
        "allow_missing": args.allow_missing,
        "lossless": args.lossless,
        "format": args.format,
        "strict": args.strict,
        "verify": args.verify,
        "threads": args.threads,
        "memory": args.memory,
        "max_sparse": args.max_sparse,
        "toc_out": _toc_out(args, dst),
    }
    source: str | BinaryIO
    if args.src == "-":
        source = binary_stdin()
    else:
        check_not_url(args.src)
        source = args.src
    ConvertOptions(**{name: options[name] for name in ConvertOptions.__dataclass_fields__})
    is_input = dst.lower().endswith(_SUFFIXES) and not dst.lower().endswith(_ZSTD_SUFFIX)
    note = " (it would be DST: convert takes one SRC)" if is_input else ""
    target = writable(dst, [args.src], args.force, note=note)
    if args.force and is_input and args.output is None and is_ordinary(dst):
        raise CommandError(
            f"{dst}: is an ordinary tar, and taken for DST: convert takes one SRC; to replace it, "
            f"name it by -o {dst}"
        )
    with Progress(Path(args.src).name, args, json_on_stderr=to_stdout) as progress:
        try:
            result = convert(source, target, **options, progress=progress.callback)
        except EntryNotFoundError as error:
            raise CommandError(f"{error}; --allow-missing goes on without it") from None
    _report(result, dst, options["toc_out"], args)
    return OK


def _named(args: argparse.Namespace) -> str | None:
    """The DST that was given, also by -c; None if none was."""
    dst = named(args)
    if not args.stdout:
        return dst
    if dst not in (None, "-"):
        raise UsageError(f"-c is standard output, and DST is {dst}: leave one out")
    return "-"


def _destination(src: str, dst: str | None, zstd: bool) -> str:
    """DST, or its default: SRC less its suffix plus .stargz, or plus .chunked.tar.zst."""
    if dst is not None:
        return dst
    if src == "-":
        raise UsageError("SRC is -, so DST is needed (- for standard output)")
    new = _ZSTD_SUFFIX if zstd else _OWN_SUFFIX
    if src.lower().endswith(new):
        raise UsageError(
            f"{src}: is called a layer already; to convert it again, name DST: stargz convert "
            f"{src} DST"
        )
    known = (_OWN_SUFFIX, _ZSTD_SUFFIX, *_SUFFIXES)
    suffix = next((s for s in known if src.lower().endswith(s)), "")
    stem = src[: len(src) - len(suffix)]
    if not Path(src).name[: -len(suffix) or None]:
        raise UsageError(f"{src}: no name is left without its suffix; DST is needed")
    return stem + new


def _toc_out(args: argparse.Namespace, dst: str) -> str | None:
    """Where an external TOC goes, which is a file; None for the other formats. What is wrong usage
    is told of before what exists."""
    from stargz.options import TOC_SUFFIX

    toc: str | None = args.toc_out
    if args.format != "external-toc":
        if toc is not None:
            raise UsageError("--toc-out is for --format external-toc alone")
        return None
    if toc is None:
        if dst == "-" or is_stream(dst):
            raise UsageError(
                "--format external-toc has its TOC in a file of its own, which has no name where "
                "DST is none: name it by --toc-out FILE"
            )
        toc = dst + TOC_SUFFIX
    elif toc == "-" or is_stdout(toc):
        raise UsageError(f"--toc-out {toc}: the TOC cannot go to standard output; name a file")
    if is_same_file(toc, dst):
        raise UsageError(f"--toc-out {toc} is DST: name another file")
    writable(toc, [args.src], args.force, "--toc-out")
    return toc


def _report(result: ConvertResult, dst: str, toc_out: str | None, args: argparse.Namespace) -> None:
    warnings = [*result.warnings]
    warnings += [f"prioritized path is not there: {path}" for path in result.missing]
    rows = [*layer_rows(result, dst, _against(result, args)), ("seconds", f"{result.seconds:.3f}")]
    if toc_out is not None:
        rows.insert(1, ("toc", toc_out))
    if _level(result) != result.level:
        rows.append(("note", "no matches of the input could be reused: compressed by level 1"))
    told = [f"{args.src}: {text}" for text in warnings]
    print_result(args, dst, result, rows, layer_speed(result), told)


def _level(result: ConvertResult) -> Level:
    """The level that made it: of "reuse" the default where nothing could be reused."""
    from stargz.options import DEFAULT_LEVEL, codec_name

    if result.level == "reuse" and result.codec != codec_name("reuse"):
        return DEFAULT_LEVEL
    return result.level


def _against(result: ConvertResult, args: argparse.Namespace) -> str:
    """The layer's size against that of a compressed input, and what would make it smaller."""
    from stargz.options import MEMBERS_SHARED

    kind = _compression(args.src) if result.source_size else None
    if not result.source_size or kind is None:
        return ""
    ratio = result.size / result.source_size
    text = f", {ratio:.2g} times" if ratio >= 1.995 else f", {ratio:.2f} times"
    text += f" the {kind}"
    hints = []
    if ratio >= _LARGER:
        level = _level(result)
        if level != "reuse" and level < _SMALLER_LEVEL:
            hints.append(f"--level {_SMALLER_LEVEL}")
        small = result.uncompressed_size < _SMALL_FILES * result.chunks
        if small and not args.min_chunk_size and args.format in MEMBERS_SHARED:
            hints.append("--min-chunk-size 1M")
    if not hints:
        return text
    text += f"; {hints[0]} is smaller"
    if len(hints) > 1:
        text += f", and so is {hints[1]}"
    return text + (", which only newer snapshotters read" if "chunk" in hints[-1] else "")


def _compression(src: str) -> str | None:
    """What a file is that is compressed; None for a tar, and for what is no file."""
    from stargz.compressions import HEAD, compression

    if src == "-":
        return None
    kind = None
    with suppress(OSError), Path(src).open("rb") as file:  # it may have gone meanwhile
        kind = compression(file.read(HEAD))
    return {"gzip": "tar.gz", "zstd": "tar.zst"}.get(kind or "")
