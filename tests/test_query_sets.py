"""Development queries made of documentation sites: what is asked, what answers it, what is not to be read there."""

import zlib

import pytest

from bench.inventory import read_inventory
from bench.openings import headings_around, opening_of, openings_of
from bench.query_sets import Site, as_keywords, as_task, make

PAGE = """<title>T</title><nav id=menu>Menu</nav><div id=views><span id=std-views></span><h1>Working with views
<a class=headerlink href="#views">¶</a></h1><p>Words.</p><a id=within></a><p>More words.</p>
<section id=creating-class-based-views><h2>Creating class-based views</h2><p>So.</p></section>
<section id=shared-view-caches><h2>Shared view caches</h2><p>So.</p></section>
<dl><dt id=m.View.open><code>open</code>()</dt><dd>Opens it.</dd><dt id=term-mixin>Mixin</dt><dd>A class.</dd></dl>
</div>
"""
FAQ = """<h1 id=faq>FAQ</h1><ul><li><a href="#why">Why is it slow?</a></ul>
<section id=why><h2>Why is it <span id="x">slow</span>?</h2><p>It is not.</p></section>"""
INVENTORY = "m.View.open py:method 1 views.html#$ -\nviews std:label 1 views.html#views Views\n"


@pytest.fixture
def site(tmp_path):
    source = tmp_path / "source"
    (source / "faq").mkdir(parents=True)
    (source / "views.html").write_text(PAGE)
    (source / "faq" / "index.html").write_text(FAQ)
    (source / "genindex.html").write_text("<a href='views.html'>open</a>")
    (source / "objects.inv").write_bytes(b"# 2\n# P\n# V\n# zlib\n" + zlib.compress(INVENTORY.encode()))
    return source


def test_the_names_of_an_inventory_have_their_page_and_anchor(site):
    assert read_inventory(site / "objects.inv")[0] == ("m.View.open", "py:method", "views.html#m.View.open")


def test_ids_lead_to_the_heading_or_definition_that_holds_or_follows_them(site):
    openings = openings_of(site / "views.html")
    heading = opening_of(openings, "std-views")
    assert heading is not None
    assert (heading.anchor, heading.ids, heading.text) == ("views", ["views", "std-views"], "Working with views")
    assert opening_of(openings, "within") is heading
    assert headings_around(opening_of(openings, "shared-view-caches")) == heading.ids
    assert opening_of(openings, "nowhere") is None


def test_a_site_is_asked_for_names_terms_headings_and_questions(site, tmp_path):
    rows = make("s", Site("", faq=("faq/*.html",)), site, tmp_path / "copy", seed=0)
    found = {(row["source"], row["kind"]): row["gold"] for row in rows if row["source"] != "heading"}
    assert found == {
        ("faq", "question"): ["faq/index.html#why"],
        ("inventory", "symbol"): ["views.html#m.View.open"],
        ("glossary", "keywords"): ["views.html#term-mixin"],
    }
    headings = {row["query"] for row in rows if row["source"] == "heading"}
    assert "shared view caches" in headings
    assert make("s", Site("", faq=("faq/*.html",)), site, tmp_path / "copy", seed=0) == rows


def test_a_question_and_the_index_do_not_stand_on_the_site_that_is_asked(site, tmp_path):
    make("s", Site("", faq=("faq/*.html",)), site, tmp_path / "copy", seed=0)
    html = (tmp_path / "copy" / "faq" / "index.html").read_text()
    assert "slow" not in html
    assert html.count("Question 1") == 2
    assert 'id="x"' in html
    assert not (tmp_path / "copy" / "genindex.html").exists()


@pytest.mark.parametrize(
    ("heading", "task"),
    [
        ("Creating a view", "how to create a view"),
        ("Running the tests", "how to run the tests"),
        ("Using signals", "how to use signals"),
        ("Installing Git", "how to install git"),
        ("String functions", ""),
        ("Testing", ""),
    ],
)
def test_a_heading_becomes_a_task_as_people_type_it(heading, task):
    assert as_task(heading) == task


def test_keywords_have_no_stop_words():
    assert as_keywords("How to use the C++ API with node.js") == "c++ api node.js"


def test_the_seed_decides_which_names_are_shortened(site, tmp_path):
    asked = {make("s", Site(""), site, tmp_path / "copy", seed)[-1]["query"] for seed in range(8)}
    assert asked == {"m.View.open", "View.open"}
