"""What serve_index.py does with the query log instead of serving: rows go. Text for a person, then a JSON line.

python serve_index.py --forget-queries --since 2026-01-01 --until 2026-01-31 --of-key k3v9qmx2ab
"""

import argparse
import json
from datetime import date

from raydex.config import ServeConfig
from raydex.errors import ConfigError

DETAILS = ("since", "until", "of_key", "of_query")
"""Options of --forget-queries; without it they would be lost silently."""


def add_log_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("query log (docs/analytics.md)")
    group.add_argument("--forget-queries", action="store_true", help="Take rows out of the query log, and end.")
    group.add_argument("--since", type=date.fromisoformat, metavar="DATE", help="Only from this day (UTC) on.")
    group.add_argument("--until", type=date.fromisoformat, metavar="DATE", help="Only until this day, it included.")
    group.add_argument("--of-key", metavar="ID", help="Only what was asked with this API key.")
    group.add_argument("--of-query", metavar="TEXT", help="Only this query, however it was spaced and cased.")


def asked(options: argparse.Namespace) -> bool:
    """Return whether rows are to go. Raises ConfigError for details without --forget-queries, or for no detail."""
    given = [f"--{name.replace('_', '-')}" for name in DETAILS if getattr(options, name) is not None]
    if given and not options.forget_queries:
        raise ConfigError(f"{', '.join(given)}: only with --forget-queries")
    if options.forget_queries and not given:
        raise ConfigError("--forget-queries: say which (--since, --until, --of-key, --of-query)")
    if "" in (options.of_key, options.of_query):
        raise ConfigError("--of-key, --of-query: an empty one names nothing")
    return bool(options.forget_queries)


def run(options: argparse.Namespace, config: ServeConfig) -> list[str]:
    """Do what was asked, and return what to print."""
    from raydex.analytics.log import forget  # imports pyarrow: not for --help or a wrong flag

    gone = forget(
        config,
        options.since or date.min,
        options.until or date.max,
        query=options.of_query or "",
        key_id=options.of_key or "",
    )
    later = f"a running service may still write what was asked in the last {config.analytics.flush_s:g} s"
    return [f"{gone} rows gone from {config.analytics_dir}; {later}", json.dumps({"rows": gone})]
