"""What strangers send is read in time that grows no faster than the text (docs/proofs.md, 20); cards: `test_cards.py`."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter
from starlette.types import Scope

from deploy.local import keys
from event_contracts.account import Email, Line, Phone
from event_contracts.moments import Moment
from servicekit.core.clock import Clock
from servicekit.http.admission import Rule, _read_query
from servicekit.http.auth import Tokens
from servicekit.http.bodies import is_json, read_json
from servicekit.http.ids import _random
from servicekit.http.paging import Cursor
from tests.support.budgets import assert_linear, cost_of
from vault_service.callers import Callers

_HEAD = base64.urlsafe_b64encode(b'{"alg":"Ed25519"}').rstrip(b"=").decode()
LINEAR = pytest.mark.attack("a text that is read again and again", expected="twice the text, twice the work")


def _repeated(part: str) -> Callable[[int], str]:
    return lambda size: (part * size)[:size]


def _encoded(part: str) -> Callable[[int], str]:
    return lambda size: base64.urlsafe_b64encode(_repeated(part)(size).encode()).rstrip(b"=").decode()


def _in(form: str, text: Callable[[int], str]) -> Callable[[int], str]:
    return lambda size: form.replace("{}", text(size))


@LINEAR
@pytest.mark.parametrize(
    "part",
    [
        "a",
        " a",
        "a@",
        "a.",
        "@.",
        "+",
        "1",
        " ",
        "é",
        "\u0301\u0327",
        "a\u0301",
        "क्\u200d",
        "\u200d",
        "葛\ufe00",
        "2026-",
    ],
)
@pytest.mark.parametrize("kind", [Line, Email, Phone, Moment])
def test_texts_of_forms(kind: Any, part: str) -> None:
    read = TypeAdapter[Any](kind).validate_python
    assert_linear(read, _repeated(part), 100)
    assert_linear(read, lambda size: f"a{_repeated(part)(size)}@example.org", 100)


@LINEAR
@pytest.mark.parametrize(
    "text", [_repeated("A"), _repeated("="), _repeated("é"), _encoded("2026-"), _encoded(" "), _encoded("1")]
)
def test_cursors(text: Callable[[int], str]) -> None:
    assert_linear(Cursor.decode, text)


@LINEAR
@pytest.mark.parametrize("part", ["0", "-", "{", "urn:", "uuid:", "a", "٣"])
def test_idempotency_keys(part: str) -> None:
    assert_linear(_random, _repeated(part))


@LINEAR
@pytest.mark.parametrize("part", ["a", "a&", "a=1&", "&", ";", "%", "%41", "%C3%A9", "+", "=", "%ff", "cursor=1&"])
def test_query_strings(part: str) -> None:
    rule = Rule("GET", "/", None, None, frozenset({"cursor"}), 0, (), item_by_item=False)  # type: ignore[arg-type]

    def read(text: str) -> None:
        scope: Scope = {"query_string": text.encode()}
        _read_query(scope, rule)

    assert_linear(read, _repeated(part))
    assert_linear(read, lambda size: "cursor=" + _repeated(part.replace("&", ""))(size))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> list[Callable[[str], Any]]:
    folder = tmp_path_factory.mktemp("linear") / "keys"
    keys.write_keys(folder, ["account"], [])
    read = Tokens(Clock(), customer_key=(folder / "customer.pub.pem").read_bytes(), staff_key=None)
    return [read.customer, Callers(folder / "service_keys", Clock()).verify]


@LINEAR
@pytest.mark.parametrize("form", ["{}", "{}.e30.AAAA", f"{_HEAD}.{{}}.AAAA", f"{_HEAD}.e30.{{}}", f"{_HEAD}.{{}}.{{}}"])
@pytest.mark.parametrize("part", ["A", ".", "=", "[", '{"a":', '"a",', "9", "\\", '{"iss":"account"}', "-"])
def test_tokens(tokens: list[Callable[[str], Any]], form: str, part: str) -> None:
    for read in tokens:
        for text in (_repeated(part), _encoded(part)):
            assert_linear(read, _in(form, text))


@LINEAR
@pytest.mark.parametrize("part", ["1", "[", '{"a":', '"\\u0301', "\\", '"a":1,', " ", "-", "1e"])
def test_bodies_and_their_types(part: str) -> None:
    assert_linear(lambda text: read_json(text.encode()), _repeated(part))
    assert_linear(is_json, _repeated(part))
    assert_linear(is_json, lambda size: "application/" + _repeated(part)(size) + "+json")


def test_a_reader_that_is_not_linear_is_seen() -> None:
    with pytest.raises(AssertionError, match="more than linear"):
        assert_linear(
            lambda text: [text[:end].count("a") for end in range(len(text)) for _ in range(end)], _repeated("a"), 50
        )
    assert cost_of(lambda: sum(range(10))).bytecodes > 0
