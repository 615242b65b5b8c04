"""The extension modules; everything else is in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = ["csrc/status.c"]
CODECS = [*CORE, "csrc/codecs.c"]
GZIP = [*CODECS, "csrc/gzip.c"]
TOC = [
    "csrc/json.c",
    "csrc/toc.c",
    "csrc/toc_check.c",
    "csrc/toc_entry.c",
    "csrc/toc_fields.c",
    "csrc/toc_format.c",
    "csrc/toc_parse.c",
    "csrc/toc_tree.c",
]
TAR = ["csrc/tar.c", "csrc/tar_pax.c", "csrc/tar_write.c", "csrc/apply.c"]

WRITER = [
    "csrc/hasher.c",
    "csrc/input.c",
    "csrc/cut.c",
    "csrc/cut_members.c",
    "csrc/cut_parse.c",
    "csrc/plain.c",
    "csrc/scan.c",
    "csrc/writer.c",
    "csrc/convert.c",
]

READER = [
    "csrc/decode.c",
    "csrc/open.c",
    "csrc/read.c",
    "csrc/verify.c",
    "csrc/verify_order.c",
    "csrc/verify_segment.c",
    "csrc/verify_tree.c",
]

CHUNKS = [
    "csrc/chunks.c",
    "csrc/chunks_read.c",
    "csrc/decode.c",
    "csrc/deliver.c",
    "csrc/fetch.c",
    "csrc/read.c",
    "csrc/store.c",
    "csrc/wait.c",
]
TREE = ["csrc/tree.c"]
MOUNT = [
    "csrc/fuse.c",
    "csrc/fuse_ask.c",
    "csrc/fuse_dirs.c",
    "csrc/fuse_nodes.c",
    "csrc/fuse_read.c",
    "csrc/fuse_xattrs.c",
]

EXTRACT = [
    "csrc/beneath.c",
    "csrc/extract.c",
    "csrc/extract_data.c",
    "csrc/extract_meta.c",
    "csrc/extract_plan.c",
    "csrc/extract_stages.c",
]

# Which kernels each door to C needs. The kernels hold no global state, so one that two
# modules link is only code twice.
SOURCES = {
    "status": CORE,
    "codecs": CODECS,
    "toc": [*CODECS, *TOC],
    "reader": [*GZIP, *TOC, *TAR, *READER],
    "extract": [*GZIP, *TOC, "csrc/decode.c", "csrc/read.c", *EXTRACT],
    "tree": [*CODECS, *TOC, *TREE],
    "chunks": [*GZIP, *TOC, *CHUNKS],
    "mount": [*GZIP, *TOC, *TREE, *CHUNKS, *MOUNT],
    "writer": [*GZIP, *TOC, *TAR, *WRITER],
}

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"stargz._engine.{name}",
                [f"stargz/_engine/{name}.pyx", *kernels],
                include_dirs=["csrc"],
                extra_compile_args=["-std=gnu11", "-O3", "-fvisibility=hidden", "-pthread"],
                extra_link_args=["-pthread"],
                libraries=["dl"],
            )
            for name, kernels in SOURCES.items()
        ],
        compiler_directives={"language_level": 3, "embedsignature": True},
    )
)
