"""Judge rankings: queries that people wrote and the sections that answer them, against what a search returned.

    Golden, run (query id → URLs, best first) → Judged → figures with intervals, per kind → two runs compared

golden.py      queries and answers, read from their files
judging.py     one query's ranking → its figures
resampling.py  figures of many queries → means with intervals; two runs → difference, interval, p
runs.py        runs ↔ TREC run files
report.py      all of it as a table for people and a document for programs

Pure but for the reading and writing of files. What an index kind loses against exact search (ann_recall@k) is no
matter of this room: ann.py measures it where vectors are.
"""

from raydex.evaluate.golden import Golden, load_golden, section_key
from raydex.evaluate.judging import METRICS, Figures, Judged, evaluate, figures, metrics_of
from raydex.evaluate.report import Report, compare, report
from raydex.evaluate.runs import read_run, write_run

__all__ = [
    "METRICS",
    "Figures",
    "Golden",
    "Judged",
    "Report",
    "compare",
    "evaluate",
    "figures",
    "load_golden",
    "metrics_of",
    "read_run",
    "report",
    "section_key",
    "write_run",
]
