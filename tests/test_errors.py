"""Errors cross process borders: each keeps its fields and its words through pickle."""

import inspect
import pickle

import pytest

from raydex import errors

SAMPLES = [
    errors.RaydexError("x"),
    errors.ConfigError("x"),
    errors.FetchError("https://a/", "http_500", "after 3 attempts"),
    errors.TooLarge("https://a/", 10),
    errors.ParseError("https://a/", "empty"),
    errors.EmbedError("x"),
    errors.SnapshotError("x"),
    errors.SnapshotNotFound("checkpoints/docs", "s1"),
    errors.SnapshotCorrupt("objects/ab", "ab", "cd"),
    errors.SnapshotIncompatible("m.json", "format", "1", "2", "Rebuild."),
    errors.GateRefused("s1", ("counts: …",), "report.json"),
    errors.GateRefused("s1", ("checksums: …",), "report.json", is_damaged=True),
    errors.ArchiveRefused("docs.raydex", "objects/ab has checksum cd"),
    errors.BuildLocked("docs", "pid 1"),
    errors.StorageError("s3://bucket/docs/CURRENT", "read", "there is no bucket", "Create it."),
    errors.StorageFull("checkpoints", 1, 2),
    errors.ClusterLost("raylet", "/tmp/raylet"),
    errors.TooManyFailedPages(3, 4, 0.05, "timeout: 3", "report.json"),
    errors.NothingToIndex("docs", "http_404: 1", "report.json"),
    errors.IndexNotFound("docs", ("a", "b")),
    errors.SectionNotFound("https://a/#b"),
    errors.RollbackRefused("docs: no snapshot before it"),
    errors.RollbackRefused("x"),
    errors.QueryError("k", "at most 100"),
    errors.Overloaded(256),
    errors.ShardsLost("docs", 3, 4),
    errors.PrometheusError("http://a:9090", "gives no answer"),
    errors.RequestRefused("x"),
    errors.MalformedRequest("x"),
    errors.UriTooLong("x"),
    errors.HeadersTooLarge("x"),
    errors.BodyTooLarge("x"),
    errors.BodyTooSlow("x"),
    errors.DeadlineExceeded(250),
    errors.AuthError(is_given=True),
    errors.Forbidden("the scope admin is needed"),
    errors.RateLimited("20/second", 1),
    errors.ServiceError("http://a:8000", 503, "snapshot_not_found", "nothing is published", "r1", 5.0),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_error_survives_pickling_with_type_words_and_fields(error):
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own object, made in this line
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_every_error_of_the_tree_is_sampled_and_drawn():
    defined = {
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, Exception) and cls.__module__ == errors.__name__
    }
    assert defined == {type(sample) for sample in SAMPLES}
    assert all(cls.__name__ in (errors.__doc__ or "") for cls in defined)
