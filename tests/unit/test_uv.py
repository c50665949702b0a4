"""What uv is told: which of the host's settings it is given."""

from __future__ import annotations

import os
from pathlib import Path

from matrix.environments.uv import install_source, link_mode, uv_environ, uv_settings
from matrix.machine.sandbox import OPEN, Isolation, Sandbox


def test_find_links_of_pip_are_taken_over_where_uv_has_none() -> None:
    host = {"PIP_FIND_LINKS": "/wheels https://example.org/more", "HOME": "/h"}
    settings = uv_settings(host, installing=True)
    assert settings["UV_FIND_LINKS"] == "/wheels,https://example.org/more"
    host["UV_FIND_LINKS"] = "/uv"
    assert uv_settings(host, installing=True)["UV_FIND_LINKS"] == "/uv"


def test_a_lock_is_made_against_the_index_alone() -> None:
    host = {"PIP_FIND_LINKS": "/wheels", "UV_FIND_LINKS": "/uv", "UV_TORCH_BACKEND": "cpu",
            "UV_DEFAULT_INDEX": "https://index", "HOME": "/h"}  # fmt: skip
    installing = uv_settings(host, installing=True)
    locking = uv_settings(host, installing=False)
    assert installing["UV_TORCH_BACKEND"] == "cpu"
    assert not {"UV_FIND_LINKS", "UV_TORCH_BACKEND"} & locking.keys()
    assert locking["UV_DEFAULT_INDEX"] == installing["UV_DEFAULT_INDEX"] == "https://index"


def test_uv_asks_pips_index_where_it_has_none_of_its_own(tmp_path: Path) -> None:
    host = {"PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}
    assert "UV_DEFAULT_INDEX" not in uv_settings(host, installing=False)
    host["PIP_INDEX_URL"] = "https://mirror.example/simple"
    settings = uv_settings(host, installing=False)
    assert settings["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    host["UV_INDEX_URL"] = "https://own.example/simple"
    settings = uv_settings(host, installing=False)
    assert "UV_DEFAULT_INDEX" not in settings
    assert settings["UV_INDEX_URL"] == "https://own.example/simple"


def test_uv_sees_its_own_and_the_networks_settings_and_a_private_home(tmp_path: Path) -> None:
    host = {"HF_TOKEN": "s", "GITHUB_TOKEN": "s", "HOME": "/h", "PATH": "/bin", "UV_OFFLINE": "1",
            "HTTPS_PROXY": "http://proxy", "PYTHONPATH": "/x", "VIRTUAL_ENV": "/v"}  # fmt: skip
    settings = uv_environ(host, tmp_path, installing=True)
    assert "s" not in settings.values()
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & settings.keys()
    assert (settings["UV_OFFLINE"], settings["HTTPS_PROXY"]) == ("1", "http://proxy")
    assert settings["HOME"] == str(tmp_path)
    assert settings["UV_CACHE_DIR"] == "/h/.cache/uv"  # the user's, not in the private home


def test_where_builds_come_from_is_named_by_wheels_and_not_by_path(tmp_path: Path) -> None:
    def source(name: str, *wheels: str) -> str:
        place = tmp_path / name
        place.mkdir()
        for wheel in wheels:
            (place / wheel).write_bytes(b"")
        (place / "notes.txt").write_text("")
        return install_source({"UV_FIND_LINKS": str(place)})

    first = source("a", "torch-2.13.0-cp311.whl")
    assert source("b", "torch-2.13.0-cp311.whl") == first
    assert source("c", "torch-2.13.0-cp311.whl", "x-1-py3.whl") != first
    assert install_source({}) != first
    cpu = install_source({"UV_TORCH_BACKEND": "cpu"})
    assert cpu != install_source({})


def test_packages_are_links_to_the_shared_cache_where_nothing_can_write_to_them() -> None:
    assert link_mode({}, Sandbox(Isolation.BUBBLEWRAP)) == "hardlink"
    assert link_mode({}, OPEN) == "copy"
    assert link_mode({"UV_LINK_MODE": "hardlink"}, OPEN) == "hardlink"
