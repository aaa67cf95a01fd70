"""bench/symbols.py: which names it asks for, which places are right, and what share the parser has."""

import zlib

from bench.symbols import Name, names_of_inventory, names_of_manual, sample, share_parsed

MANUAL = """<title>CP(1)</title><h1 id=NAME>NAME</h1><p>cp - copy files</p><h1 id=OPTIONS>OPTIONS</h1>
<dl><dt id=f><a class=permalink href="#f">-f</a>, --force</dt><dd>Forces.</dd><dt>--only-here=X</dt><dd>Here.</dd></dl>
"""


def manual(folder):
    (folder / "cp.1.html").write_text(MANUAL)
    (folder / "mv.1.html").write_text(MANUAL.replace("cp -", "mv -").replace("--only-here", "--update"))
    return names_of_manual(folder)


def test_commands_their_options_and_options_of_one_command_are_asked_for(tmp_path):
    names = {(name.query, name.sort): name.places for name in manual(tmp_path)}
    assert names == {
        ("cp", "command"): {"cp.1.html"},
        ("mv", "command"): {"mv.1.html"},
        ("cp -f", "command and option"): {"cp.1.html#f"},
        ("mv -f", "command and option"): {"mv.1.html#f"},
        ("cp --only-here", "command and option"): {"cp.1.html#f"},
        ("mv --update", "command and option"): {"mv.1.html#f"},
        ("--only-here", "option"): {"cp.1.html#f"},
        ("--update", "option"): {"mv.1.html#f"},
    }


def test_the_parser_has_each_name_of_a_manual_page_at_its_place(tmp_path):
    names = manual(tmp_path)
    assert share_parsed(tmp_path, names) == 1
    assert share_parsed(tmp_path, [*names, Name("cp -z", frozenset({"cp.1.html#f"}), "option")]) == len(names) / 9


def test_names_of_an_inventory_are_definitions_as_people_type_them_with_all_ids_of_their_place(tmp_path):
    lines = "t.--all std:cmdoption 1 p.html#cmdoption-t-a -\nm.f py:function 1 p.html#$ -\nx std:label 1 p.html#x X\n"
    (tmp_path / "objects.inv").write_bytes(b"# 2\n# P\n# V\n# zlib\n" + zlib.compress(lines.encode()))
    (tmp_path / "p.html").write_text(
        '<h1 id=x>T</h1><dl><dt id=cmdoption-t-a><span id="cmdoption-t-all"></span>-a, --all</dt><dd>t</dd></dl>'
        "<dl><dt class=sig id=m.f>f()</dt><dd>t</dd></dl>"
    )
    names = names_of_inventory(tmp_path)
    assert {name.query: name.places for name in names} == {
        "t --all": {"p.html#cmdoption-t-a", "p.html#cmdoption-t-all"},
        "m.f": {"p.html#m.f"},
    }
    assert share_parsed(tmp_path, names) == 1


def test_a_sample_has_as_many_of_each_sort_as_there_are_and_is_the_same_for_a_seed():
    names = [
        Name(f"{sort}{number}", frozenset(), sort)
        for sort, count in {"a": 2, "b": 50}.items()
        for number in range(count)
    ]
    taken = sample(names, 20, 1, sorts=True)
    assert sorted(name.sort for name in taken) == ["a"] * 2 + ["b"] * 18
    assert sample(names, 20, 1, sorts=True) == taken
    assert len(sample(names, 20, 1, sorts=False)) == 20
