"""How the documentation becomes a site: ``make docs``."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# The provider is imported for its reference: of no Airflow of this machine is anything read or written.
for _name in [name for name in os.environ if name.startswith(("AIRFLOW_", "AIRBYTE_EVENTS_"))]:
    del os.environ[_name]
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="docs-airflow-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)

# The listener and the Airflow that pages are made from tell of themselves; warnings are Sphinx's alone.
logging.disable(logging.INFO)

import airbyte_events  # noqa: E402

project = "airbyte-events"
author = "The airbyte-events maintainers"
version = release = airbyte_events.__version__
language = "en"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "from_code"]
exclude_patterns = ["examples"]
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!airbyte_events).*"),  # names of other projects, whose places are to be had from the network alone
    # What docstrings say to readers of the source.
    ("py:(func|mod|data)", r"airbyte_events.*"),
    (
        "py:class",
        r"airbyte_events\.events\.identity\._Identified|airbyte_events\.monitor\.monitor\.Monitor|airbyte_events_provider\.connections\.settings\.AirbyteSettings|airbyte_events_provider\.hooks\.airbyte\.T",
    ),
]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_title = f"airbyte-events {release}"
html_copy_source = False
html_show_sphinx = False
