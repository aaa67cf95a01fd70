"""The whole flow on real documentation, in one command: `make demo`.

    render or take a site → serve it on loopback → build_index.py → serve_index.py → test_client.py → clean up

Debian's python3-doc (tutorial and library pages) is taken where it is installed; elsewhere pdoc renders the standard
library modules below and raydex itself. At most 60 pages either way.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import PYTHON_DOC, ROOT, served, service, stop

MOST_PAGES = 60
LONGEST_RAY_FOLDER = 30  # Ray puts sockets 75 characters below it, and Linux takes 107 in all
INDEX = "demo"
QUESTIONS = ("How do I copy a file?", "parse a date string", "run a command and capture its output")
# fmt: off
MODULES = (
    "argparse", "array", "ast", "base64", "bisect", "calendar", "collections", "configparser", "contextlib", "copy",
    "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "fileinput", "fnmatch", "functools", "getpass",
    "glob", "gzip", "hashlib", "heapq", "io", "itertools", "json", "logging", "pathlib", "pickle", "queue", "random",
    "re", "secrets", "shelve", "shutil", "statistics", "string", "subprocess", "tempfile",
)
# fmt: on
OUR_MODULES = ("raydex", "!raydex.build", "!raydex.serve")  # with these two, more than MOST_PAGES


def take_python_doc() -> tuple[Path, str]:
    """Return the folder of Debian's python3-doc and the [[source]] tables to crawl in it ({url}: its address)."""
    print(f"Taking Debian's python3-doc from {PYTHON_DOC}: the tutorial and {len(MODULES)} library pages.")
    pages = ", ".join(f'"{{url}}library/{name}.html"' for name in MODULES)
    tutorial = f'seeds = ["{{url}}tutorial/index.html"]\nmax_pages = {MOST_PAGES - len(MODULES)}'
    library = f'seeds = [{pages}]\nallow = ["{{url}}library/"]\nmax_depth = 0'
    return PYTHON_DOC, f'[[source]]\nname = "tutorial"\n{tutorial}\n\n[[source]]\nname = "library"\n{library}\n'


def render(modules: Sequence[str], site: Path) -> tuple[Path, str]:
    """Render modules with pdoc; return the folder and the [[source]] table to crawl it."""
    print(f"Rendering {len(modules)} modules with pdoc …", flush=True)
    command = [sys.executable, "-m", "pdoc", "-o", str(site), "--no-show-source", "--no-search", *modules]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, f"pdoc ({done.stderr.strip().splitlines()[-1]})")
    return site, f'[[source]]\nname = "pdoc"\nseeds = ["{{url}}"]\nmax_pages = {MOST_PAGES}\n'


def run(*arguments: str) -> None:
    """Run one of the scripts at the root; Ctrl-C reaches it as SIGTERM, so that it can clean up."""
    print(f"\n$ python {shlex.join(arguments)}", flush=True)
    process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, start_new_session=True)
    try:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, arguments[0])
    finally:
        stop(process)


def demo(modules: Sequence[str], *, keep: bool) -> None:
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="raydex-demo-")))
        if len(str(work)) <= LONGEST_RAY_FOLDER:
            os.environ["RAY_TMPDIR"] = str(work)  # so that Ray's logs go with the rest
        data_dir = ROOT / "checkpoints" if keep else work / "checkpoints"
        if PYTHON_DOC.is_dir() and not modules:
            folder, tables = take_python_doc()
        else:
            folder, tables = render(modules or (*MODULES, *OUR_MODULES), work / "site")
        url = stack.enter_context(served(folder))
        sources = work / "sources.toml"
        sources.write_text(tables.replace("{url}", url), encoding="utf-8")
        run("build_index.py", "--sources", str(sources), "--index", INDEX, "--data-dir", str(data_dir))
        print("\n$ python serve_index.py --index demo", flush=True)
        address = stack.enter_context(service(INDEX, data_dir))
        for question in QUESTIONS:
            run("test_client.py", question, "--url", address, "-k", "3")
    tell_how_to_go_on(keep=keep)


def tell_how_to_go_on(*, keep: bool) -> None:
    kept = "The index is kept in checkpoints/demo; delete the folder when you are done." if keep else (
        "Everything of the demo is removed again (`make demo KEEP=1` keeps the index)."
    )  # fmt: skip
    serve = "demo" if keep else "mine"
    print(f"""
{kept}

Your own documentation:
  .venv/bin/python build_index.py https://docs.example.org/ --index mine
  .venv/bin/python serve_index.py --index {serve}     prints the URL, the OpenAPI docs and the Ray dashboard
  .venv/bin/python test_client.py "your question"
The Ray dashboard (http://127.0.0.1:8265 unless the port was taken) shows the service while it runs.""")


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="Keep the index in checkpoints/demo.")
    parser.add_argument("--modules", nargs="+", default=(), help="Document these modules instead, with pdoc.")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        demo(options.modules, keep=options.keep)
    except KeyboardInterrupt:
        print("\ninterrupted; everything is stopped and removed", file=sys.stderr)
        return 130
    except subprocess.CalledProcessError as error:
        print(f"\n{error.cmd} ended with {error.returncode}; everything is stopped and removed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
