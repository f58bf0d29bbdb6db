"""Where a token stands in a request, and that every reason to refuse one has a status and a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.access import Refusal, cookie_token, split_path, split_query

NAME = b"URISigningPackage"


@pytest.mark.parametrize(
    ("raw", "token", "rest"),
    [
        (b"/titles/x/a.mp4", None, b"/titles/x/a.mp4"),
        (b"/URISigningPackage=abc/titles/x/a.mp4", b"abc", b"/titles/x/a.mp4"),
        (b"/URISigningPackage=abc/", b"abc", b"/"),
        (b"/URISigningPackage=abc", b"abc", b"/"),
        (b"/URISigningPackage=/titles", b"", b"/titles"),
        # Only the first segment, only in this spelling, and only one.
        (b"/titles/URISigningPackage=abc/x", None, b"/titles/URISigningPackage=abc/x"),
        (b"/./URISigningPackage=abc/x", None, b"/./URISigningPackage=abc/x"),
        (b"/URISigningPackage/x", None, b"/URISigningPackage/x"),
        (b"/URISigningPackage=a/URISigningPackage=b/x", b"a", b"/URISigningPackage=b/x"),
        (b"/URISigningPackage=a/../x", b"a", b"/../x"),
    ],
)
def test_a_token_before_the_path(raw, token, rest):
    assert split_path(raw) == (token, rest)


@pytest.mark.parametrize(
    ("query", "token", "rest"),
    [
        (b"", None, b""),
        (b"a=1&b=2", None, b"a=1&b=2"),
        (b"URISigningPackage=abc", b"abc", b""),
        (b"URISigningPackage=abc&a=1", b"abc", b"a=1"),
        (b"a=1&URISigningPackage=abc", b"abc", b"a=1"),
        (b"a=1&URISigningPackage=abc&b=2", b"abc", b"a=1&b=2"),
        (b"URISigningPackage=abc&URISigningPackage=def", b"abc", b""),
        (b"a=1&URISigningPackage=&b=2", b"", b"a=1&b=2"),
        (b"xURISigningPackage=abc", None, b"xURISigningPackage=abc"),
        (b"a=URISigningPackage=abc", None, b"a=URISigningPackage=abc"),
        (b"URISigningPackage", None, b"URISigningPackage"),
        (b"urisigningpackage=abc", None, b"urisigningpackage=abc"),
    ],
)
def test_a_token_in_the_query(query, token, rest):
    assert split_query(query) == (token, rest)


@pytest.mark.parametrize(
    ("cookie", "token"),
    [
        (b"", None),
        (b"a=1; b=2", None),
        (b"URISigningPackage=abc", b"abc"),
        (b"a=1; URISigningPackage=abc; b=2", b"abc"),
        (b'URISigningPackage="abc"', b"abc"),
        (b"URISigningPackage=long-path; URISigningPackage=short-path", b"long-path"),
        (b"xURISigningPackage=abc", None),
        (b"a=URISigningPackage=abc", None),
    ],
)
def test_a_token_in_a_cookie(cookie, token):
    assert cookie_token(cookie) == token


words = st.from_regex(rb"[A-Za-z0-9._-]{1,8}(=[A-Za-z0-9._-]{0,8})?", fullmatch=True).filter(lambda w: NAME not in w)


@given(st.lists(words, max_size=5), st.integers(0, 5), st.from_regex(rb"[A-Za-z0-9._-]{0,20}", fullmatch=True))
def test_wherever_a_token_stands_in_a_query_the_rest_is_what_was_there_without_it(others, place, token):
    with_token = [*others[:place], NAME + b"=" + token, *others[place:]]
    assert split_query(b"&".join(with_token)) == (token, b"&".join(others))


@pytest.mark.parametrize("reason", Refusal)
def test_every_reason_has_a_status_and_a_sentence(reason):
    assert reason.status in (401, 403)
    assert len(reason.sentence) > 20


def test_401_says_that_another_token_may_help_and_403_that_this_one_is_not_for_it():
    assert {reason.status for reason in (Refusal.MISSING, Refusal.EXPIRED, Refusal.SIGNATURE)} == {401}
    assert {reason.status for reason in (Refusal.URI, Refusal.NETWORK, Refusal.ISSUER)} == {403}
