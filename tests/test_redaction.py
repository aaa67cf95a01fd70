"""What may tell a person or open a door does not stay in a text that is kept."""

import secrets

import phonenumbers
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from raydex.analytics.redaction import LONGEST, normalise, redact

words = st.text(st.characters(categories=["L"]), min_size=1, max_size=8)
around = st.sampled_from(["{}", "call {} now", "({})", "how to,{}.", "{}?"])
FORMATS = [getattr(phonenumbers.PhoneNumberFormat, name) for name in ("E164", "INTERNATIONAL", "NATIONAL", "RFC3966")]
KINDS = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)
SHORTEST = 7
"""Digits from which a national number is told from any other number."""


def digits(text: str) -> str:
    return "".join(character for character in text if character.isdecimal())


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_telephone_numbers_of_every_country_go_in_every_way_of_writing_them(region):
    examples = [phonenumbers.example_number_for_type(region, kind) for kind in KINDS]
    for number in filter(None, examples):
        for form in FORMATS:
            written = phonenumbers.format_number(number, form)
            if written.startswith(("+", "tel:+")) or len(digits(written)) >= SHORTEST:
                assert digits(redact(f"call {written} about file 3")) == "3"


@given(prefix=st.sampled_from(["4", "37", "5", "6011"]), middle=st.text("0123456789", min_size=11, max_size=14))
def test_cards_go_with_any_separators(prefix, middle):
    card = (prefix + middle)[:15]
    for separator in ("", " ", "-", "\u00a0", "\u2011", "\u200b", "."):
        written = separator.join(card[start : start + 4] for start in range(0, len(card), 4))
        assert not digits(redact(f"pay with {written} please"))


@given(name=words, host=words, frame=around)
@example(name="jane.doe+tag", host="corp.example", frame="mail {}")
@example(name="ｊａｎｅ", host="corp", frame="{}")
def test_mail_addresses_go(name, host, frame):
    kept = redact(frame.format(f"{name}@{host}.example"))
    assert "<email>" in kept
    assert "@" not in kept


@given(length=st.integers(20, 60), frame=around)
def test_random_tokens_go(length, frame):
    token = secrets.token_urlsafe(48)[:length]
    assume(any(c.isdigit() for c in token) and any(c.isalpha() for c in token) and token[-1].isalnum())
    assert normalise(token) not in redact(frame.format(token))


@pytest.mark.parametrize(
    "secret",
    [
        "sk-live_abcdefghijkl",
        "ghp_abcdefghijklmnop",
        "AKIAIOSFODNNEXAMPLE",
        "hf_abcdefghijklmnopqrst",
        "xoxb-abcdef-ghijkl",
        "rdx_abcdefgh_qwertzuiopasdfgh",
        "eyJhbGciOiJIUzI.eyJzdWIiOiIx.c2lnbmF0dXJl",
        "password=hunter",
        "Authorization: Bearer hunter",
        "my token is hunter",
        "https://jane:pw@intranet.corp/hidden?x=1",
        "550e8400-e29b-41d4-a716-446655440000",
        "10.0.0.17",
        "fe80:0:0:0:1ff:fe23:4567:890a",
        "/home/jane/notes.txt",
        "C:\\Users\\jane\\notes.txt",
    ],
)
def test_keys_addresses_and_names_of_accounts_go(secret):
    kept = redact(f"why does {secret} fail")
    assert kept.startswith("why does")
    assert "<" in kept
    for part in ("hunter", "jane", "abcdefgh", "iosfodnn", "c2ln", "intranet", "446655440000", "10.0.0", "fe80"):
        assert part not in kept


@pytest.mark.parametrize(
    "query",
    [
        "how do i read a file line by line",
        "os.path.join vs pathlib 3.12",
        "http status 404",
        "port 65535 already in use",
        "@property decorator",
        "hf_hub_download in asia-pacific",
        "npm_config_registry",
        "std::vector<int>::push_back",
        "what is a token",
        "password hashing",
        "torch.nn.functional.scaled_dot_product_attention",
    ],
)
def test_what_people_ask_documentation_stays_as_it_is(query):
    assert redact(query) == query


@given(st.text(st.characters(codec=None), max_size=400))
def test_any_text_is_redacted_to_one_short_line_that_normalises_to_itself(text):
    kept = redact(text)
    assert len(kept) <= LONGEST
    assert normalise(kept) == normalise(normalise(kept))
