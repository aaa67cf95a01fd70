"""Writes what is made from the code; `make docs`. tests/test_docs.py compares.

argument parsers, settings tables, metrics table → docs/{cli,settings,metrics}.md
rules and panels of raydex/monitoring → deploy/prometheus/raydex.rules.yml, deploy/grafana/raydex.json
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from raydex.config import BuildConfig, ServeConfig, settings_of  # noqa: E402 - a script finds the package itself
from raydex.metrics import METRICS  # noqa: E402
from raydex.monitoring.dashboards import grafana_json  # noqa: E402
from raydex.monitoring.panels import OURS  # noqa: E402
from raydex.monitoring.rules import rules_text  # noqa: E402

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
        f"| `{m.exported}` | {m.kind} | {m.program} | {', '.join(m.labels) or '–'} | {m.help} |"
        for m in METRICS.values()
    ]
    intro = (
        "# Metrics\n\nAs Ray exports them: prefix `ray_`, counters end in `_total`. Series are per process, so always "
        "`sum by (…)`. Histograms also have `_bucket`, `_sum` and `_count`; Ray makes "
        "the sum up from the middles of the buckets, so take no "
        "means from it ([monitoring.md](monitoring.md)). Those of the service carry Ray Serve's own "
        "labels too (`application`, `deployment`, `replica`).\n"
    )
    header = "| name | kind | program | labels | meaning |\n|---|---|---|---|---|"
    return "\n".join([NOTE, intro, header, *rows]) + "\n"


PAGES: dict[str, Callable[[], str]] = {
    "docs/cli.md": cli_page,
    "docs/settings.md": settings_page,
    "docs/metrics.md": metrics_page,
    "deploy/prometheus/raydex.rules.yml": rules_text,
    "deploy/grafana/raydex.json": lambda: grafana_json(OURS),
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / name).parent.mkdir(exist_ok=True)
        (ROOT / name).write_text(page(), encoding="utf-8")
        print(name)
