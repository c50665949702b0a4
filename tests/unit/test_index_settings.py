"""Whose index is asked: uv's settings, else pip's; and what of an address may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.index.settings import PYPI, IndexSettings, index_settings, shown


def test_pypi_is_asked_where_nothing_is_set() -> None:
    assert index_settings({"PIP_CONFIG_FILE": "/dev/null"}) == IndexSettings([PYPI])


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"UV_DEFAULT_INDEX": "https://a/"}, ["https://a/"]),
        ({"UV_INDEX_URL": "https://a/"}, ["https://a/"]),
        ({"UV_DEFAULT_INDEX": "https://a/", "UV_INDEX_URL": "https://b/"}, ["https://a/"]),
        ({"UV_INDEX": "https://a/ https://b/"}, ["https://a/", "https://b/", PYPI]),
        ({"UV_EXTRA_INDEX_URL": "https://a/", "UV_DEFAULT_INDEX": "https://b/"},
         ["https://a/", "https://b/"]),
        ({"UV_INDEX": "mine=https://a/?x=1", "UV_DEFAULT_INDEX": "https://b/?x=https://c/"},
         ["https://a/?x=1", "https://b/?x=https://c/"]),
        ({"UV_INDEX": "my-own=https://a/", "UV_INDEX_MY_OWN_USERNAME": "me@work",
          "UV_INDEX_MY_OWN_PASSWORD": "a/b", "UV_DEFAULT_INDEX": "https://b/"},
         ["https://me%40work:a%2Fb@a/", "https://b/"]),
        ({"PIP_INDEX_URL": "https://a/"}, ["https://a/"]),
        ({"PIP_INDEX_URL": "https://a/", "PIP_EXTRA_INDEX_URL": "https://b/ https://c/"},
         ["https://a/", "https://b/", "https://c/"]),
        ({"PIP_INDEX_URL": "https://a/", "UV_DEFAULT_INDEX": "https://b/"}, ["https://b/"]),
    ],
)  # fmt: skip
def test_uvs_settings_go_before_pips(variables: dict[str, str], expected: list[str]) -> None:
    assert index_settings({"PIP_CONFIG_FILE": "/dev/null"} | variables).indexes == expected


def test_pips_files_are_read_the_nearer_ones_last(tmp_path: Path) -> None:
    user = tmp_path / "home" / ".config" / "pip"
    far = tmp_path / "far" / "pip"
    for folder in (user, far):
        folder.mkdir(parents=True)
    (far / "pip.conf").write_text("[global]\nindex-url = https://far/\n")
    (user / "pip.conf").write_text(
        "[global]\ncert = /u.pem\nindex_url = https://user/\nextra-index-url =\n  https://b/\n  https://c/%40\n"
    )
    host = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_DIRS": str(tmp_path / "far")}
    settings = index_settings(host)
    assert (settings.indexes, settings.certificates) == (
        ["https://user/", "https://b/", "https://c/%40"], "/u.pem",
    )  # fmt: skip
    own = tmp_path / "own.conf"
    own.write_text("[install]\nindex-url = https://own/\n")
    with_own = index_settings(host | {"PIP_CONFIG_FILE": str(own)})
    assert with_own.indexes == ["https://own/"]  # the user's own file, with its extras, is not read
    gone = index_settings(host | {"PIP_CONFIG_FILE": str(tmp_path / "none")})
    assert gone.indexes[0] == "https://user/"
    assert index_settings(host | {"PIP_INDEX_URL": "https://var/"}).indexes[0] == "https://var/"


def test_a_file_of_pips_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    own = tmp_path / "own.conf"
    own.write_bytes(b"index-url = \xff no section\n")
    assert index_settings({"PIP_CONFIG_FILE": str(own)}).indexes[0]


def test_pips_no_index_counts_where_uv_names_none(tmp_path: Path) -> None:
    own = tmp_path / "own.conf"
    own.write_text("[global]\nno-index = yes\n")
    in_file, in_variable = {"PIP_CONFIG_FILE": str(own)}, {"PIP_NO_INDEX": "1"}
    nothing = {"PIP_CONFIG_FILE": "/dev/null"}
    assert index_settings(in_file).no_index
    assert index_settings(nothing | in_variable | {"PIP_INDEX_URL": "https://a/"}).no_index
    assert not index_settings(nothing | in_variable | {"UV_DEFAULT_INDEX": "https://a/"}).no_index
    assert not index_settings(in_file | {"PIP_NO_INDEX": "0"}).no_index
    assert not index_settings(nothing).no_index


def test_certificates_and_offline_are_the_users() -> None:
    settings = index_settings({"SSL_CERT_FILE": "/a.pem", "PIP_CERT": "/b.pem", "UV_OFFLINE": "1"})
    assert (settings.certificates, settings.offline) == ("/a.pem", True)
    settings = index_settings({"PIP_CERT": "/b.pem", "UV_OFFLINE": "0"})
    assert (settings.certificates, settings.offline) == ("/b.pem", False)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://user:pass@host:8080/simple/?token=1#x", "https://host:8080/simple/"),
        ("https://token@host/simple", "https://host/simple"),
        ("https://a@[::1]:8/simple", "https://[::1]:8/simple"),
        ("https://user:1/2@host/simple", "(an address that cannot be read)"),
        ("https://user:pass@[bad/simple", "(an address that cannot be read)"),
        ("user:pass@host/simple", "(an address that cannot be read)"),
        ("file:///srv/simple", "file:///srv/simple"),
    ],
)
def test_an_address_is_shown_without_what_is_private(address: str, expected: str) -> None:
    assert shown(address) == expected
