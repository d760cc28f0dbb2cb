"""No module imports itself by way of others: a circle of imports is one module in several files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import grimp

from deploy.check.findings import ROOT, Finding

WHY: Final = "Modules in a circle can only be read, tested and moved together."
DO: Final = "Turn one import round: move what both need into a third module, or take it as a parameter or Protocol."


def find() -> Iterator[Finding]:
    """Each import that is part of a circle, also for types alone and inside functions, in all our packages."""
    folders = {path.parent.name: path.parent for path in ROOT.glob("*/*/src/*/__init__.py")}
    folders |= {name: ROOT / name for name in ("deploy", "tests")}
    graph = grimp.build_graph(*folders, cache_dir=None)
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            back = graph.find_shortest_chain(importer=imported, imported=importer)
            if back is not None:
                line = graph.get_import_details(importer=importer, imported=imported)[0]["line_number"]
                what = f"It closes a circle of imports: {' -> '.join((importer, *back))}."
                yield Finding(_file_of(folders, importer), line, what, WHY, DO)


def _file_of(folders: dict[str, Path], module: str) -> Path:
    package, *names = module.split(".")
    path = folders[package].joinpath(*names)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
