"""Generate the Python stubs in client/vmmr from the protos beside this file, or check that they are up to date.

python protos/generate.py [--check]
"""

import argparse
import filecmp
import os
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTOS = Path(__file__).parent
CLIENT = PROTOS.parent / "client"


def generate(out: Path) -> list[Path]:
    """Write the stubs of every proto below `out`; return their paths relative to it."""
    # protoc finds the mypy-protobuf plugin beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    protos = sorted((PROTOS / "vmmr").rglob("*.proto"))
    plugins = [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python", "mypy_grpc")]
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    if protoc.main(["protoc", f"-I{PROTOS}", f"-I{well_known}", *plugins, *map(str, protos)]) != 0:
        sys.exit("protoc failed")
    for package in {out / proto.relative_to(PROTOS).parent for proto in protos}:
        for folder in (package, package.parent):
            (folder / "__init__.py").touch()
    return sorted(path.relative_to(out) for path in out.rglob("*.py*"))


def stale(fresh: Path, stubs: list[Path]) -> list[Path]:
    """Stubs that are missing from, different in, or left over in client/vmmr."""
    committed = {path.relative_to(CLIENT) for path in (CLIENT / "vmmr").glob("*/v[12]/*.py*")}
    left_over = committed - set(stubs)
    _, different, missing = filecmp.cmpfiles(fresh, CLIENT, stubs, shallow=False)
    return sorted({*left_over, *map(Path, different), *map(Path, missing)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if the committed stubs are stale")
    if not parser.parse_args().check:
        generate(CLIENT)
        return
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        if differing := stale(fresh, generate(fresh)):
            sys.exit("stale stubs, run `make protos`: " + ", ".join(map(str, differing)))


if __name__ == "__main__":
    main()
