from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from utils.retry import backoff_s, retry_after_s


def test_backoff_grows_with_the_attempts_up_to_its_cap():
    for attempt, most in ((0, 0.5), (1, 1.0), (3, 4.0), (9, 8.0)):
        waits = [backoff_s(attempt, base_s=0.5, cap_s=8.0) for _ in range(200)]
        assert all(0.0 <= wait <= most for wait in waits)
        assert max(waits) > most / 2  # full jitter: spread over the range, not bunched at its start


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("1.5", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_a_date(value, seconds):
    assert retry_after_s(value) == seconds


def test_a_date_to_come_is_so_many_seconds_away():
    soon = datetime.now(UTC) + timedelta(seconds=3600)
    assert 3500 < retry_after_s(format_datetime(soon, usegmt=True)) <= 3600
    assert 3500 < retry_after_s(format_datetime(soon).replace("+0000", "-0000")) <= 3600
