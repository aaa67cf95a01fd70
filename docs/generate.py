"""Writes docs/cli.md, docs/settings.md and docs/metrics.md from the code; `make docs`. tests/test_docs.py compares.

argument parsers, settings tables, metrics table → Markdown
"""

import os
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from raydex.config import BuildConfig, ServeConfig, settings_of  # noqa: E402 - a script finds the package itself
from raydex.metrics import METRICS  # noqa: E402

NOTE = "<!-- Written by `make docs`; do not edit. -->\n"


def cli_page() -> str:
    """Return the --help of the three programs."""
    import build_index
    import serve_index
    import test_client

    with mock.patch.dict(os.environ, COLUMNS="100"):
        scripts = (build_index, serve_index, test_client)
        helps = {script.__name__: script.argument_parser().format_help().rstrip() for script in scripts}
    parts = [f"## {name}.py\n\n```text\n{text}\n```\n" for name, text in helps.items()]
    return "\n".join([NOTE, "# Command line\n", *parts])


def settings_page() -> str:
    """Return both settings tables: flag, environment variable, place in the TOML file, default, meaning."""
    parts = [
        NOTE,
        "# Settings\n\nOrder: default < file (`[build]` or `[serve]` in `--sources FILE`) < environment < flag.\n",
    ]
    for title, table in (("build_index.py: `[build]`", BuildConfig), ("serve_index.py: `[serve]`", ServeConfig)):
        rows = [
            f"| `{s.flag}` | `{s.variable}` | `{'.'.join(s.path)}` | {s.type_name} | {s.default_text} "
            f"| {s.info.description} |"
            for s in settings_of(table)
        ]
        header = "| flag | environment | file | kind | default | meaning |\n|---|---|---|---|---|---|"
        parts.append(f"## {title}\n\n{header}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def metrics_page() -> str:
    """Return the metrics table with the names as Ray exports them."""
    rows = [
        f"| `{exported_name(m.name, m.kind)}` | {m.kind} | {m.program} | {', '.join(m.labels) or '–'} | {m.help} |"
        for m in METRICS.values()
    ]
    intro = (
        "# Metrics\n\nAs Ray exports them: prefix `ray_`, counters end in `_total`. Series are per process, so always "
        "`sum by (…)`. Histograms also have `_bucket`, `_sum` and `_count`. Those of the service carry Ray Serve's own "
        "labels too (`application`, `deployment`, `replica`).\n"
    )
    header = "| name | kind | program | labels | meaning |\n|---|---|---|---|---|"
    return "\n".join([NOTE, intro, header, *rows]) + "\n"


def exported_name(name: str, kind: str) -> str:
    return f"ray_{name}_total" if kind == "counter" else f"ray_{name}"


PAGES = {"cli.md": cli_page, "settings.md": settings_page, "metrics.md": metrics_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / "docs" / name).write_text(page(), encoding="utf-8")
        print(f"docs/{name}")
