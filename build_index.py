"""Crawl documentation sites and publish them as one searchable snapshot.

examples:
  python build_index.py https://docs.example.org/guide/ --index guide
  python build_index.py --sources sources.toml --index docs --max-pages 500
  python build_index.py ./docs --index handbook       a folder of HTML, Markdown, reStructuredText, notebooks or text
  python build_index.py https://docs.example.org/guide/ --index guide --publish-anyway "the old API is gone"
                                                      what the gate refused (exit 5), published with a reason
  python build_index.py --plan https://docs.example.org/guide/ --index guide     what a build would do and take
  python build_index.py --sources sources.toml --index docs --every 6h     again and again (docs/schedule.md)
  python build_index.py --sources sources.toml --index docs --data-dir s3://bucket/indexes
                                                      an index on S3 (docs/storage.md), here and in all that follows

looking after an index (docs/lifecycle.md):
  python build_index.py --list --index docs           snapshots, newest first; * is live
  python build_index.py --verify --index docs         every byte of the live snapshot (or name one), and its ancestors
  python build_index.py --diff --index docs           pages and sections that the live snapshot changed (or name two)
  python build_index.py --rollback --index docs       the parent of the live snapshot goes live (or name one)
  python build_index.py --rollforward --index docs    takes that back (or name one)
  python build_index.py --gc --dry-run --index docs   what is kept for nothing; without --dry-run it goes
  python build_index.py --export docs.raydex --index docs      the live snapshot as one file, for --import FILE
  python build_index.py --forget https://docs.example.org/guide/old/ --index guide
                                                      removes pages (or a whole source) from the index and every store

exit codes: 0 published (or done) · 1 any other error (--verify: something is wrong) · 2 bad settings
  3 more failed pages than --max-failed-share, or a site whose robots.txt cannot be had · 4 nothing to index
  5 gate refused · 6 another build of this index is running
  130 interrupted, by Ctrl-C or SIGTERM (the same command resumes)

The last line on stdout is one JSON object: snapshot_id, pages, failed_pages, sections, chunks, shards, content_digest,
timings_s, bytes and more. Progress and the closing table go to stderr.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from raydex.build import lifecycle
from raydex.build.mirroring import record_mirrored, run_mirrored
from raydex.build.runs import recorded
from raydex.build.schedule import DEFAULT_JITTER, keep_building
from raydex.config import BuildConfig, add_flags, resolve
from raydex.errors import (
    BuildLocked,
    ConfigError,
    FetchError,
    GateRefused,
    NothingToIndex,
    RaydexError,
    TooManyFailedPages,
)
from raydex.records import Source
from raydex.sources import check_names, index_name, load_document, loader_source, source_from_url, sources_of
from utils.logs import configure_logging

logger = logging.getLogger("build_index")

EXIT_CODES: dict[type[RaydexError], int] = {
    ConfigError: 2,
    TooManyFailedPages: 3,
    FetchError: 3,
    NothingToIndex: 4,
    GateRefused: 5,
    BuildLocked: 6,
}
EXIT_INTERRUPTED = 130


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build_index.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "urls", nargs="*", metavar="URL", help="Start page of a site (all below it is indexed), or a local folder."
    )
    parser.add_argument("--sources", metavar="FILE", type=Path, help="TOML file with [[source]] tables and settings.")
    parser.add_argument("--loader", metavar="MODULE:CLASS", help="Index what a LangChain document loader yields.")
    parser.add_argument(
        "--loader-arg",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="Argument of the loader; may be repeated.",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="Show the snapshots of the index.")
    action.add_argument("--verify", metavar="SNAPSHOT", nargs="?", const="", help="Check the files of a snapshot.")
    action.add_argument(
        "--diff",
        metavar="SNAPSHOT",
        nargs="*",
        help="Compare two snapshots; without names, the live one and its parent.",
    )
    action.add_argument("--rollback", metavar="SNAPSHOT", nargs="?", const="", help="Make an earlier snapshot live.")
    action.add_argument("--rollforward", metavar="SNAPSHOT", nargs="?", const="", help="Take a roll back back.")
    action.add_argument("--gc", action="store_true", help="Delete what no snapshot worth keeping needs.")
    action.add_argument(
        "--export", metavar="FILE", type=Path, help="Write the live snapshot (or --snapshot) to a file."
    )
    action.add_argument(
        "--import", dest="import_", metavar="FILE", type=Path, help="Add the snapshot in a file; live if nothing is."
    )
    action.add_argument("--forget", metavar="PREFIX|SOURCE", help="Remove pages from the index and from every store.")
    action.add_argument("--plan", action="store_true", help="Crawl, and say what a build would embed and how long.")
    action.add_argument("--every", metavar="DURATION", help="Build now, and again each 30m, 6h or 1d, until stopped.")
    parser.add_argument(
        "--jitter",
        metavar="SHARE",
        type=float,
        default=DEFAULT_JITTER,
        help=f"With --every: each build is late by a random share of it, up to this. [default: {DEFAULT_JITTER}]",
    )
    parser.add_argument("--fresh", action="store_true", help="Begin anew instead of resuming an interrupted build.")
    parser.add_argument(
        "--publish-anyway",
        metavar="REASON",
        help="Publish what the gate refuses (never damaged files); the reason is kept in the manifest.",
    )
    parser.add_argument("--snapshot", metavar="SNAPSHOT", default="", help="With --export: another than the live one.")
    parser.add_argument("--publish", action="store_true", help="With --import: make the snapshot live in any case.")
    parser.add_argument("--full", action="store_true", help="With --rollback, --rollforward: read every byte first.")
    parser.add_argument("--dry-run", action="store_true", help="With --gc: say what would go; nothing does.")
    parser.add_argument("--json", action="store_true", help="With --list, --diff: one JSON object per line.")
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    parser.add_argument(
        "--log-level", default="WARNING", choices=levels, help="Log lines on stderr. [default: WARNING]"
    )
    add_flags(parser, BuildConfig)
    return parser


def settings(options: argparse.Namespace) -> tuple[BuildConfig, tuple[Source, ...]]:
    """Return the resolved settings and the sources to crawl."""
    if sum(map(bool, (options.urls, options.sources, options.loader))) > 1:
        raise ConfigError("give URLs, --sources FILE or --loader, one of them")
    document: dict[str, Any] = load_document(options.sources) if options.sources else {}
    config = resolve(BuildConfig, vars(options), document.get("build", {}), str(options.sources or ""))
    limits = {"max_pages": config.crawl.max_pages, "max_depth": config.crawl.max_depth}
    if options.sources:
        sources = sources_of(document, origin=str(options.sources), **limits)
    elif options.loader:
        sources = (loader_source(options.loader, options.loader_arg, **limits),)
    else:
        sources = tuple(source_from_url(url, **limits) for url in options.urls)
        check_names(sources, "command line")
    return config, sources


def main(arguments: Sequence[str] | None = None) -> int:
    options = argument_parser().parse_args(arguments)
    configure_logging(level=options.log_level)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return run(options, sys.argv[1:] if arguments is None else arguments)
    except (KeyboardInterrupt, SystemExit):  # Ray turns SIGTERM into SystemExit while it starts
        print("interrupted: the same command resumes, the live snapshot is untouched", file=sys.stderr)
        return EXIT_INTERRUPTED
    except RaydexError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    except Exception:  # main, on purpose broad: whatever else ends a build, the user is told how to go on
        logger.exception("build failed")
        print("error: the build failed unexpectedly; the same command resumes it", file=sys.stderr)
        return 1


def exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return EXIT_INTERRUPTED
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    config, sources = settings(options)
    configure_logging(level=options.log_level, kind=config.telemetry.log_format)
    if lifecycle.asked(options):
        return lifecycle.look_after(options, config)
    if not sources:
        raise ConfigError("nothing to crawl: give a URL, a folder, --sources FILE or --loader (see --help)")
    if options.publish_anyway is not None and not options.publish_anyway.strip():
        raise ConfigError("--publish-anyway: say why; the reason is kept in the manifest")
    if not config.index:
        config = config.model_copy(update={"index": index_name(sources)})
    index_dir = config.folder / config.index
    if options.every is not None:
        return keep_building(arguments, index_dir, every=options.every, jitter=options.jitter)
    from raydex.build.program import run_build  # Ray takes a third of a second to import; looking after needs none

    reason = (options.publish_anyway or "").strip()
    if options.plan:
        result = run_mirrored(config, lambda here: run_build(here, sources, fresh=options.fresh, plan=True))
    else:
        with record_mirrored(config), recorded(index_dir, exit_code) as recording:
            result = run_mirrored(
                config, lambda here: run_build(here, sources, fresh=options.fresh, publish_anyway=reason)
            )
            recording.result = result
    Console(stderr=True).print(result.table())
    print(result.json_line())
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
