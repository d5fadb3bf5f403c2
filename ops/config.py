"""Configuration: one TOML file for each process, every key documented here, an unknown key refused."""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

C = TypeVar("C")


class ConfigurationError(Exception):
    """The file cannot be used (S-104). The text names the file and the key."""


def key(doc: str, *, path: bool = False, **default: Any) -> Any:
    """A configuration key with its documentation; a path is taken from the folder of the file.

    A key whose documentation says host:port is checked to be an address, or empty where that is its default.
    """
    return field(metadata={"doc": doc, "path": path, "address": "host:port" in doc}, **default)


@dataclass(frozen=True)
class AgencyConfig:
    """`renkei serve`: one agency with its intermediate server, linkage interface and addressing."""

    code: str = key("Local government code, six digits with check digit.")
    name: str = key("Name of the agency as it stands in provision records.")
    kind: str = key(
        "Kind of agency, an identifier of schemas/law/kinds.tsv, e.g. city; after it, separated by spaces, "
        "its capacities, identifiers of schemas/law/capacities.tsv."
    )
    data: str = key("Folder of the ledgers, vaults and projections.", path=True)
    authority: str = key("Certificate of the network's authority (PEM).", path=True)
    tls_certificate: str = key("This agency's certificate for its connections (PEM).", path=True)
    tls_key: str = key("Its private key (PEM, mode 0600).", path=True)
    signing_certificate: str = key(
        "The certificate by which this agency signs messages (PEM; Ed25519, ECDSA P-256 or ML-DSA-65). "
        "Replaced together with its key, it is taken up without a stop.",
        path=True,
    )
    signing_key: str = key("Its private key (PEM, mode 0600).", path=True)
    network: str = key("Address of the network, host:port.")
    business: str = key("Address on which business systems are served, host:port.")
    business_certificate: str = key(
        "Certificate that the commands load, inquire and records show (PEM).", path=True
    )
    business_key: str = key("Its private key (PEM, mode 0600).", path=True)
    registry: str = key(
        "Address of the resident registry server, host:port; empty: requests go there by medium alone.",
        default="",
    )
    sign_in_hours: int = key(
        "How long a member of staff is signed in at a terminal (renkei sign-in), in hours; 0: nobody has to.",
        default=0,
    )
    bulk_bytes_per_second: int = key(
        "How much of the line bulk messages may fill, in bytes a second; 0: all of it. Inquiries about one "
        "person or household never wait for them.",
        default=0,
    )
    bulk_hours: str = key(
        "When bulk messages leave, such as 20:00-06:00 (local time); empty: at any time.", default=""
    )
    portal: str = key("Address of the residents' portal, host:port; empty: no portal.", default="")
    portal_certificate: str = key(
        "Certificate of the portal (PEM); without one it is served on a loopback address only.",
        path=True,
        default="",
    )
    portal_key: str = key("Its private key (PEM, mode 0600).", path=True, default="")
    store: str = key(
        "Where events are kept: sqlite, in the data folder, or the address of a PostgreSQL database, "
        "postgresql://role@server/database; its password may come from PGPASSWORD or a password file.",
        default="sqlite",
    )
    sealing: str = key(
        "Suite in which others seal for this agency: hybrid (ML-KEM-768 with X25519), or classical (X25519 "
        "alone), which is announced to all partners.",
        default="hybrid",
    )
    seal_seconds: int = key(
        "How often the latest checkpoints are sealed with the second key and cosigned, in seconds.",
        default=600,
    )
    witness: str = key(
        "Address on which this agency cosigns logs whose keys lie in `logs`, host:port; empty: it does not.",
        default="",
    )
    witnesses: tuple[tuple[str, str, str], ...] = key(
        "Who cosigns the checkpoints, each as [address, path prefix, file of verifier keys].",
        path=True,
        default=(),
    )
    log: str = key("File for the log; empty: standard error.", path=True, default="")


@dataclass(frozen=True)
class NetworkConfig:
    """`renkei network`: the reference network."""

    data: str = key("Folder of the network's ledger, vault and projections.", path=True)
    authority: str = key(
        "Certificate of the authority that issued all parties' certificates (PEM).", path=True
    )
    tls_certificate: str = key("The network's certificate for its connections (PEM).", path=True)
    tls_key: str = key("Its private key (PEM, mode 0600).", path=True)
    signing_certificate: str = key(
        "The certificate by which notes and the configuration are signed (PEM; Ed25519, ECDSA P-256 or "
        "ML-DSA-65). Replaced together with its key, it is taken up without a stop.",
        path=True,
    )
    signing_key: str = key("Its private key (PEM, mode 0600).", path=True)
    listen: str = key("Address on which agencies and the registry are served, host:port.")
    agencies: tuple[tuple[str, str, str], ...] = key(
        "Agencies that may register, each as [code, name, kind]; kind as in an agency's own configuration."
    )
    assessments: str = key(
        "File of published assessments (TSV, see schemas.law.assessments); without them nothing flows.",
        path=True,
        default="",
    )
    ordinances: str = key(
        "File of ordinance tables (TSV, see schemas.law.ordinances), an agency's code before each line.",
        path=True,
        default="",
    )
    permit_minutes: int = key("How long a permit may be answered, in minutes.", default=7 * 24 * 60)
    crl: str = key(
        "The authority's list of revoked certificates (PEM), read again when it changes; empty: none.",
        path=True,
        default="",
    )
    configuration_seconds: int = key(
        "How long the configuration that agencies are given is valid, in seconds.", default=24 * 60 * 60
    )
    grace_seconds: int = key(
        "How long after that an agency may go on while the network is away, in seconds.",
        default=3 * 24 * 60 * 60,
    )
    store: str = key(
        "Where events are kept: sqlite, in the data folder, or the address of a PostgreSQL database, "
        "postgresql://role@server/database; its password may come from PGPASSWORD or a password file.",
        default="sqlite",
    )
    seal_seconds: int = key(
        "How often the latest checkpoint is sealed with the second key, in seconds.", default=600
    )
    log: str = key("File for the log; empty: standard error.", path=True, default="")


@dataclass(frozen=True)
class RegistryConfig:
    """`renkei registry`: the reference resident registry server."""

    register: str = key("File of individual numbers and resident record codes (CSV).", path=True)
    authority: str = key(
        "Certificate of the authority that issued all parties' certificates (PEM).", path=True
    )
    tls_certificate: str = key("The registry's certificate for its connections (PEM).", path=True)
    tls_key: str = key("Its private key (PEM, mode 0600).", path=True)
    network: str = key("Address of the network, host:port.")
    listen: str = key("Address on which agencies are served, host:port.")
    crl: str = key(
        "The authority's list of revoked certificates (PEM), read again when it changes; empty: none.",
        path=True,
        default="",
    )
    log: str = key("File for the log; empty: standard error.", path=True, default="")


def read(kind: type[C], path: Path) -> C:
    """Read a file of this kind; relative paths in it are taken from the file's folder."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not TOML: {error}") from error
    config = check(kind, values, str(path))
    for f in fields(kind):  # type: ignore[arg-type] # every kind is a dataclass
        if f.metadata["address"] and (getattr(config, f.name) or f.default is MISSING):
            try:
                address(getattr(config, f.name))
            except ConfigurationError as error:
                raise ConfigurationError(f"{path}: {f.name}: {error}") from error
    store = getattr(config, "store", "sqlite")
    if store != "sqlite" and not store.startswith("postgresql://"):
        raise ConfigurationError(f"{path}: store is neither sqlite nor postgresql://...")

    def resolved(value: Any) -> Any:
        """A path from the folder of the file; of a list, the last part of each entry is one."""
        if isinstance(value, tuple):
            return tuple((*entry[:-1], resolved(entry[-1])) for entry in value)
        return str((path.parent / value).resolve())

    paths = {
        f.name: resolved(getattr(config, f.name))
        for f in fields(kind)  # type: ignore[arg-type] # every kind is a dataclass
        if f.metadata["path"] and getattr(config, f.name)
    }
    return replace(config, **paths)  # type: ignore[type-var] # likewise


def check(kind: type[C], values: Mapping[str, Any], where: str) -> C:
    """Every key known, present and of its type, or ConfigurationError."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type] # every kind is a dataclass
    for name in values:
        if name not in known:
            raise ConfigurationError(f"{where}: unknown key {name}")
    result: dict[str, Any] = {}
    for name, f in known.items():
        if name not in values:
            if f.default is MISSING:
                raise ConfigurationError(f"{where}: key {name} is missing")
            continue
        value = values[name]
        if f.type in (str, int):
            if type(value) is not f.type:
                raise ConfigurationError(f"{where}: {name} is not of type {f.type.__name__}")
        else:
            if not isinstance(value, list) or not all(
                isinstance(entry, list) and len(entry) == 3 and all(isinstance(t, str) for t in entry)
                for entry in value
            ):
                raise ConfigurationError(f"{where}: {name} is not a list of [text, text, text]")
            value = tuple(tuple(entry) for entry in value)
        result[name] = value
    return kind(**result)


def write(config: Any, path: Path) -> None:
    """Write a configuration with the documentation of every key above it."""
    lines = [f"# {(type(config).__doc__ or '').splitlines()[0]}", ""]
    for f in fields(config):
        lines += [f"# {f.metadata['doc']}", f"{f.name} = {_toml(getattr(config, f.name))}", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    path.chmod(0o600)  # an address may hold a password


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(entry) for entry in value) + "]"
    if isinstance(value, int):
        return str(value)
    return json.dumps(str(value), ensure_ascii=False)  # a string of JSON is a basic string of TOML


def address(text: str) -> tuple[str, int]:
    """host:port as a pair. Raises ConfigurationError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigurationError(f"{text!r} is not host:port")
    return host, int(port)
