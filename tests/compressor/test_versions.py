"""Versions of tools."""

from importlib.metadata import version

from flyweight.compressor.versions import installed_versions


def test_what_is_not_installed_is_left_out() -> None:
    assert installed_versions(["numpy", "no-such-distribution"]) == {"numpy": version("numpy")}
