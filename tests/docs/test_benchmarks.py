"""The README's figures are those of the benchmarks page."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    headline = page[page.index("## In short") :]
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| [^|]+ \|$", headline, re.MULTILINE)[:4]
    assert len(rows) == 4
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in readme] == []
