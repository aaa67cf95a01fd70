"""Name the symbols of API documentation: what a heading or a term of a definition list stands for.

    (anchor, text, what the page is about) → Symbol    pure

Generators say it in the id (`shutil.copy`, `method.push`, `copy(Path)`, `cmdoption-v`), in the text, or in both; the
id decides where it holds the name, since it holds the whole name.
"""

import errno
import re
from dataclasses import dataclass

IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]*(?:(?:\.|::)[A-Za-z_$~][\w$]*)*")
MAX_TERM_CHARS = 100
MAX_FLAGS_CHARS = 200
MAX_ID_PARTS = 12

_FLAG = re.compile(r"(?<![\w-])--?[A-Za-z0-9?@#][\w?.+-]*\w|(?<![\w-])-[A-Za-z0-9?@#](?!\w)")
_NEGATED = re.compile(r"--\[no-?\]([\w-]+)")
_ARGUMENT = re.compile(r"\[[^\]]*\]|<[^>]*>|\{[^}]*\}|(?<=\w)=[^\s<,|]+")
"""What follows an option: it may hold dashes of its own."""
_MODULE_ID = re.compile(r"module-([A-Za-z_][\w.]*)")
_CALL_ID = re.compile(r"([\w$]+|<init>|%3Cinit%3E|&lt;init&gt;)\(.*\)", re.DOTALL)
_CALL = re.compile(r"([~\w$:.]+|operator\W{1,3})\(\)(?: ?\[\d+/\d+\])?")
_NESTED = re.compile(r"N[VKRO]*(?=\d)")
_LENGTH = re.compile(r"[1-9]\d{0,2}")
_BRACKETED = re.compile(r"\([^)]*\)")
_ERRNO = frozenset(name for name in dir(errno) if name.startswith("E"))
_ERROR_CODE = re.compile(
    r"(?:(?:[Ee]rror|[Ww]arning|SQLSTATE|[Cc]ode)[:\s]+)?"
    rf"({'|'.join(sorted(_ERRNO, reverse=True))}|[A-Z]{{1,6}}-?\d{{3,6}}|[0-9][0-9A-Z](?=[0-9]*[A-Z])[0-9A-Z]{{3}}"
    r"|ERR_\w+)(?![\w.-])"
)
"""Of errno, compilers, linters, SQL, Node.js."""
_COUNTED = re.compile(r"-\d+$")
_DOMAINS = ("c.", "js.", "rst.", "cpp.", "py.")
"""What Sphinx puts before the names of other languages, so that ids do not collide."""
_KIND = r"class|interface|enum|struct|trait|record|annotation|exception|union|namespace|module|package|crate|macro"
_KIND += r"|function|fn|constant|static|type|primitive|keyword|derive|attribute|error|category|protocol"
_PAGE_KINDS = re.compile(rf"(?:(?:{_KIND})\s+(?:(?:type|class|interface|alias|definition|macro)\s+)?)", re.IGNORECASE)
_REFERENCE = re.compile(r"(\S+(?:<.*>)?)\s+(?:\w+ ){0,2}Reference")
_PYDOC_TITLE = re.compile(r"Python: (?:built-in )?(?:module|package) ([\w.]+)")
_RUSTDOC_TITLE = re.compile(r"(\S+) in ([\w:]+) - Rust")
_NOUNS = frozenset({"directive", "command", "function", "method", "macro", "option", "property", "variable", "event"})
_CODE_WORD = re.compile(r"[\w$<>.:-]*(?:_|::)[\w$<>.:-]*|[\w$.:]+\(\)")


@dataclass(frozen=True, slots=True)
class Symbol:
    """name: "" when there is none. is_api: of code, not a word of a glossary. text: what stands in heading paths.

    aliases: what else it is called.
    """

    name: str
    text: str
    is_api: bool = True
    aliases: tuple[str, ...] = ()


def page_symbol(heading: str, title: str, package: str) -> str:
    """Return the whole name of what the page documents, "" when it is about no symbol. package: said beside it."""
    if match := _RUSTDOC_TITLE.fullmatch(title):
        return f"{match[2]}::{match[1]}"
    name = _PAGE_KINDS.sub("", heading, count=1) if _PAGE_KINDS.match(heading) else ""
    if match := _REFERENCE.fullmatch(heading):
        name = match[1]
    name = name or (heading if IDENTIFIER.fullmatch(heading) else "")
    if not name and (match := _PYDOC_TITLE.fullmatch(title)):
        name = match[1]
    found = IDENTIFIER.match(name)
    if not found or " " in name.partition("<")[0].strip():
        return ""
    return f"{package}.{found[0]}" if package else found[0]


def of_heading(*, anchor: str, text: str, page: str, is_code: bool, has_signature: bool) -> Symbol:
    """page: symbol of the page. is_code: all of the text is. has_signature: a signature stands below it."""
    if module := module_of(anchor):
        return Symbol(module, text)
    if flags := flags_of(text):
        return _of_flags(flags, text, anchor=anchor, outer=page)
    plain_anchor = _COUNTED.sub("", anchor).lstrip(".~#")  # JSDoc: `.copy`, `~copy`, `#copy`
    last = plain_anchor.rpartition(".")[2]
    if "." in plain_anchor and IDENTIFIER.fullmatch(plain_anchor) and _holds_word(text, last):
        name = f"{page}::{last}" if "::" in page else plain_anchor
        return Symbol(name, name if is_code and text != last else text)
    if anchor[:1] in {".", "~", "#"} and IDENTIFIER.fullmatch(plain_anchor) and _holds_word(text, plain_anchor):
        return Symbol(_member(page, plain_anchor), text)
    if (_CALL_ID.fullmatch(anchor) or has_signature) and (found := IDENTIFIER.fullmatch(text)):
        return Symbol(_member(page, found[0]), text)
    if match := _CALL.fullmatch(text):
        return Symbol(_member(page, match[1]), text)
    return _of_code_word(anchor, text, is_code=is_code)


def _of_code_word(anchor: str, text: str, *, is_code: bool) -> Symbol:
    if code := _ERROR_CODE.match(text):
        return Symbol(code[1], text)
    word, _, noun = text.partition(" ")
    if noun.lower() in _NOUNS and word.lower() == anchor.lower():
        return Symbol(word, text)
    name = re.split(r"[(\s=<{]", text, maxsplit=1)[0]
    if is_code and IDENTIFIER.fullmatch(name) and name == text.removesuffix("()").partition("(")[0]:
        return Symbol(name, text)
    if _CODE_WORD.fullmatch(text):
        return Symbol(text.removesuffix("()"), text)
    return Symbol("", text)


def of_entry(*, anchor: str, signature: str, name: str, outer: str) -> Symbol:
    """Name a term of a definition list. name: what the page marks as the name in a signature, "" when it marks none.

    outer: the symbol around it, or that of the page.
    """
    if flags := flags_of(signature):
        return _of_flags(flags, signature, anchor=anchor, outer=outer)
    if name and (whole := _without_mangling(anchor, name, outer)):
        return Symbol(whole, whole)
    last = anchor.rpartition(".")[2]
    if IDENTIFIER.fullmatch(anchor) and last in signature and ("." in anchor or name):
        domain = next((domain for domain in _DOMAINS if anchor.startswith(domain)), "")
        whole = anchor.removeprefix(domain) if domain and name and anchor == f"{domain}{name}" else anchor
        whole = whole.removeprefix("c.") if anchor.startswith("c.") and name else whole
        return Symbol(whole, whole)
    if name:
        return _of_marked_name(anchor, signature, name)
    found = IDENTIFIER.match(signature)
    parts = re.split(r"[-.:]+", anchor)  # pydoc: `-copy` in a module, `Path-copy` in a class
    is_member = len(parts) > 1 and (not parts[0] or outer.endswith(parts[-2]))
    if found and is_member and parts[-1] == found[0]:
        return Symbol(_member(outer, found[0]), _member(outer, found[0]))
    if is_error_code(signature):
        code = _ERROR_CODE.match(signature)
        return Symbol(code[1] if code else signature, signature)
    term = signature.partition("(")[0].strip() or signature
    is_api = bool(_CODE_WORD.fullmatch(term)) or bool(found and signature.startswith(f"{found[0]}("))
    return Symbol(term[:MAX_TERM_CHARS], signature, is_api=is_api)


def _of_marked_name(anchor: str, signature: str, name: str) -> Symbol:
    if is_mangled(anchor):
        return Symbol(_unmangled(anchor, name), signature)
    spelled = re.sub(r"[()]", "", signature.split()[0])
    if spelled != name and anchor.endswith(f"-{spelled}"):  # pdb abbreviates: `cl(ear) [filename]`
        return Symbol(spelled, signature, aliases=(_BRACKETED.sub("", signature.split()[0]),))
    if not IDENTIFIER.fullmatch(name) and (found := _word_of_id(anchor, signature)):
        return Symbol(found[0], signature, aliases=(signature[: found.end()],))
    return Symbol(name, signature)


def is_mangled(anchor: str) -> bool:
    """Tell whether an id is of a C++ entity as Sphinx mangles it."""
    return anchor.startswith("_CPP")


def _unmangled(anchor: str, name: str) -> str:
    """Return a C++ name with the scopes that its id spells: `N3lib3Box4openE` → `lib::Box::open`."""
    for nested in _NESTED.finditer(anchor):
        parts, at = [], nested.end()
        while length := _LENGTH.match(anchor, at):
            at = length.end() + int(length[0])
            parts.append(anchor[length.end() : at])
        whole = "::".join(parts)
        if whole == name or whole.endswith(f"::{name}"):
            return whole
    return name


def _word_of_id(anchor: str, signature: str) -> re.Match[str] | None:
    """Find the longest end of an id that is a word of the signature: `directive-code-block`, `.. code-block::`."""
    parts = anchor.split("-")[: MAX_ID_PARTS + 1]
    words = ("-".join(parts[first:]) for first in range(1, len(parts)))
    found = (re.search(rf"(?<![\w-]){_as_written(word)}(?![\w-])", signature) for word in words if word)
    return next(filter(None, found), None)


def _as_written(word: str) -> str:
    """Return what matches a word of an id, in which a dash may stand for the colon of a domain (`c-alias`)."""
    return re.escape(word).replace(r"\-", "[-:]")


def is_error_code(signature: str) -> bool:
    """Tell whether a term begins with a code of an error (`EACCES`, `E501 line too long`, `SQLSTATE 42P01`)."""
    return _ERROR_CODE.match(signature) is not None


def of_block(anchor: str, page: str) -> Symbol:
    """Name a block that stands for a symbol by its id."""
    plain = _COUNTED.sub("", anchor)
    kind, _, last = plain.partition(".")
    if "::" in page and kind.islower() and last:
        name = f"{page}::{last.replace('.', '::')}"
    elif page and IDENTIFIER.fullmatch(page) and plain != page and not plain.startswith(f"{page}."):
        name = f"{page}.{plain}"
    else:
        name = plain
    return Symbol(name, name)


def module_of(anchor: str) -> str:
    match = _MODULE_ID.fullmatch(anchor)
    return match[1] if match else ""


def flags_of(signature: str) -> list[str]:
    """Return the spellings of the command-line option that a signature begins with, the first long one in front.

    `-f, --file=ARCHIVE` has two, `--[no-]color[=when]` has two.
    """
    if not signature.startswith("-"):
        return []
    head = re.split(r"\s{2,}|\(", signature[:MAX_FLAGS_CHARS], maxsplit=1)[0]
    head = _NEGATED.sub(r"--\1, --no-\1", head)
    flags = list(dict.fromkeys(_FLAG.findall(_ARGUMENT.sub(" ", head))))
    return sorted(flags, key=lambda flag: flag != next((f for f in flags if f.startswith("--")), flags[0]))


def _of_flags(flags: list[str], text: str, *, anchor: str, outer: str) -> Symbol:
    """Name an option by its spellings, each alone and with its command: that of the id, else that of the page."""
    program = next((found for flag in flags if (found := _program_of(anchor, flag))), outer)
    whole = [f"{program} {flag}" for flag in flags] if program else []
    return Symbol(flags[0], text, aliases=(*flags[1:], *whole))


def _program_of(anchor: str, flag: str) -> str:
    """Return the command in an id of Sphinx (`cmdoption-trace-c`)."""
    ending = f"-{flag.lstrip('-')}"
    return anchor.removeprefix("cmdoption-").removesuffix(ending) if _is_of_program(anchor, ending) else ""


def _is_of_program(anchor: str, ending: str) -> bool:
    return anchor.startswith("cmdoption-") and anchor.endswith(ending) and len(anchor) > len(f"cmdoption{ending}")


def _without_mangling(anchor: str, name: str, outer: str) -> str:
    """Return the name whose leading underscores an id has lost (docutils takes none), "" for any other id."""
    names = (name, f"{outer}.{name}") if outer else (name,)
    return next((whole for whole in names if whole.startswith("_") and whole.lstrip("_") == anchor), "")


def last_part(name: str) -> str:
    return re.split(r"\.|::", name)[-1]


def is_target_of(target: str, text: str) -> bool:
    """Tell whether an id says of which sort the name in a heading is (`prop_tgt:AUTOMOC`, `std:setting-DEBUG`)."""
    return target != text and target.endswith(text) and target[-len(text) - 1] in ":.-"


def _member(outer: str, name: str) -> str:
    if not outer or name.startswith(outer):
        return name
    return f"{outer}::{name}" if "::" in outer or "::" in name else f"{outer}.{name}"


def _holds_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w$]){re.escape(word)}(?![\w$])", text) is not None
