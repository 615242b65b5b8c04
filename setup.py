"""The kernels and the modules over them; everything else is in pyproject.toml.

csrc/ is one static library, each kernel compiled once; a module of stargz/_engine links those
that it calls. The kernels hold no global state, so one that two modules link is only code twice.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_clib import build_clib
from setuptools.command.build_ext import build_ext

CORES = len(os.sched_getaffinity(0))
FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-fvisibility=hidden", "-pthread"]
SANITIZE = []
if sanitizers := os.environ.get("STARGZ_SANITIZE"):  # tests/sanitized sets it
    SANITIZE = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    FLAGS += [*SANITIZE, "-O1", "-g", "-fno-omit-frame-pointer"]
KERNELS = sorted(map(str, Path("csrc").glob("*/*.c")))
HEADERS = sorted(map(str, Path("csrc").glob("*/*.h")))
MODULES = sorted(path.stem for path in Path("stargz/_engine").glob("*.pyx"))


class BuildKernels(build_clib):
    """Compile on all cores: setuptools takes one file after the other."""

    def build_libraries(self, libraries):
        compile_some = self.compiler.compile

        def compile_all(sources, **options):
            with ThreadPoolExecutor(CORES) as pool:
                objects = pool.map(lambda source: compile_some([source], **options), sources)
                return [path for some in objects for path in some]

        self.compiler.compile = compile_all
        super().build_libraries(libraries)


class BuildModules(build_ext):
    """Strip what is installed; who builds in place, or with sanitizers, wants the symbols."""

    def build_extension(self, ext):
        if not (self.editable_mode or self.inplace or SANITIZE):
            ext.extra_link_args = [*ext.extra_link_args, "-Wl,-s"]
        super().build_extension(ext)


if __name__ == "__main__":
    setup(
        cmdclass={"build_clib": BuildKernels, "build_ext": BuildModules},
        options={"build_ext": {"parallel": CORES}},
        libraries=[
            (
                "kernels",
                {
                    "sources": KERNELS,
                    "obj_deps": {"": HEADERS},
                    "include_dirs": ["csrc"],
                    "cflags": FLAGS,
                },
            )
        ],
        ext_modules=cythonize(
            [
                Extension(
                    f"stargz._engine.{name}",
                    [f"stargz/_engine/{name}.pyx"],
                    depends=[*KERNELS, *HEADERS],
                    include_dirs=["csrc"],
                    extra_compile_args=FLAGS,
                    extra_link_args=["-pthread", *SANITIZE],
                    libraries=["dl"],
                )
                for name in MODULES
            ],
            nthreads=CORES,
            compiler_directives={"language_level": 3, "embedsignature": True},
        ),
    )
