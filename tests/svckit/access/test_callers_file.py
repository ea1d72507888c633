"""The file of callers: what it says, and every way in which it can be wrong."""

import pytest

from svckit.access.callers import Caller, Limits, Role
from svckit.access.callers_file import Callers, Token, parse, parse_any, without_effect

SHA = 64 * "a"
FILE = f"""
[defaults]
requests_per_s = 100
max_k = 50

[caller.shop]
role = "query"
photos_per_s = 2.5
max_k = 10

[caller."acme.importer"]
role = "enrol"
label_prefixes = ["acme ", "cafe\u0301 "]
certificates = ["importer.acme.example", "importer"]
subjects = ["system:serviceaccount:cars:importer"]

[[token]]
caller = "shop"
sha256 = "{SHA}"
expires = 1970-01-02

[[token]]
caller = "acme.importer"
sha256 = "{64 * "b"}"
expires = 1970-01-01T00:00:10+00:00

[[token]]
caller = "shop"
sha256 = "{64 * "c"}"
"""


def test_callers_tokens_certificates_and_subjects_are_found():
    callers = parse(FILE.encode())
    shop = Caller("shop", Role.QUERY, limits=Limits(requests_per_s=100, photos_per_s=2.5, max_k=10))
    importer = Caller("acme.importer", Role.ENROL, ("acme ", "caf\u00e9 "), Limits(requests_per_s=100, max_k=50))
    assert callers == Callers(
        by_name={"shop": shop, "acme.importer": importer},
        by_token={SHA: Token(shop, 86400), 64 * "b": Token(importer, 10), 64 * "c": Token(shop)},
        by_certificate={"importer.acme.example": importer, "importer": importer},
        by_subject={"system:serviceaccount:cars:importer": importer},
        defaults=Limits(requests_per_s=100, max_k=50),
    )


@pytest.mark.parametrize("content", ["", "\n", "# nobody yet\n", "[caller]\n", "[defaults]\n", "token = []\n"])
def test_a_file_that_says_nothing_is_refused_by_a_server_and_may_be_added_to(content):
    with pytest.raises(ValueError, match=r"^is empty: it lists no caller, and no limits$"):
        parse(content.encode())
    assert parse_any(content.encode()) == Callers()


def test_limits_alone_are_enough_for_callers_whom_it_does_not_list():
    assert parse(b"[defaults]\nmax_k = 5\n").defaults == Limits(max_k=5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[caller", "is not TOML"),
        ("\xff", "is not TOML"),
        ("[callers.shop]", "the file: there is no 'callers'; what there is: caller, token, defaults"),
        ("caller = 1", r"\[caller\] must be a table"),
        ("caller.shop = 1", r"\[caller.shop\] must be a table"),
        ('[caller.shop]\nroles = ["query"]', r"\[caller.shop\]: there is no 'roles'"),
        ("[caller.shop]", "role must be one of query, enrol, admin, got None"),
        ('[caller.shop]\nrole = "root"', "got 'root'"),
        ('[caller.shop]\nrole = ["query"]', r"got \['query'\]"),
        ('[[token]]\ncaller = ["shop"]', r"\[\[token\]\] number 1: there is no \[caller.\['shop'\]\]"),
        ('[caller."a b"]\nrole = "query"', r"\[caller.a b\]: a name has"),
        ('[caller."jwt:a"]\nrole = "query"', r"\[caller.jwt:a\]: a name has"),
        ('[caller.shop]\nrole = "query"\nmax_k = 0', "max_k must be a whole number above 0, got 0"),
        ('[caller.shop]\nrole = "query"\nmax_k = 1.5', "max_k must be a whole number above 0, got 1.5"),
        ('[caller.shop]\nrole = "query"\nmax_k = true', "max_k must be a whole number"),
        ("[defaults]\nrequests_per_s = inf", r"\[defaults\]: requests_per_s must be a number above 0, got inf"),
        ("[defaults]\nrole = 1", r"\[defaults\]: there is no 'role'"),
        (
            '[caller.shop]\nrole = "query"\nlabel_prefixes = []',
            "label_prefixes must be .*; leave it out to allow every label$",
        ),
        ('[caller.shop]\nrole = "query"\nsubjects = []', "subjects must be a list of texts.*; leave it out for none$"),
        ('[caller.shop]\nrole = "query"\nlabel_prefixes = [""]', "label_prefixes must be a list of texts"),
        ('[caller.shop]\nrole = "query"\ncertificates = "a"', "certificates must be a list of texts"),
        (
            '[caller.a]\nrole = "query"\nsubjects = ["s"]\n[caller.b]\nrole = "admin"\nsubjects = ["s"]',
            r"\[caller.b\]: 's' of subjects is that of 'a', too",
        ),
        ("[token]", r"a token is a table \[\[token\]\]"),
        ("token = [1]", r"\[\[token\]\] number 1 must be a table"),
        (f'[[token]]\ncaller = "shop"\nsha256 = "{SHA}"', r"\[\[token\]\] number 1: there is no \[caller.shop\]"),
        ('[caller.a]\nrole="query"\n[[token]]\ncaller="a"\nsha256="secret"', "sha256 must be 64 hexadecimal digits"),
        ('[caller.a]\nrole="query"\n[[token]]\ncaller="a"\ntoken="s"', "there is no 'token'"),
        (
            f'[caller.a]\nrole="query"\n[[token]]\ncaller="a"\nsha256="{SHA}"\n[[token]]\ncaller="a"\nsha256="{SHA}"',
            r"number 2: the same token is there before, of 'a'",
        ),
        (
            f'[caller.a]\nrole="query"\n[[token]]\ncaller="a"\nsha256="{SHA}"\nexpires=2027-01-01T00:00:00',
            "expires must be a date, or a time with its zone",
        ),
        (f'[caller.a]\nrole="query"\n[[token]]\ncaller="a"\nsha256="{SHA}"\nexpires="soon"', "expires must be"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(content, message):
    with pytest.raises(ValueError, match=message):
        parse(content.encode("latin-1"))


TOKEN_OF_A = f'[[token]]\ncaller = "a"\nsha256 = "{SHA}"\n'


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            f'[caller.a]\nrole = "query"\nlabel_prefixes = ["x"]\n{TOKEN_OF_A}',
            ["label_prefixes of a: its role may add and delete nothing"],
        ),
        (f'[caller.a]\nrole = "enrol"\nlabel_prefixes = ["x"]\n{TOKEN_OF_A}', []),
        (
            '[caller.a]\nrole = "query"\ncertificates = ["x", "y"]\n',
            ["certificates of a: without --tls-client-ca, no certificate is looked at"],
        ),
        ('[caller.a]\nrole = "query"\nsubjects = ["x"]\n', ["subjects of a: without --jwt-keys, no JWT is taken"]),
        ('[caller.a]\nrole = "query"\n', ["a: it has no token, certificate or subject"]),
        (
            "[defaults]\nmax_k = 5\n",
            ["[defaults]: no caller is listed, and without --jwt-keys there are no others"],
        ),
    ],
)
def test_what_has_no_effect_on_a_server_is_told_with_the_caller(content, told):
    assert without_effect(parse(content.encode()), certificates=False, jwts=False) == told


@pytest.mark.parametrize("key", ["certificates", "subjects", "defaults"])
def test_what_a_server_looks_at_has_an_effect(key):
    content = "[defaults]\nmax_k = 5" if key == "defaults" else f'[caller.a]\nrole = "query"\n{key} = ["x"]'
    assert without_effect(parse(content.encode()), certificates=True, jwts=True) == []
