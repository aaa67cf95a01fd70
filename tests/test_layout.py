"""The map in docs/architecture.md, as a test: what each module may import, and how long it may grow."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORDS = {"records", "errors", "metrics", "config"}
STAGES = {
    *("sources", "crawl", "render", "parse", "chunk", "duplicates", "embed", "shard"),
    *("lexical", "answer", "evaluate", "client"),
}
MAY_IMPORT = {  # room -> the rooms it may import; a stage never imports another stage
    "__init__": set(),
    "records": set(),
    "errors": set(),
    "metrics": set(),
    "config": {"records", "errors"},
    "query": set(),
    **dict.fromkeys(STAGES, WORDS),
    "ann": WORDS,
    "tables": WORDS,
    "columns": WORDS,
    "filters": WORDS,
    "lexical": WORDS | {"query", "filters"},  # it searches what a query was read as
    "shard": WORDS | {"ann", "tables", "columns"},  # the files of a shard; index and tables are matters of their own
    "digest": WORDS | {"shard"},
    "journal": WORDS,
    "keys": WORDS,
    "snapshot": WORDS | {"shard", "lexical", "digest", "journal"},
    "checkpoint": WORDS,
    "cluster": WORDS,
    "analytics": WORDS,
    "tracing": WORDS,
    "storage": WORDS | {"snapshot", "journal"},
    "lineage": WORDS | {"shard", "snapshot", "journal", "storage"},  # both programs roll back
    "search": WORDS | {"filters", "ann", "embed", "shard", "lexical", "query", "snapshot"},
    "interop": WORDS | {"client", "snapshot", "embed"},
    "observe": WORDS | {"client", "evaluate"},
    "build": WORDS
    | STAGES - {"answer", "client"}
    | {"ann", "tables", "digest", "snapshot", "journal", "checkpoint", "cluster", "tracing", "search"}
    | {"interop", "storage", "lineage"},
    "monitoring": WORDS,  # it knows names of metrics and speaks HTTP; what it watches it never imports
    "serve": WORDS
    | {"cluster", "tracing", "embed", "lexical", "snapshot", "storage", "lineage", "search", "query"}
    | {"answer", "observe", "evaluate", "keys", "analytics", "monitoring"},  # monitoring: the charts of /ops
}
ONLY_IN = {
    "ray": {"cluster", "build", "serve"},
    "fastapi": {"serve"},
    "faiss": {"ann"},
    "tantivy": {"lexical"},
    "torch": {"embed"},
    "sentence_transformers": {"embed"},
    "langchain_huggingface": {"embed"},
    "langchain_core": {"embed", "interop"},
    "playwright": {"render"},
    "openvino": {"embed"},
    "onnxruntime": {"embed"},
    "httpx": {"crawl", "client", "answer", "monitoring"},  # monitoring: Prometheus's HTTP API
    "starlette": {"serve", "monitoring"},
    "uvicorn": {"monitoring"},
    "httpcore": {"crawl"},
    "fsspec": {"storage"},
    "s3fs": {"storage"},
    "botocore": {"storage"},
    "limits": {"serve"},
    "opentelemetry": {"tracing", "serve"},  # serve: the type of what create_app may be given
}
MAX_MODULE_LINES, MAX_FUNCTION_LINES = 500, 80


def rooms():
    """Yield (room, path): a module of raydex/, or any file of the package that bears the room's name."""
    for path in sorted((ROOT / "raydex").rglob("*.py")):
        yield path.relative_to(ROOT / "raydex").with_suffix("").parts[0], path


def imports(path):
    """Yield every module name imported anywhere in the file, nested imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def test_modules_import_only_what_the_map_allows():
    for room, path in rooms():
        for name in imports(path):
            assert not name.startswith("."), f"{path.name}: use absolute imports, found {name!r}"
            assert name != "raydex", f"{path.name}: import from a raydex module, not from the package root"
            top, _, rest = name.partition(".")
            if top == "raydex":
                target = rest.split(".")[0]
                assert target == room or target in MAY_IMPORT[room], f"{room} may not import raydex.{rest}"
            assert room in ONLY_IN.get(top, {room}), f"{top} may be imported only in {ONLY_IN[top]}, not {room}"


def test_every_room_is_on_the_map():
    assert {room for room, _ in rooms()} <= set(MAY_IMPORT)


def test_utils_know_nothing_of_raydex():
    for path in (ROOT / "utils").glob("*.py"):
        assert not any(name.startswith("raydex") for name in imports(path)), path.name


def test_modules_and_functions_stay_short_enough_to_read():
    folders = ("raydex", "utils", "tests", "bench", "examples", "docs")
    for path in [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]:
        text = path.read_text()
        assert text.count("\n") <= MAX_MODULE_LINES, f"{path.name} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= MAX_FUNCTION_LINES, f"{path.name}:{node.lineno} {node.name} has {lines} lines"


def test_the_client_script_needs_nothing_but_the_client_and_what_judges_its_answers():
    ours = {name for name in imports(ROOT / "test_client.py") if name.startswith(("raydex", "utils"))}
    assert ours <= {"raydex.client", "raydex.records", "raydex.errors", "raydex.evaluate", "utils.logs"}
