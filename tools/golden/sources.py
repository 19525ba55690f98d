"""Definitions of the originals, loaded by name from a file without its imports."""

import __future__

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import distribution, version
from pathlib import Path
from unittest import mock

# The commit at which each file that is on no package index was read.
COMMITS = {
    "ispamm/GRAM": "718bdc717de9ffe3c3a3da4d8e1b75426af9e565",
    "ispamm/TRIANGLE": "6d4598af447bb7584643ae141885249701dcb0cb",
    "ispamm/ModGap": "e3dfba689a6acdbddc2224ba75706276c94015ac",
    "ml-jku/cloob": "8a16009440f8e8eb9acba8fbb046180719003b28",
    "goel-shashank/CyCLIP": "0042364fdc7157ac3965d83571a875debe0be83f",
    "minyoungg/platonic-rep": "07ef02ab7629ad6fe0fce1a02d70144a55b2c537",
    "autogluon/autogluon": "0e85137b958fe56c249e8cae35cdda0df1512d60",
    "GeWu-Lab/OGM-GE_CVPR2022": "edee4a5e6a62ae15f94bc185fd6aa54af86bed24",
    "Justin1904/Low-rank-Multimodal-Fusion": "16158dbffb6dc23b575c5c697eab951aa0b1a891",
    "pliang279/MultiBench": "071b5b8ec9919b474a6fdb69bf099c1314b02ab4",
    "google-research/big_vision": "0b73d7b02f47d030d61362ef920fed15f36e7bba",
    "google-research/scenic": "03c3032af3e4885489d2e201cf18331753b3c366",
}


class Sources:
    """The folder given with `--sources`, laid out as `<owner>/<repository>/<path>`."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load(self, repository: str, path: str, names: Iterable[str], scope: Mapping) -> dict:
        """The named functions and classes of a file, defined in a copy of `scope`."""
        if self.folder is None:
            raise SystemExit(f"{repository} is on no package index: give --sources DIR")
        return define(self.folder / repository / path, names, scope)

    @staticmethod
    def name(repository: str, symbol: str) -> str:
        """How a golden file names an original of a repository."""
        return f"{repository} {COMMITS[repository]} {symbol}"


def packaged(package: str, symbol: str) -> str:
    """How a golden file names an original that was installed."""
    return f"{package} {version(package)} {symbol}"


def packaged_file(package: str, path: str, names: Iterable[str], scope: Mapping) -> dict:
    """The named definitions of an installed file whose package cannot be imported whole."""
    return define(Path(distribution(package).locate_file(path)), names, scope)


def define(path: Path, names: Iterable[str], scope: Mapping) -> dict:
    wanted = set(names)
    tree = ast.parse(path.read_text())
    nodes = [node for node in tree.body if getattr(node, "name", None) in wanted]
    missing = wanted - {node.name for node in nodes}
    if missing:
        raise SystemExit(f"{path} does not define {sorted(missing)}")
    definitions = dict(scope)
    # Annotations name types that were not imported, so they are left as strings.
    code = compile(
        ast.Module(nodes, []),
        str(path),
        "exec",
        flags=__future__.annotations.compiler_flag,
        dont_inherit=True,
    )
    exec(code, definitions)
    return definitions


class _Stub(MetaPathFinder, Loader):
    """Finds any module below some packages, and makes it of mocks."""

    def __init__(self, packages: Iterable[str]) -> None:
        self.packages = frozenset(packages)

    def find_spec(self, name, path=None, target=None):
        known = name.partition(".")[0] in self.packages
        return ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec):
        return mock.MagicMock(__path__=[], __spec__=spec)

    def exec_module(self, module):
        """Nothing is defined: whatever is asked of it is a mock."""


@contextmanager
def stubbed(*packages: str) -> Iterator[None]:
    """Stands for packages that an original imports and its arithmetic does not use."""
    stub = _Stub(packages)
    sys.meta_path.append(stub)
    try:
        yield
    finally:
        sys.meta_path.remove(stub)
