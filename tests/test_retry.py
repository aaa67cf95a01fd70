import pytest

from utils.retry import backoff_s, call_with_retries


class Failing:
    """Fails as often as told, then returns "done"."""

    def __init__(self, times: int) -> None:
        self.times, self.calls = times, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise ConnectionError(f"failure {self.calls}")
        return "done"


def always(error: Exception) -> bool:
    return True


def test_the_result_of_the_first_success_is_returned_and_each_failure_waited_for():
    call = Failing(times=2)
    waits: list[float] = []
    assert call_with_retries(call, attempts=5, should_retry=always, wait=waits.append) == "done"
    assert call.calls == 3
    assert len(waits) == 2


def test_the_last_error_is_raised_when_the_attempts_are_used_up_and_nobody_waits_for_it():
    call = Failing(times=9)
    waits: list[float] = []
    with pytest.raises(ConnectionError, match="failure 3"):
        call_with_retries(call, attempts=3, should_retry=always, wait=waits.append)
    assert len(waits) == 2


def test_an_error_that_will_not_pass_is_raised_at_once():
    call = Failing(times=9)
    waits: list[float] = []
    with pytest.raises(ConnectionError, match="failure 1"):
        call_with_retries(call, attempts=3, should_retry=lambda error: False, wait=waits.append)
    assert (call.calls, waits) == (1, [])


def test_the_wait_that_an_error_asks_for_is_kept_when_it_exceeds_the_backoff():
    waits: list[float] = []
    call_with_retries(
        Failing(times=2), attempts=3, should_retry=always, least_wait_s=lambda error: 12.0, cap_s=8.0, wait=waits.append
    )
    assert waits == [12.0, 12.0]


def test_no_attempt_at_all_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="at least 1"):
        call_with_retries(Failing(times=0), attempts=0, should_retry=always)


def test_backoff_grows_with_the_attempts_up_to_its_cap():
    for attempt, most in ((0, 0.5), (1, 1.0), (3, 4.0), (9, 8.0)):
        waits = [backoff_s(attempt, base_s=0.5, cap_s=8.0) for _ in range(200)]
        assert all(0.0 <= wait <= most for wait in waits)
        assert max(waits) > most / 2  # full jitter: spread over the range, not bunched at its start
