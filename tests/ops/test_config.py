"""Configuration files: every key documented, and nothing in them overlooked, guessed or half understood."""

import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.cli import main
from ops.config import AgencyConfig, ConfigurationError, NetworkConfig, RegistryConfig, address, read, write
from ops.demo import write_configurations
from schemas.errors import entry
from tests.ops.folders import READER, copied, renkei

KINDS: dict[str, type[Any]] = {
    "990019": AgencyConfig,
    "990027": AgencyConfig,
    "network": NetworkConfig,
    "registry": RegistryConfig,
}
COMMANDS = {"990019": "serve", "network": "network", "registry": "registry"}
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The four files that the demo writes."""
    write_configurations(tmp_path, "sqlite")
    return tmp_path


def toml(values: dict[str, Any]) -> str:
    """Plain TOML, written without any code of the product; `repr` of text and lists is TOML as well."""
    return "".join(f"{name} = {str(v).lower() if v is True else repr(v)}\n" for name, v in values.items())


def refusal(file: Path, kind: type[Any], change: Change) -> str:
    """Change the values of a file; why it is then refused."""
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(toml(values), encoding="utf-8")
    with pytest.raises(ConfigurationError) as refused:
        read(kind, file)
    return str(refused.value)


@pytest.mark.parametrize("name", KINDS)
def test_what_the_demo_writes_is_read(name: str, folder: Path) -> None:
    config = read(KINDS[name], folder / f"{name}.toml")
    values = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
    assert values.keys() == {f.name for f in fields(KINDS[name])}
    for f in fields(KINDS[name]):
        if isinstance(values[f.name], str) and not f.metadata["path"]:
            assert getattr(config, f.name) == values[f.name]


@pytest.mark.parametrize("name", KINDS)
def test_paths_are_taken_from_the_folder_of_the_file(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    config = read(KINDS[name], folder / f"{name}.toml")
    assert config.authority == str(folder / "certificates" / "ca.pem")
    for f in fields(KINDS[name]):
        value = getattr(config, f.name)
        for path in [row[-1] for row in value] if isinstance(value, tuple) else [value]:
            if f.metadata["path"] and path:
                assert Path(path).is_relative_to(folder), f.name
    assert config.log == str(folder / "log" / f"{name}.log")


def test_an_absolute_path_stays_and_an_empty_one_is_none(folder: Path) -> None:
    config = read(AgencyConfig, folder / "990019.toml")
    write(replace(config, authority="/etc/renkei/ca.pem", log=""), folder / "other.toml")
    again = read(AgencyConfig, folder / "other.toml")
    assert again.authority == "/etc/renkei/ca.pem"
    assert again.log == again.portal_certificate == ""


@pytest.mark.parametrize("name", KINDS)
def test_written_and_read_again_it_is_the_same(name: str, folder: Path, tmp_path: Path) -> None:
    config = read(KINDS[name], folder / f"{name}.toml")
    write(config, tmp_path / "again.toml")
    assert read(KINDS[name], tmp_path / "again.toml") == config


# Every character that TOML has a notation for; DEL and surrogates are no part of any name.
@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f")))
def test_any_text_survives_writing_and_reading(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("text")
    write_configurations(folder, "sqlite")
    network = read(NetworkConfig, folder / "network.toml")
    odd = replace(network, agencies=(("990019", name, "city"), *network.agencies), permit_minutes=5)
    write(odd, folder / "odd.toml")
    assert read(NetworkConfig, folder / "odd.toml") == odd


@pytest.mark.parametrize("name", KINDS)
def test_every_key_is_documented_above_its_value(name: str, folder: Path) -> None:
    lines = (folder / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# `renkei ")
    for f in fields(KINDS[name]):
        at = next(number for number, line in enumerate(lines) if line.startswith(f"{f.name} = "))
        assert lines[at - 1] == f"# {f.metadata['doc']}"
        assert len(f.metadata["doc"]) > 15
        assert f.metadata["doc"].endswith(".")


@pytest.mark.parametrize("name", KINDS)
def test_an_unknown_key_is_refused_and_named(name: str, folder: Path) -> None:
    file = folder / f"{name}.toml"
    said = refusal(file, KINDS[name], lambda values: values.update(tsl_key="typing error"))
    assert str(file) in said
    assert "tsl_key" in said


@pytest.mark.parametrize(
    ("name", "key"),
    [(name, f.name) for name in COMMANDS for f in fields(KINDS[name]) if f.default is MISSING],
)
def test_a_missing_key_is_refused_and_named(name: str, key: str, folder: Path) -> None:
    file = folder / f"{name}.toml"
    said = refusal(file, KINDS[name], lambda values: values.pop(key))
    assert str(file) in said
    assert f"key {key} is missing" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_key_with_a_default_may_be_missing(name: str, folder: Path) -> None:
    file = folder / f"{name}.toml"
    optional = {f.name: f.default for f in fields(KINDS[name]) if f.default is not MISSING}
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    file.write_text(toml({k: v for k, v in values.items() if k not in optional}), encoding="utf-8")
    config = read(KINDS[name], file)
    assert {key: getattr(config, key) for key in optional} == optional
    assert "log" in optional


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("990019", "code", 990019),
        ("990019", "name", ["連携市"]),
        ("registry", "log", True),
        ("network", "permit_minutes", "7"),
        ("network", "permit_minutes", 7.5),
        ("network", "permit_minutes", True),
        ("network", "agencies", "990019"),
        ("network", "agencies", ["990019", "連携市", "city"]),
        ("network", "agencies", [["990019", "連携市"]]),
        ("network", "agencies", [["990019", "連携市", 5]]),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_and_its_key_named(
    name: str, key: str, value: object, folder: Path
) -> None:
    file = folder / f"{name}.toml"
    said = refusal(file, KINDS[name], lambda values: values.update({key: value}))
    assert str(file) in said
    assert key in said


@pytest.mark.parametrize(
    "value", ["", "localhost", ":80", "localhost:http", "localhost:65536", "localhost:-1"]
)
@pytest.mark.parametrize(
    ("name", "key"), [("990019", "network"), ("990019", "business"), ("network", "listen")]
)
def test_an_address_that_is_none_is_refused_and_its_key_named(
    name: str, key: str, value: str, folder: Path
) -> None:
    file = folder / f"{name}.toml"
    said = refusal(file, KINDS[name], lambda values: values.update({key: value}))
    assert said.startswith(f"{file}: {key}: ")


def test_addresses_are_read() -> None:
    assert address("localhost:0") == ("localhost", 0)
    assert address("::1:8443") == ("::1", 8443)


def test_a_portal_may_be_left_out_but_not_be_nonsense(folder: Path) -> None:
    config = read(AgencyConfig, folder / "990019.toml")
    write(replace(config, portal=""), folder / "without.toml")
    assert read(AgencyConfig, folder / "without.toml").portal == ""
    said = refusal(folder / "990019.toml", AgencyConfig, lambda values: values.update(portal="here"))
    assert "portal" in said


@pytest.mark.parametrize("content", [b"code = ", b"code = '\xff'", b"\x00"])
def test_a_file_that_is_no_toml_is_refused_and_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"x\.toml: not TOML"):
        read(AgencyConfig, tmp_path / "x.toml")


# -- what the operator sees ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_a_daemon_with_a_wrong_file_ends_at_once_with_the_catalogues_words(name: str, folder: Path) -> None:
    file = folder / f"{name}.toml"
    file.write_text(file.read_text(encoding="utf-8") + 'extra = "1"\n', encoding="utf-8")
    result = renkei(COMMANDS[name], "--config", file)
    assert result.returncode == 1
    assert result.stderr.startswith(f"[S-104] {entry('S-104').cause_ja} {file}: unknown key extra")
    assert entry("S-104").next_ja in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / name).exists()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("990019", "kind", "village green"),
        ("990019", "authority", "990019.toml"),
        ("990019", "signing_key", "nowhere.key"),
        ("network", "signing_certificate", "network.toml"),
        ("network", "agencies", [["990019", "連携市", "village green"]]),
        ("registry", "tls_key", "nowhere.key"),
    ],
)
def test_what_a_daemon_cannot_use_is_named_by_its_key_and_nothing_is_begun(
    name: str, key: str, value: object, fresh: Path, tmp_path: Path
) -> None:
    folder = copied(fresh, tmp_path / "fresh")
    file = folder / f"{name}.toml"
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    file.write_text(toml(values | {key: value}), encoding="utf-8")
    result = renkei(COMMANDS[name], "--config", file)
    assert result.returncode == 1
    assert result.stderr.startswith("[S-104]")
    assert key in result.stderr.splitlines()[0]
    assert "Traceback" not in result.stderr
    assert not (folder / name).exists()


@pytest.mark.parametrize("command", [["load", "residents", "x.csv"], ["inquire", "x.csv"], ["records"]])
def test_the_other_commands_refuse_it_as_well(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "990019.toml"
    file.write_text('surprise = "1"\n', encoding="utf-8")
    more = {"inquire": ["--results", "y.csv"], "records": ["--resident", "1", *READER]}.get(command[0], [])
    assert main([command[0], "--config", str(file), *command[1:], *more]) == 1
    assert f"{file}: unknown key surprise" in capsys.readouterr().err
