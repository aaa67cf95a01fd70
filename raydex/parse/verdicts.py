"""Tell pages that are none: shells whose content needs JavaScript, and error pages that answer 200.

    (tree, words) → needs_javascript        (title, heading, words, text) → is_soft_404        pure, no I/O

Both ask how many words the reader kept: a page that has something to say is a page, whatever else it looks like.
"""

import re
import unicodedata

from selectolax.lexbor import LexborHTMLParser, LexborNode

MAX_SHELL_WORDS = 20  # "Loading the documentation, please wait …" and a name
MAX_ERROR_WORDS = 150  # an apology and where else to look; articles about HTTP 404 have more
MAX_PHRASE_CHARS = 120

_BUNDLE = "script[src], script[type=module], link[rel~=modulepreload]"
_MOUNTS = (
    "#app, #root, #__next, #__nuxt, #___gatsby, #app-root, #react-root, #main-app, #q-app, #svelte, #mount, #docsify, "
    "#application, #swagger-ui, #redoc, #redoc-container, app-root, redoc, rapi-doc, elements-api"
)
_UNSEEN = "script, style, noscript, template"
_SEEN_WITHOUT_WORDS = "img, picture, video, object, embed, iframe, frame"
_ASKS_FOR_JAVASCRIPT = re.compile(r"java\s?script", re.IGNORECASE)

_EN = (
    r"(?:(?:the|this|that|requested|your) )*(?:page|file|document|resource|object|url|article|topic)"
    r"(?: you(?:'re| are| were|'ve| have)? (?:looking for|requested))?"
)
_DE = r"(?:(?:die|diese|das|angeforderte|gewünschte|gesuchte) )*(?:seite|datei|dokument)"
_FR = r"(?:(?:la|cette|le) )?(?:page|fichier|document)(?: demandée?)?"
_ES = r"(?:(?:la|esta|el) )?(?:página|archivo|documento)(?: solicitad[ao])?"
_PT = r"(?:(?:a|esta|o) )?(?:página|arquivo|documento)(?: solicitad[ao])?"
_ZH = r"(?:页面|頁面|网页|網頁|文件|文档)"
_NOT_FOUND = re.compile(
    "|".join(
        (
            rf"(?:sorry,? )?(?:{_EN} )?(?:(?:was|is|has|could|can|ca) ?)?(?:not|n't) (?:been |be )?found(?: on .+)?",
            rf"(?:sorry,? )?{_EN} (?:doesn't|does not|no longer) exists?(?: anymore)?",
            rf"(?:sorry,? )?we (?:could|can|ca) ?(?:not|n't) find {_EN}",
            r"no such (?:page|document)",
            rf"(?:{_DE} )?(?:wurde |konnte )?(?:leider )?nicht gefunden(?: werden)?",
            rf"{_DE} existiert (?:leider )?nicht(?: mehr)?",
            rf"(?:{_FR} )?(?:est )?(?:introuvable|non trouvée?)",
            rf"{_FR} (?:n'a pas été |n'est pas |pas )trouvée?",
            rf"{_FR} n'existe (?:pas|plus)",
            rf"(?:{_ES} )?no (?:ha sido |fue )?encontrad[ao]",
            rf"no (?:se )?(?:encontró|encuentra|pudo encontrar|ha encontrado|encontramos|hemos encontrado) {_ES}",
            rf"{_ES} (?:no existe|inexistente)",
            rf"(?:{_PT} )?não (?:foi |pôde ser )?encontrad[ao]",
            rf"{_PT} (?:não existe|inexistente)",
            r".{0,12}(?:ページ|ファイル)(?:は|が)?(?:見つかりません|みつかりません|存在しません)(?:でした)?|見つかりません(?:でした)?",
            rf"(?:抱歉|对不起|對不起)?,?.{{0,8}}{_ZH}(?:未找到|不存在|找不到|没有找到|沒有找到)了?|未找到",
            rf"(?:抱歉|对不起|對不起)?,?(?:未找到|找不到|无法找到|無法找到|没有找到|沒有找到).{{0,8}}{_ZH}",
        )
    )
)
_NUMBER = re.compile(
    r"(?:http )?(?:(?:error|status|fehler|erreur|erro|エラー|错误|錯誤)(?: code)?)?[ :]*404"
    r"(?:[ :]*(?:error|エラー|错误|錯誤))?"
)
_PARTS = re.compile(r"\s*[|·•»›—–]\s*|\s+-+\s+|:\s+")
_ENDS = " .,:;!?…。、¡¿()[]\"'-|—–"
_PYDOC_SAYS = "no python documentation found for"


def needs_javascript(tree: LexborHTMLParser, *, words: int) -> bool:
    """Tell whether a page is an empty shell that scripts would fill. words: kept by the reader."""
    body = tree.body
    if body is None or words > MAX_SHELL_WORDS or tree.css_first(_BUNDLE) is None:
        return False
    if mounts := body.css(_MOUNTS):
        return any(_is_bare(mount) for mount in mounts)
    if any(_ASKS_FOR_JAVASCRIPT.search(node.text()) for node in tree.css("noscript")):
        return _is_bare(body)
    return words == 0 and body.css_first("div:empty") is not None and body.css_first(_SEEN_WITHOUT_WORDS) is None


def is_soft_404(*, title: str, heading: str, words: int, text: str = "") -> bool:
    """Tell whether a page that came with status 200 says that there is none.

    words: kept by the reader; heading: the first one; text: how the page begins (pydoc says it only there).
    """
    if words > MAX_ERROR_WORDS:
        return False
    return _says_not_found(title) or _says_not_found(heading) or _PYDOC_SAYS in text.lower()


def _is_bare(node: LexborNode) -> bool:
    """Tell whether nothing in it was written for readers: no heading, few words."""
    unseen = node.css(_UNSEEN)
    hidden_headings = sum(len(inner.css("h1, h2, h3")) for inner in unseen)
    words = len(node.text(separator=" ").split()) - sum(len(inner.text(separator=" ").split()) for inner in unseen)
    return words <= MAX_SHELL_WORDS and len(node.css("h1, h2, h3")) <= hidden_headings


def _says_not_found(line: str) -> bool:
    """Tell whether a line, or a part of it (`Page not found | Handbook`), is nothing but such a phrase."""
    plain = " ".join(unicodedata.normalize("NFKC", line[:MAX_PHRASE_CHARS]).replace("’", "'").lower().split())
    return any(map(_is_not_found, (plain, *_PARTS.split(plain))))


def _is_not_found(phrase: str) -> bool:
    rest = _NUMBER.sub("", phrase, count=1).strip(_ENDS)
    return _NOT_FOUND.fullmatch(rest) is not None if rest else _NUMBER.search(phrase) is not None
