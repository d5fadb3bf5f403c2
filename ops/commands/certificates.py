"""`renkei certificates`: an authority, and the certificates it issues."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.commands.common import Commands
from ops.config import ConfigurationError


def add(commands: Commands) -> None:
    certificates = commands.add_parser("certificates", help="証明書の管理 (certificates)")
    of_certificates = certificates.add_subparsers(dest="certificates", required=True)
    for name, help_text, run in (
        ("authority", "認証局の作成 (make an authority)", _authority),
        ("issue", "発行 (issue a certificate and its key)", _issue),
        ("renew", "更新、鍵も新しくなる (replace a certificate and its key)", _renew),
        ("revoke", "失効 (revoke a certificate)", _revoke),
        ("crl", "失効リストの出し直し (write the list of revoked certificates anew)", _crl),
    ):
        command = of_certificates.add_parser(name, help=help_text)
        command.add_argument("folder", type=Path, help="認証局のフォルダー (the authority's folder)")
        command.set_defaults(run=run)
        if name == "issue":
            command.add_argument("name", help="ファイル名 (name of the files, such as agency)")
            command.add_argument("uri", help="当事者の名前 (the party, such as urn:renkei:agency:990019)")
            command.add_argument("--purpose", choices=("tls", "signing"), required=True)
            command.add_argument("--host", action="append", default=[], help="接続先の名前 (TLS)")
            command.add_argument(
                "--algorithm", choices=("ed25519", "ecdsa-p256", "ml-dsa-65"), default="ed25519", help="署名"
            )
        elif name == "renew":
            command.add_argument("name", help="拡張子を除いたファイル名 (such as agency-tls)")
        elif name == "revoke":
            command.add_argument("certificate", type=Path, metavar="FILE")
            command.add_argument(
                "--reason",
                choices=("key_compromise", "superseded", "cessation_of_operation", "unspecified"),
                default="unspecified",
            )


def _authority(options: Namespace) -> int:
    from ops.certificates import create_authority

    create_authority(options.folder)
    return _written(options.folder / "ca.pem", options.folder / "ca.key", options.folder / "ca.crl")


def _issue(options: Namespace) -> int:
    from ops.certificates import issue

    more = {"hosts": options.host} if options.host else {}
    with _usable():
        issue(
            options.folder,
            options.name,
            options.uri,
            purpose=options.purpose,
            algorithm=options.algorithm,
            **more,
        )
    stem = f"{options.name}-{options.purpose}"
    return _written(options.folder / f"{stem}.pem", options.folder / f"{stem}.key")


def _renew(options: Namespace) -> int:
    from ops.certificates import renew

    with _usable():
        kept = renew(options.folder, options.name)
    return _written(options.folder / f"{options.name}.pem", options.folder / f"{options.name}.key", kept)


def _revoke(options: Namespace) -> int:
    from cryptography.x509 import ReasonFlags

    from ops.certificates import revoke

    with _usable():
        revoke(options.folder, options.certificate, reason=ReasonFlags[options.reason])
    return _written(options.folder / "ca.crl")


def _crl(options: Namespace) -> int:
    from ops.certificates import crl

    with _usable():
        crl(options.folder)
    return _written(options.folder / "ca.crl")


@contextmanager
def _usable() -> Iterator[None]:
    """What an authority refuses is the operator's to mend, as a wrong configuration is (S-104)."""
    try:
        yield
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _written(*files: Path) -> int:
    for file in files:
        print(f"OK {file}")
    return 0
