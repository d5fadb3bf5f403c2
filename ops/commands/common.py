"""Arguments that commands of several rooms take, and what is made of them."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace, _ActionsContainer, _SubParsersAction
from datetime import date
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, TypeAlias

from ops.config import AgencyConfig, NetworkConfig, RegistryConfig, read

if TYPE_CHECKING:  # imported when a command runs
    from adapters.platform.staffing import Caller
    from ops.inquiries import Chosen

Commands: TypeAlias = "_SubParsersAction[ArgumentParser]"


def words(text: str) -> str:
    """What an event keeps for good: one line, not too long, not empty."""
    text = text.strip()
    if not (0 < len(text) <= 100 and text.isprintable()):
        raise ArgumentTypeError("1–100 characters in one line")
    return text


def day(text: str) -> str:
    """A day as YYYY-MM-DD."""
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ArgumentTypeError("YYYY-MM-DD") from None


def add_config(command: ArgumentParser) -> None:
    command.add_argument("--config", type=Path, required=True, metavar="FILE")


def agency(options: Namespace) -> AgencyConfig:
    return read(AgencyConfig, options.config)


def network(options: Namespace) -> NetworkConfig:
    return read(NetworkConfig, options.config)


def registry(options: Namespace) -> RegistryConfig:
    return read(RegistryConfig, options.config)


def keeper(options: Namespace) -> AgencyConfig | NetworkConfig:
    """The configuration of a process that keeps ledgers: an agency's, or the network's."""
    if "\nagencies" in options.config.read_text(encoding="utf-8"):
        return network(options)
    return agency(options)


def add_by(command: ArgumentParser, who: str) -> None:
    """Who acts: a member of staff."""
    command.add_argument("--by", type=words, required=True, metavar="STAFF", help=who)


def add_purpose(command: ArgumentParser, why: str = "目的 (what for)") -> None:
    command.add_argument("--purpose", type=words, required=True, help=why)


def caller(options: Namespace, purpose: str) -> "Caller":
    """Who acts, at this machine, and what for."""
    from adapters.platform.staffing import Caller

    return Caller(options.by, gethostname(), purpose)


def add_confirm(command: _ActionsContainer) -> None:
    command.add_argument("--confirm", default="", metavar="ID", help="別の職員の確認 (by a second person)")


def add_resident(command: _ActionsContainer) -> None:
    command.add_argument("--resident", default="", metavar="NUMBER", help="団体内統合宛名番号")


def add_days(command: ArgumentParser) -> None:
    """From which day to which, as `since` and `until`; None where it is open."""
    command.add_argument("--from", dest="since", type=day, metavar="DAY", help="この日から (first day)")
    command.add_argument("--to", dest="until", type=day, metavar="DAY", help="この日まで (last day)")


def add_store(command: ArgumentParser) -> None:
    command.add_argument("--store", default="sqlite", metavar="URL", help="PostgreSQL")


def add_errors(command: ArgumentParser) -> None:
    command.add_argument("--errors", type=Path, help="エラーリスト (default: FILE.errors.csv)")


def errors(options: Namespace) -> Path:
    """Where the error list of a file goes."""
    given: Path | None = options.errors
    return given if given is not None else options.file.with_name(options.file.name + ".errors.csv")


def add_choice(command: ArgumentParser, *, required: bool) -> None:
    """Inquiries of a file, of a case, or one."""
    which = command.add_mutually_exclusive_group(required=required)
    which.add_argument("--file", type=Path, help="照会ファイル (the file of inquiries)")
    which.add_argument("--case", default="", metavar="NUMBER", help="事案番号 (the inquiries of a case)")
    which.add_argument("--request", default="", metavar="ID", help="照会ID (one inquiry)")


def choice(options: Namespace) -> "Chosen":
    from ops.inquiries import Chosen

    return Chosen(options.file, options.case, options.request)
