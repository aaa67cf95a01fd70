"""Which pages `--forget` means. What it does to an index is in test_build_pages.py."""

import pytest

from raydex.build.forgetting import Matcher


@pytest.mark.parametrize(
    ("what", "url", "forgotten"),
    [
        ("https://x.org/a", "https://x.org/a", True),
        ("https://x.org/a", "https://x.org/a/b.html", True),
        ("https://x.org/a", "https://x.org/a?page=2", True),
        ("https://x.org/a", "https://x.org/ab.html", False),
        ("https://x.org/a/", "https://x.org/a/b.html", True),
        ("https://x.org/a/", "https://x.org/a", False),
        ("handbook", "https://x.org/handbook", False),
    ],
)
def test_a_prefix_is_compared_segment_by_segment(what, url, forgotten):
    assert Matcher(what).matches(url, source="docs") is forgotten


def test_the_name_of_a_source_means_all_its_pages():
    assert Matcher("docs").matches("https://x.org/a", source="docs")
    assert not Matcher("docs").matches("https://x.org/a", source="docs-old")
