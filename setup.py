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
    "csrc/slab.c",
    "csrc/input.c",
    "csrc/cut.c",
    "csrc/cut_members.c",
    "csrc/cut_parse.c",
    "csrc/plain.c",
    "csrc/scan.c",
    "csrc/sink.c",
    "csrc/toc_writer.c",
    "csrc/writer.c",
    "csrc/convert.c",
    "csrc/convert_stages.c",
]

PACKER = [
    "csrc/beneath.c",
    "csrc/manifest.c",
    "csrc/manifest_check.c",
    "csrc/manifest_index.c",
    "csrc/pack.c",
    "csrc/pack_fill.c",
    "csrc/pack_load.c",
    "csrc/walk.c",
    "csrc/walk_list.c",
    "csrc/walk_open.c",
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

PATCH = [
    "csrc/decode.c",
    "csrc/input.c",
    "csrc/open.c",
    "csrc/patch_apply.c",
    "csrc/patch_ops.c",
    "csrc/patch_read.c",
    "csrc/patch_ring.c",
    "csrc/patch_toc.c",
    "csrc/sink.c",
    "csrc/toc_writer.c",
]

# Which kernels each door to C needs. The kernels hold no global state, so one that two
# modules link is only code twice.
SOURCES = {
    "status": CORE,
    "codecs": CODECS,
    "toc": [*CODECS, *TOC],
    "reader": [*GZIP, *TOC, *TAR, *READER],
    "members": [*GZIP, *TOC, "csrc/decode.c", "csrc/read.c", "csrc/members.c"],
    "extract": [*GZIP, *TOC, "csrc/decode.c", "csrc/read.c", *EXTRACT],
    "tree": [*CODECS, *TOC, *TREE],
    "chunks": [*GZIP, *TOC, *CHUNKS],
    "mount": [*GZIP, *TOC, *TREE, *CHUNKS, *MOUNT],
    "writer": [*GZIP, *TOC, *TAR, *WRITER],
    "packer": [*GZIP, *TOC, *TAR, *WRITER, *PACKER],
    "files": CORE,
    "patch": [*GZIP, *TOC, *TAR, *PATCH],
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
