import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_svc.serving.pages import key_before, token_after

text = st.text(st.characters(exclude_categories=["Cs"]))


@given(text)
def test_a_token_gives_back_its_key(key):
    assert key_before(token_after(key)) == key


@given(text, st.integers(0))
def test_a_token_with_another_character_was_never_given(key, place):
    token = token_after(key)
    place %= len(token)
    changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
    assert key_before(changed) is None


@pytest.mark.parametrize("token", ["", "x", "000001-4", "====", "é", token_after("a") + "A", token_after("a")[:-1]])
def test_what_is_no_token_was_never_given(token):
    assert key_before(token) is None
