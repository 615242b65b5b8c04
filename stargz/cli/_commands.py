"""Which commands there are, and their parsers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from stargz.cli._options import Parser

# The one place that lists the commands; the help line stands here so that `stargz --help`
# imports none of their modules.
COMMANDS = {
    "convert": "make a seekable layer from a tar, tar.gz or tar.zst",
    "pack": "make a seekable layer of a directory; with --base at the cost of what changed",
    "index": "make the index by which an ordinary tar.gz or tar is read where it is",
    "info": "kind, sizes, counts and digests of a layer",
    "ls": "list a layer's files",
    "find": "list the files that pass tests: -name '*.so' -size +1M ...",
    "du": "bytes of the files below a layer's directories",
    "tree": "draw a layer's directories as a tree",
    "cat": "write files' contents to standard output, reading only what they need",
    "extract": "unpack a layer or some of its paths, safely and in parallel",
    "verify": "check every member, chunk and file of a layer or an image, and the TOCs",
    "toc": "write a layer's TOC (JSON) to standard output, byte for byte",
    "diff": "what differs between two layers, and how much there is to send",
    "delta": "make a patch: what one layer needs to become another",
    "apply": "make a layer of another one and a patch",
    "image": "convert, index, bulk, info, ls, find, du, tree, cat, extract, diff of images",
    "mount": "mount a layer or an image, read-only",
    "cache": "info, prune: the disk cache of what was fetched",
    "demo": "convert, verify and read a real layer made on this machine",
    "bench": "measure stargz and what else does the same, on your input and machine",
}

_EXIT_CODES = """\
exit codes:
  0 done, 1 failed, 2 wrong usage, 3 verification failed, 130 interrupted

STARGZ_DEBUG=1 in the environment adds Python's traceback to an error.
'stargz COMMAND --help' has the options and an example of each command."""


def command_parser(name: str, module: ModuleType) -> Parser:
    """The parser of one command ("ls", "image ls")."""
    from stargz.cli._options import Parser

    parser = Parser(prog=f"stargz {name}", description=module.__doc__, example=module.EXAMPLE)
    module.add_arguments(parser)
    return parser


def group_parser(name: str, module: ModuleType) -> Parser:
    """The parser of a group, where no command of it is given."""
    from stargz.cli._options import Parser, add_output_options

    parser = Parser(
        prog=f"stargz {name}",
        usage=f"stargz {name} COMMAND [options] ...",
        description=f"{module.__doc__}\n\ncommands:\n{_listing(module.COMMANDS)}",
        example=module.EXAMPLE,
    )
    add_output_options(parser)
    return parser


def top_parser() -> Parser:
    """The parser of `stargz` where no command is given."""
    from stargz.cli._options import Parser, add_output_options

    listing = _listing(COMMANDS)
    parser = Parser(
        prog="stargz",
        usage="stargz COMMAND [options] ...",
        description="Make compressed container layers seekable, and read, verify and extract "
        f"them.\n\ncommands:\n{listing}",
        example="stargz convert layer.tar.gz",
        notes=_EXIT_CODES,
    )
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    parser.add_argument(
        "--print-completion",
        choices=("bash", "zsh", "fish"),
        metavar="SHELL",
        help="print what bash, zsh or fish needs to complete commands and options, and stop: "
        'eval "$(stargz --print-completion bash)"',
    )
    add_output_options(parser)
    return parser


def _listing(commands: dict[str, str]) -> str:
    width = max(map(len, commands))
    return "\n".join(f"  {name:{width}}  {text}" for name, text in commands.items())
