"""Mistakes that the types must catch: each line is an error (tests/test_typing.py)."""

import stargz

stargz.convert("in.tar", "out", level="1")  # type: ignore[arg-type]
stargz.convert("in.tar", "out", level="reuze")  # type: ignore[arg-type]
stargz.convert("in.tar", "out", 6)  # type: ignore[call-arg]
stargz.convert("in.tar", "out", format="zip")  # type: ignore[arg-type]
stargz.convert("in.tar", "out", prioritized=[1])  # type: ignore[list-item]
stargz.open_image("oci:layout", auth_file="auth.json")  # type: ignore[call-arg]
stargz.open(3.5)  # type: ignore[arg-type]
stargz.open("out").read(b"name")  # type: ignore[arg-type]
