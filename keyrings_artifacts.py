# SPDX-FileCopyrightText: 2026 The keyrings.artifacts authors
# SPDX-License-Identifier: MIT
"""Credentials for Azure Artifacts feeds, for every tool that asks Python's keyring.

pip, uv, pixi, twine and others ask `keyring` for a password; this backend answers for
`pkgs.dev.azure.com` and its kin, and for no other service. It needs Python 3.9, `keyring` 23 and
`urllib3` 1.26 or newer, and may be used as a copied file: unchanged, with its folder on PYTHONPATH and

    PYTHON_KEYRING_BACKEND=keyrings_artifacts.ArtifactsKeyringBackend

after which this prints a token, or one sentence that says what is missing:

    keyring get https://pkgs.dev.azure.com/ORG/_packaging/FEED/pypi/simple/ me

A credential is given by the environment (AZURE_DEVOPS_EXT_PAT and its kin), found where an earlier
call kept it, or obtained: one of SOURCES, from a machine's identity over the Azure CLI to a
browser, yields an Entra token, and a person's is exchanged for a token that opens packages and
nothing else. KEYRINGS_ARTIFACTS_SOURCES restricts and orders the sources,
KEYRINGS_ARTIFACTS_TOKEN_TYPE says what is asked for, KEYRINGS_ARTIFACTS_LOGLEVEL=DEBUG shows every
step, and the doctor, `python -m keyrings_artifacts URL`, what keeps a feed shut and what mends it.
All other variables, Azure's own or those of the tools before this one, are in the README's one table.

It asks the feed, Microsoft's sign-in and token services, and the identity endpoint or the token
issuer of the machine or pipeline, and no one else. It keeps what it got in the best other keyring,
without one a day's token in the folder `keyrings_artifacts` of keyring's data directory;
`keyring del URL me` forgets both.

Decisions are pure functions over plain values; every effect is a field of `World`. `None` means
"not mine"; an `ArtifactsError` means "mine, and broken" and is one sentence that names the mend.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import logging
import os
import re
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlencode, urlsplit

from keyring.backend import KeyringBackend, get_all_keyring
from keyring.credentials import SimpleCredential
from keyring.errors import PasswordDeleteError, PasswordSetError
from keyring.util import platform_

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from typing import IO, TextIO, Union

    from keyring.credentials import Credential

__version__ = "2.0.0"
__all__ = ["ArtifactsKeyringBackend"]

log = logging.getLogger(__name__)
T = TypeVar("T")

# --- constants -------------------------------------------------------------------------------

# Azure DevOps in every tenant:
# https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/service-principal-managed-identity
AZURE_DEVOPS: Final = "499b84ac-1321-427f-aa17-267ca6975798"

# What the service calls "any user name will do": the name artifacts-credprovider answers with.
DEFAULT_USERNAME: Final = "VssSessionToken"

# https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/oauth#scopes
DEFAULT_SCOPE: Final = "vso.packaging_write"

MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

MARGIN: Final = 5 * MINUTE  # a token with less left is as good as expired (MSAL's figure)
CHECKED_FOR: Final = HOUR  # how long an accepted session is believed without asking
SESSION_DAYS: Final = 1  # artifacts-credprovider: a self-describing token lives 24 hours at most
PAT_DAYS: Final = 90
MAX_PAT_DAYS: Final = 365  # https://learn.microsoft.com/azure/devops/organizations/accounts/use-personal-access-tokens-to-authenticate

CALL_SECONDS: Final = 50.0  # for a whole call, beside what people take: installers wait behind it
TRIES: Final = 3
TRY_SECONDS: Final = 10.0
QUIET_SECONDS: Final = 35.0  # of nothing but faults, while a person is waited for
MAX_RETRY_AFTER: Final = 5.0  # seconds
MAX_BODY: Final = 1 << 18  # bytes; a token answer is a few thousand
MAX_TOKEN: Final = 1 << 14  # characters
SIGN_IN_SECONDS: Final = 180.0
REFRESH_IDLE: Final = 30 * DAY  # after which a refresh token is used lest it end at 90 days
AZ_SECONDS: Final = 30.0  # az starts in 1 to 15 seconds (Azure/azure-cli#29871)
LEFT_ALONE: Final = 10 * MINUTE  # for so long a place that failed, and a person who declined
STORE_SECONDS: Final = 30.0  # long enough to type the password that unlocks a keyring
PROVIDERS: Final = 9  # the priority from which keyrings make credentials up and keep none
KEY_BYTES: Final = 32
ENTRY_LIMIT: Final = 1200  # characters; Windows takes 2,560 bytes of UTF-16 an entry

# Feed hosts, themselves or a dot and a name before them, and the token hosts that may serve them.
# codedev.ms, vsts.me and codeapp.ms are test fabrics. Source: artifacts-credprovider's allow-lists.
_PRODUCTION: Final = ("vssps.dev.azure.com", "vssps.visualstudio.com")
FEED_HOSTS: Final[Mapping[str, tuple[str, ...]]] = {
    "pkgs.dev.azure.com": _PRODUCTION,
    "pkgs.visualstudio.com": _PRODUCTION,
    "pkgs.codedev.ms": ("vssps.codedev.ms",),
    "pkgs.vsts.me": ("vssps.vsts.me",),
    "pkgs.codeapp.ms": ("vssps.codeapp.ms",),
}

# https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud, public cloud
SIGN_IN_HOSTS: Final = frozenset(
    {"login.microsoftonline.com", "login.microsoft.com", "login.windows.net", "sts.windows.net"}
)

# The public client of Azure Artifacts' own tools (artifacts-credprovider), known in every tenant.
CLIENT_ID: Final = "d5a56ea4-7369-46b8-a538-c370805301bf"
# Narrower scopes are refused to this client (AADSTS65002); the exchange narrows.
SIGN_IN_SCOPE: Final = f"{AZURE_DEVOPS}/.default offline_access openid profile"

# Where Entra has people type a device code.
DEVICE_HOSTS: Final = frozenset({"microsoft.com", "www.microsoft.com", "aka.ms", *SIGN_IN_HOSTS})

# Answers to a refresh token that is worth nothing any more:
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
SPENT: Final = frozenset({"invalid_grant", "interaction_required", "login_required", "consent_required"})
# Its words for a trouble of its own, with whatever status:
PASSING: Final = frozenset({"temporarily_unavailable", "server_error"})

# Browsers that draw in the terminal, which is not ours to draw in.
TEXT_BROWSERS: Final = frozenset(
    {"w3m", "lynx", "links", "links2", "elinks", "www-browser", "browsh", "carbonyl", "curl"}
)

SECRET_FILE: Final = "/run/secrets/azure_devops_ext_pat"  # noqa: S105  where Docker mounts it

# Exchanges in the order they are tried; each is what the one before it falls back to.
LADDER: Final = ("pat", "session", "entra")

# How well a place keeps what it is given.
PLAIN: Final = 0  # a file, which may end in a backup or an image: packages only, and for a day
SEALED: Final = 1  # a file that is worth nothing without another one
KEYRING: Final = 2

# --- values ----------------------------------------------------------------------------------


class Feed(NamedTuple):
    """A feed as one caller spelled it; `organization` is the key of everything kept for it."""

    organization: str
    url: str
    bare: bool = False  # asked by host name alone: pip's and uv's repeat of a look-up by URL
    server: bool = False  # of an Azure DevOps Server, where nobody can sign in

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def takes_uploads(self) -> bool:
        return urlsplit(self.url).path.rstrip("/").endswith("/upload")


class Discovered(NamedTuple):
    """What an unauthenticated request to a feed tells: who signs in where, who exchanges."""

    tenant: str | None  # None: backed by personal accounts, or not told
    token_service: str
    sign_in_host: str = "login.microsoftonline.com"


class Challenge(NamedTuple):
    """A feed that wants a credential; it is asked for details when one is needed, and once."""

    feed: Feed
    discover: Callable[[], Discovered]

    @property
    def tenant(self) -> str | None:
        return self.discover().tenant

    @property
    def token_service(self) -> str:
        return self.discover().token_service


class Settings(NamedTuple):
    """How the environment wants the exchange; `token_type` is "" where it does not say."""

    token_type: str = ""
    pat_days: float = 0  # 0: as long as it can be kept
    scope: str = DEFAULT_SCOPE
    session_days: float = SESSION_DAYS


class Value:
    """What is equal where its fields are; an `__eq__` generated for each class would slow the import."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)


@dataclass(frozen=True, eq=False, repr=False)
class Request(Value):
    """One HTTP request. `body_limit` 0 reads the headers only."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    body_limit: int = MAX_BODY
    why: bool = False  # with 0: the body of a refusal all the same, which tells why
    tries: int = TRIES
    direct: bool = False  # past any proxy: to this machine itself
    pin: str = ""  # SHA-1 or SHA-256 of the certificate that is trusted in place of all others


@dataclass(frozen=True, eq=False, repr=False)
class Response(Value):
    """Its answer; header names in lower case, a repeated header once for each line."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def lines(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class Completed(NamedTuple):
    """A program that ended by itself."""

    returncode: int
    stdout: str
    stderr: str

    def __repr__(self) -> str:  # what it printed may be a token
        return f"Completed({self.returncode})"


@dataclass(frozen=True, eq=False, repr=False)
class Bearer(Value):
    """An Entra access token; `expires` is an epoch."""

    token: str
    expires: float
    source: str
    person: bool
    account: str = ""
    ours: bool = False  # from a sign-in through this module, which renews it


@dataclass(frozen=True, eq=False, repr=False)
class Session(Value):
    """What opens the feeds of one organization, and what is known of it. Times are epochs."""

    token: str
    kind: str  # of LADDER, or "set": a PAT of the person's own
    checked: float  # when the service last accepted it
    expires: float | None = None  # None: it did not say
    asked: str = ""  # of LADDER: what this is the answer to, a policy may have led elsewhere
    scope: str = ""
    account: str = ""
    tenant: str = ""
    pat_id: str = ""  # of a PAT minted here: what the service revokes it by


# --- errors ----------------------------------------------------------------------------------


class ArtifactsError(Exception):
    """Ours, and broken. Its text is for a person: what happened, why, and what mends it."""


class NetworkError(ArtifactsError):
    """No usable answer from a host. The credential may well be right.

    `passing` tells whether the same request may succeed a moment later.
    """

    def __init__(self, text: str, passing: bool = True) -> None:
        super().__init__(text)
        self.passing = passing


class PublicFeed(Exception):
    """Nobody has to sign in to read this feed."""


class BearerRefused(ArtifactsError):
    """The organization does not take this Entra token; another source's may do."""


class PolicyRefused(ArtifactsError):
    """The organization does not issue this type of token."""


class LifetimeRefused(PolicyRefused):
    """It may issue this type, for a time of its own choice."""


class EntraRefused(ArtifactsError):
    """Entra refused a sign-in; `error` is its word for it."""

    def __init__(self, text: str, error: str) -> None:
        super().__init__(text)
        self.error = error


class SignInEnded(ArtifactsError):
    """A person was asked, and it came to nothing: nobody is asked again for the same thing."""


class NoCredential(ArtifactsError):
    """Every source that applies has been tried."""

    def __init__(self, challenge: Challenge, failures: Sequence[object], silent: str) -> None:
        import shlex

        lines = list(dict.fromkeys(map(str, failures)))[:8]  # several sources may end for the same reason
        name, url = challenge.feed.organization, shlex.quote(challenge.feed.url)
        if not lines:  # only then: the tenant takes a request, which may fail and say less than they do
            lines = [
                f"Nobody is signed in to organization '{name}', and nobody can be asked: {silent}. Run "
                f"'keyring --mode creds get {url}' in a terminal, or '{az_login(challenge.tenant)}', "
                "or set AZURE_DEVOPS_EXT_PAT to a personal access token."
            ]
        elif len(lines) > 1:
            lines.insert(0, f"No sign-in to organization '{name}' succeeded:")
        super().__init__("\n  ".join(lines))


class NotOurs(PasswordSetError, PasswordDeleteError, NotImplementedError):
    """A write for another service: keyring's chainer passes on, callers of keyring catch it."""


def shown(text: object, limit: int = 200) -> str:
    """Return outside text fit for a terminal: one line of printable characters, not too many."""
    clean = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    return " ".join(clean.split())[:limit]


def authority_of(url: str) -> str:
    """Return host and port of a URL, whatever the URL, for display; never its user info."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]


def az_login(tenant: str | None) -> str:
    """Return the command that signs the Azure CLI in to a tenant."""
    return f"az login --tenant {tenant}" if tenant else "az login"


# --- the environment -------------------------------------------------------------------------


def first_set(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """Return name and value of the first variable that is not blank, else two empty strings."""
    found = ((name, environ[name]) for name in names if environ.get(name, "").strip())
    return next(found, ("", ""))


def provider_names(*names: str) -> list[str]:
    """Return a variable of artifacts-credprovider under all its names, the newest first."""
    prefixes = ("ARTIFACTS_CREDENTIALPROVIDER_", "NUGET_CREDENTIALPROVIDER_")
    return [prefix + name for prefix in prefixes for name in names]


def is_on(environ: Mapping[str, str], name: str) -> bool:
    """Whether a variable is set, and not to a word for no."""
    return environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


# --- feeds -----------------------------------------------------------------------------------

# Patterns are texts: `re` compiles one when it is first used, and keeps it.
_AUTHORITY: Final = r"(?ai)((?:[a-z0-9-]+\.)*[a-z0-9-]+)(?::(?:443)?|(:\d{1,5}))?"
_ORGANIZATION: Final = r"[^\W_][\w.-]*"
_GUID: Final = r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_HOST_GUID: Final = r"a[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}"
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"


def under(host: str, name: str) -> bool:
    """Whether a host is a name or below it."""
    return host == name or host.endswith("." + name)


def parse_feed(service: str, servers: Collection[str] = ()) -> Feed | None:
    """Return the feed that a caller of keyring means, or `None` where it is not one of ours.

    Recognized by host: https, the default port, an allow-listed name; user info, query and
    fragment are dropped. A bare host name is a feed where it names an organization. `servers` are
    Azure DevOps Servers, each an organization of its own: `host`, `host:port`, `.suffix` of hosts.
    """
    # urlsplit drops some of these, browsers others. No pattern: compiling this one takes longer.
    if any(c <= " " or c in "\x7f\\" or "\ud800" <= c <= "\udfff" for c in service):
        return None
    bare = "://" not in service
    if bare and not re.fullmatch(r"[\w.-]+(:\d+)?", service):
        return None
    try:
        parts = urlsplit("https://" + service if bare else service)
    except ValueError:
        return None
    user, _, authority = parts.netloc.rpartition("@")
    match = re.fullmatch(_AUTHORITY, authority)
    if parts.scheme != "https" or "@" in user or match is None:
        return None
    host = match[1].lower() + (match[2] or "")
    listed = host in servers or any(each[0] == "." and host.endswith(each) for each in servers)
    server = listed and not any(under(host, name) for name in FEED_HOSTS)
    organization = host if server else organization_of(host, parts.path)
    if organization is None:
        return None
    return Feed(organization, f"https://{host}{quote(parts.path, safe=_PATH_SAFE) or '/'}", bare, server)


def parse_servers(environ: Mapping[str, str]) -> set[str]:
    """Return the hosts of Azure DevOps Servers that the environment names, separated by semicolons."""
    names = ("KEYRINGS_ARTIFACTS_HOSTS", *provider_names("VSTS_HOSTS", "HOSTS"))
    found = ";".join(environ.get(name, "") for name in names).lower().split(";")
    hosts = (each.strip().rpartition("://")[2].rstrip("/") for each in found)
    return {host.removesuffix(":443") for host in hosts} - {""}


def organization_of(host: str, path: str) -> str | None:
    """Return the key of the organization that a feed's host and path name, or `None`.

    The first path segment, or the first label of a legacy host; the two are the same name. The
    host-GUID form (`pkgsprodsu3weu.pkgs.visualstudio.com/A{guid}/`) has it in the path.
    """
    base = next((name for name in FEED_HOSTS if under(host, name)), None)
    if base is None or (host != base and base == "pkgs.dev.azure.com"):
        return None
    first, *others = (unquote(segment).lower() for segment in path.removeprefix("/").split("/"))
    if {".", ".."} & {first, *others}:
        return None  # clients resolve these, and would end in another organization
    if host != base and not re.fullmatch(_HOST_GUID, first):
        first = host.split(".")[0]
    return first if re.fullmatch(_ORGANIZATION, first) else None


# --- tokens ----------------------------------------------------------------------------------

_DATE: Final = r"(?a)(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.\d*)?(?:Z|([+-])(\d\d):?(\d\d))?"


def is_token(value: object) -> bool:
    """Whether a value can be a password in an HTTP header and on a line of its own."""
    return isinstance(value, str) and len(value) <= MAX_TOKEN and bool(re.fullmatch("[!-~]+", value))


def clean_token(value: str, name: str) -> str:
    """Return a credential that a person gave under a name; raises where it cannot be one."""
    if not value.strip():
        raise ArtifactsError(f"{name} is set but empty: set it to a token, or unset it.")
    if value[:2] in ("$(", "${"):  # as a pipeline leaves it that has no such variable
        raise ArtifactsError(f"{name} holds the name of a variable in place of its value: set it to a token.")
    if not is_token(value):
        raise ArtifactsError(
            f"{name} holds a line break, a space or another character that no token has: "
            "set it again to the token alone."
        )
    return value


def parse_date(text: object) -> float | None:
    """Return the epoch of an ISO 8601 date and time, UTC where it names no zone, or `None`.

    Azure DevOps writes seven digits of fraction, which Python's own parser refuses before 3.11.
    """
    match = re.fullmatch(_DATE, text) if isinstance(text, str) else None
    if match is None:
        return None
    local, sign, hours, minutes = match.groups("0")
    zone = int(hours) * HOUR + int(minutes) * MINUTE
    try:
        epoch = datetime.datetime.fromisoformat(f"{local}+00:00").timestamp()
    except ValueError:
        return None
    return epoch + zone if sign == "-" else epoch - zone


def parse_http_date(text: str) -> float | None:
    """Return the epoch of a date in an HTTP header (RFC 9110 §5.6.7), or `None`."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):  # the first, and the third, before 3.10
        return None


def format_date(epoch: float) -> str:
    """Return an epoch in the form Azure DevOps takes, whole seconds and `Z`."""
    return f"{datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def number(value: object) -> float | None:
    """Return a number that a service wrote as one or as text, or `None`; never NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < 1e12 else None


def base64url(data: bytes) -> str:
    """Return data as RFC 7515 writes it: base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def claims(token: str) -> dict[str, Any]:
    """Return the payload of a JWT, unverified, for display and expiry; `{}` where there is none."""
    try:
        head, payload, _ = token.split(".")
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except ValueError:
        return {}
    return parse_object(raw) if head else {}


def is_person(payload: Mapping[str, Any]) -> bool:
    """Whether an Entra token's claims are a person's rather than an application's.

    https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference: `idtyp`
    decides where it is present; delegated tokens have `scp`, an application's `roles` at most.
    """
    kind = payload.get("idtyp")
    if kind in ("app", "user"):
        return bool(kind == "user")
    if payload.get("scp") or account_of(payload):
        return True
    return not any(payload.get(key) for key in ("roles", "appid", "azp"))


def account_of(payload: Mapping[str, Any]) -> str:
    """Return the name of an Entra token's account for display, `""` where it has none."""
    names = map(payload.get, ("upn", "unique_name", "preferred_username", "email"))
    return next((shown(name, 100) for name in names if name and isinstance(name, str)), "")


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """Return the JSON object in a text or its bytes (a BOM is passed over), `{}` otherwise."""
    try:
        text = raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw.lstrip("\ufeff")
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def usable(session: Session, settings: Settings, now: float) -> bool:
    """Whether a kept session is what is wanted and has more than five minutes left."""
    if session.expires is not None and session.expires - now <= MARGIN:
        return False
    fits = session.kind == "entra" or session.scope == settings.scope
    return session.kind == "set" or (fits and settings.token_type in ("", session.asked))


def file_may_keep(session: Session, now: float) -> bool:
    """Whether a session may lie in a plain file: packages only, and nothing beyond a day."""
    return (
        session.kind == "session"
        and session.expires is not None
        and session.expires - now <= SESSION_DAYS * DAY + MARGIN
        and all(word.startswith("vso.packaging") for word in session.scope.split())
    )


def read_session(text: str | None) -> Session | None:
    """Return the session that an entry of the store holds, or `None`, whatever the text."""
    data = parse_object(text or "")
    kind, token, end = data.get("kind"), data.get("token"), data.get("expires")
    checked, expires = number(data.get("checked")), number(end)
    if kind not in (*LADDER, "set") or not is_token(token) or checked is None:
        return None
    if end is not None and expires is None:
        return None
    known = {key: shown(data.get(key) or "") for key in ("asked", "scope", "account", "tenant", "pat_id")}
    for key in ("tenant", "pat_id"):  # they go into URLs
        known[key] = known[key] if re.fullmatch(_GUID, known[key]) else ""
    return Session(str(token), str(kind), checked, expires, **known)


def write_session(session: Session) -> str:
    """Return the entry that `read_session` reads."""
    return json.dumps(vars(session), separators=(",", ":"))


# --- given: what the environment says outright ------------------------------------------------


def parse_settings(environ: Mapping[str, str]) -> Settings:
    """Return how the environment wants the exchange; raises where a variable is not understood.

    artifacts-credprovider's variables serve where there is none of our own.
    """
    name, minutes = first_set(environ, *provider_names("SESSIONTIMEMINUTES", "VSTS_SESSIONTIMEMINUTES"))
    wanted = (number(minutes) or 0) / (24 * MINUTE)
    if minutes and wanted <= 0:
        raise ArtifactsError(f"{name} is '{shown(minutes, 20)}': it must be a number of minutes.")
    days = environ.get("AZURE_DEVOPS_PAT_DURATION", "").strip()
    if days and not (re.fullmatch(r"\d{1,4}", days, re.ASCII) and 1 <= int(days) <= MAX_PAT_DAYS):
        raise ArtifactsError(
            f"AZURE_DEVOPS_PAT_DURATION is '{shown(days, 20)}': it must be a number of days from "
            f"1 to {MAX_PAT_DAYS}."
        )
    scope = environ.get("AZURE_DEVOPS_PAT_SCOPE", "").strip() or DEFAULT_SCOPE
    if not re.fullmatch(r"[\w.]+(?: [\w.]+)*", scope, re.ASCII):
        raise ArtifactsError(
            f"AZURE_DEVOPS_PAT_SCOPE must be scopes separated by single spaces, for example {DEFAULT_SCOPE}."
        )
    pat_days = float(days or min(wanted, MAX_PAT_DAYS))
    return Settings(parse_token_type(environ), pat_days, scope, min(wanted or SESSION_DAYS, SESSION_DAYS))


def customary_name(environ: Mapping[str, str]) -> str:
    """Return the user name for a caller who names none; raises for one with a line break or the like."""
    name = environ.get("AZURE_DEVOPS_USERNAME", "").strip()
    if re.search(r"[\0-\x1f\x7f-\x9f\u2028\u2029]", name):
        raise ArtifactsError("AZURE_DEVOPS_USERNAME holds a line break or the like: set it to a name alone.")
    return name or DEFAULT_USERNAME


def parse_token_type(environ: Mapping[str, str]) -> str:
    """Return which type of token the environment forces, `""` for none; raises for one unknown."""
    kind = environ.get("KEYRINGS_ARTIFACTS_TOKEN_TYPE", "").strip().lower()
    if kind:
        if kind not in LADDER:
            raise ArtifactsError(f"KEYRINGS_ARTIFACTS_TOKEN_TYPE must be one of {', '.join(LADDER)}.")
        return kind
    names = ("KEYRINGS_ARTIFACTS_USE_BEARER_TOKEN", "ARTIFACTS_CREDENTIALPROVIDER_RETURN_ENTRA_TOKENS")
    if any(environ.get(name, "").strip().lower() == "true" for name in names):
        return "entra"
    _, theirs = first_set(environ, *provider_names("TOKENTYPE", "VSTS_TOKENTYPE"))
    return {"compact": "pat", "selfdescribing": "session"}.get(theirs.strip().lower(), "")


def comparable(url: str) -> str:
    """Return a URL in the form in which endpoints and prefixes are compared."""
    scheme, _, rest = url.strip().partition("://")
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2].removesuffix(":443")
    path = re.split("[?#]", path)[0]
    return f"{scheme}://{host}{slash}{quote(unquote(path), _PATH_SAFE, 'utf-8', 'surrogatepass')}".lower()


def folder(url: str) -> str:
    """Return what the comparable URL and all below it begin with, a slash at its end."""
    return comparable(url).rstrip("/") + "/"


def parse_endpoints(text: str, name: str) -> list[dict[str, str]]:
    """Return the entries of artifacts-credprovider's JSON, keys in lower case; raises for another form.

    `{"endpointCredentials": [{"endpoint": URL, ...}]}`, keys in any case, single quotes tolerated.
    """
    data = parse_object(text if '"' in text else text.replace("'", '"'))
    entries = {key.lower(): value for key, value in data.items()}.get("endpointcredentials")
    if not isinstance(entries, list):
        raise ArtifactsError(
            f"{name} is not the JSON it should be: mend it, or unset it. "
            'Its form: {"endpointCredentials": [{"endpoint": "https://...", ...}]}'
        )
    found = []
    for index, raw in enumerate(entries, 1):
        entry = {key.lower(): value or "" for key, value in raw.items()} if isinstance(raw, dict) else {}
        if not entry.get("endpoint") or not all(isinstance(value, str) for value in entry.values()):
            raise ArtifactsError(f"{name}: entry {index} needs an endpoint, and text for all it holds.")
        found.append(entry)
    return found


def endpoint_for(feed: Feed, entries: Iterable[dict[str, str]]) -> dict[str, str] | None:
    """Return the entry of the endpoint that is the feed or holds it, the closest, or `None`.

    artifacts-credprovider takes a whole address only; here an address also holds what is below
    it, since pip asks with a closing slash, poetry without one, and uv with either.
    """
    holding = (entry for entry in entries if folder(feed.url).startswith(folder(entry["endpoint"])))
    return max(holding, key=lambda entry: len(folder(entry["endpoint"])), default=None)


def from_variable(environ: Mapping[str, str], name: str) -> SimpleCredential | None:
    """Return the token in a variable, `None` where it is not set; raises where it can be none."""
    return SimpleCredential("", clean_token(environ[name], name)) if name in environ else None


def from_endpoints(feed: Feed, world: World) -> SimpleCredential | None:
    """Credentials per feed, as artifacts-credprovider and NuGetAuthenticate take them."""
    name, text = first_set(
        world.environ,
        "ARTIFACTS_CREDENTIALPROVIDER_EXTERNAL_FEED_ENDPOINTS",
        "VSS_NUGET_EXTERNAL_FEED_ENDPOINTS",
    )
    entries = parse_endpoints(text, name) if name else []
    entry = endpoint_for(feed, (entry for entry in entries if entry.get("password", "").strip()))
    if entry is None:
        return None
    user = entry.get("username", "")
    token = clean_token(entry["password"], f"{name}: the password for {shown(entry['endpoint'])}")
    return SimpleCredential(user if is_token(user) else "", token)


def from_pat(feed: Feed, world: World) -> SimpleCredential | None:
    """The variable of the `az devops` extension, for every organization."""
    return from_variable(world.environ, "AZURE_DEVOPS_EXT_PAT")


def from_pat_file(feed: Feed, world: World) -> SimpleCredential | None:
    """The same in a file: one that is named, or a Docker secret of that name."""
    name = "AZURE_DEVOPS_EXT_PAT_FILE"
    path = world.environ.get(name, SECRET_FILE)
    if not path.strip():
        raise ArtifactsError(f"{name} is set but empty: set it to a file's path, or unset it.")
    named = name in world.environ
    token = read_secret(world, path, f"{name} ({shown(path)})" if named else path, optional=not named)
    return SimpleCredential("", token) if token else None


def read_secret(world: World, path: str, label: str, optional: bool = False) -> str:
    """Return the token in a file, `""` for an `optional` file that is not there; raises otherwise."""
    try:
        text = world.read(path).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if optional and isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return ""
        why = shown(getattr(error, "strerror", None) or "it is not text")
        raise ArtifactsError(f"{label} cannot be read ({why}): mend the path or the file.") from None
    return clean_token(text.strip(), label)


def from_prefixes(feed: Feed, world: World) -> SimpleCredential | None:
    """A token for the addresses that begin with one of the prefixes, as NuGetAuthenticate sets."""
    environ = world.environ
    _, prefixes = first_set(environ, "ARTIFACTS_CREDENTIALPROVIDER_URI_PREFIXES", "VSS_NUGET_URI_PREFIXES")
    if not folder(feed.url).startswith(tuple(map(folder, prefixes.split(";")))):
        return None
    names = ("ARTIFACTS_CREDENTIALPROVIDER_ACCESSTOKEN", "VSS_NUGET_ACCESSTOKEN")
    name, _ = first_set(environ, *names)
    return from_variable(environ, name or next((name for name in names if name in environ), names[0]))


def from_pipeline(feed: Feed, world: World) -> SimpleCredential | None:
    """The job's own token, which belongs to the pipeline's organization and no other."""
    _, collection = first_set(world.environ, "SYSTEM_COLLECTIONURI", "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI")
    if collection and collection_organization(collection) != feed.organization:
        return None
    return from_variable(world.environ, "SYSTEM_ACCESSTOKEN")


def collection_organization(uri: str) -> str | None:
    """Return the key of the organization that a pipeline's collection URI names, `None` for another text.

    `https://dev.azure.com/contoso/` or `https://contoso.visualstudio.com/`; the host of a server.
    """
    match = re.fullmatch(
        r"https://(?:dev\.azure\.com/([^/?#]+)|([\w-]+)\.visualstudio\.com|([\w.:-]+))(?:[/?#].*)?",
        uri.strip().lower(),
    )
    return unquote(match[1] or match[2] or match[3]) if match else None


# Each returns `None` where its variables are not set, or not for this feed.
GIVEN: Final = (from_endpoints, from_pat, from_pat_file, from_prefixes, from_pipeline)


def given_credential(feed: Feed, world: World) -> SimpleCredential | None:
    """Return the first of GIVEN's, the user name "" where none is given; raises where it cannot be meant."""
    for source in GIVEN:
        answer = source(feed, world)
        if answer is not None:
            log.debug("given: %s", source.__name__)
            world.attempted(source.__name__, answer)
            return answer
    return None


# --- requests and answers ---------------------------------------------------------------------

_AUTHORIZATION_URI: Final = r"(?i)\bauthorization_uri\s*=\s*\"?([^\",\s]*)"
# Named in place of a tenant, as for personal accounts:
_NO_TENANT: Final = {"", "common", "organizations", "consumers", "00000000-0000-0000-0000-000000000000"}

_HEADERS: Final[Mapping[str, str]] = {
    "Accept": "application/json",
    "User-Agent": f"keyrings.artifacts/{__version__}",
    "X-TFS-FedAuthRedirect": "Suppress",  # 401 in place of a redirect to a sign-in page
}


def headers_only(url: str, tries: int = TRIES, **headers: str) -> Request:
    """Return the GET that asks a feed who may read it; its index, of any size, stays there."""
    return Request("GET", url, {**_HEADERS, **headers}, body_limit=0, tries=tries)


def check_request(feed: Feed, token: str, tries: int = TRIES) -> Request:
    """Return the request that shows whether a token opens a feed; see `is_sign_in`."""
    pair = base64.b64encode(f"{DEFAULT_USERNAME}:{token}".encode()).decode()
    return headers_only(feed.url, tries, Authorization=f"Basic {pair}")


def form_request(url: str, **form: str) -> Request:
    """Return the POST of a form to one of Entra's endpoints, from the public client."""
    headers = {**_HEADERS, "Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"client_id": CLIENT_ID, **form}).encode()
    return Request("POST", url, headers, body)


def is_sign_in(response: Response) -> bool:
    """Whether an answer means "who are you": 401, the sign-in page (203), or the way to it.

    303 is none: it is how the service sends a client to a package file. Nor are 403 and 404: what a
    credential may do is another matter.
    """
    return response.status in (203, 301, 302, 307, 308, 401)


NO_SUCH_FEED: Final = (
    "{} knows no such feed ({}): check the names of organization, project and feed in the URL."
)


def read_challenge(feed: Feed, response: Response) -> Discovered:
    """Return who signs in for a feed; raises `PublicFeed` where nobody has to.

    `response` answers an unauthenticated GET. What its headers tell is Microsoft's, or raises.
    """
    # Anybody may read a public feed; writing takes a credential, and an organization alone is no feed.
    reading = "/_packaging/" in feed.url.lower() and not feed.takes_uploads
    given = response.status == 303 and "/download/" in feed.url.lower()  # a file, from where it lies
    if reading and (200 <= response.status < 300 or given) and not is_sign_in(response):
        raise PublicFeed
    if reading and response.status == 404:
        raise ArtifactsError(NO_SUCH_FEED.format(feed.host, shown(feed.url)))
    if response.status in (400, 403) and not response.lines("x-vss-e2eid"):
        raise NetworkError(
            f"{feed.host} answered {response.status} before anybody signed in: a firewall, a proxy "
            "or a network policy of the organization is in the way."
        )
    tenant, host = read_tenant(feed, response)
    service = token_service_of(feed, response.lines("x-vss-authorizationendpoint"))
    return Discovered(tenant, service, host)


def read_tenant(feed: Feed, response: Response) -> tuple[str | None, str]:
    """Return the GUID of the Entra tenant behind a feed, `None` for personal accounts, and its host.

    From `WWW-Authenticate: Bearer authorization_uri=https://HOST/TENANT` and `X-VSS-ResourceTenant`;
    both may be absent, must agree, and are trusted no further.
    """
    found, host = set(), "login.microsoftonline.com"
    for uri in re.findall(_AUTHORIZATION_URI, ", ".join(response.lines("www-authenticate"))):
        host, tenant = sign_in_address(feed, uri)
        found.add(tenant)
    tenants = ",".join(response.lines("x-vss-resourcetenant")).split(",")
    found.update(each.strip().lower() for each in tenants)
    found -= _NO_TENANT
    if not found:
        return None, host
    tenant = found.pop()
    if found or not re.fullmatch(_GUID, tenant):
        raise ArtifactsError(
            f"{feed.host} named no single tenant for organization '{feed.organization}': nothing "
            "was sent. Try again, and if it stays, tell the organization's administrator."
        )
    return tenant, host


def sign_in_address(feed: Feed, uri: str) -> tuple[str, str]:
    """Return host and tenant of a sign-in address; raises where the address is not Entra's."""
    match = re.fullmatch(r"https://([a-z0-9.-]+)(?::443)?/([\w.-]+)/?(?:oauth2/.*)?", uri.lower(), re.ASCII)
    if match is None or match[1] not in SIGN_IN_HOSTS:
        raise ArtifactsError(
            f"{feed.host} named a sign-in address that is not Microsoft's ({shown(uri, 80)}): "
            "nothing was sent to it. Check the feed's URL and who is between you and it."
        )
    return match[1], match[2]


def token_service_of(feed: Feed, told: Iterable[str] = ()) -> str:
    """Return the address, without a closing slash, of the service that issues tokens for a feed.

    `told` is from `X-VSS-AuthorizationEndpoint`, where a person's Entra token will be sent: https, a
    host that serves this feed's, and no organization but the feed's in it; raises otherwise. Where
    nothing is told, the documented address.
    """
    hosts = next((hosts for name, hosts in FEED_HOSTS.items() if under(feed.host, name)), _PRODUCTION)
    found = {line.strip().rstrip("/") for line in told} - {""}
    if not found:
        return f"https://{hosts[0]}/{quote(feed.organization)}"
    address = min(found)
    match = re.fullmatch(r"https://([a-z0-9.-]+)(?::443)?(?:/([^/?#\\\s@]+))?", address.lower())
    service = match and next((name for name in hosts if under(match[1], name)), None)
    if match and service and len(found) == 1:
        named = {unquote(match[2] or ""), match[1][: -len(service) - 1]} - {"", "app"}
        if named <= {feed.organization} or re.fullmatch(_HOST_GUID, feed.organization):
            return address
    raise ArtifactsError(
        f"{feed.host} named a token service that is not organization '{feed.organization}' at "
        f"Azure DevOps ({shown(address, 80)}): nothing was sent to it."
    )


def mint_request(
    kind: str, challenge: Challenge, bearer: Bearer, scope: str, name: str, valid_to: float | None
) -> Request:
    """Return the request that exchanges a person's Entra token for a PAT or a session token.

    Without `valid_to`, an epoch, the service chooses the time. PAT:
    https://learn.microsoft.com/rest/api/azure/devops/tokens/pats/create, which an organization
    answers under its own address. Session token: artifacts-credprovider, `SelfDescribing`.
    """
    base = challenge.token_service
    path = "_apis/Token/SessionTokens?tokenType=SelfDescribing&api-version=5.0-preview.1"
    body: dict[str, object] = {"displayName": name, "scope": scope}
    if kind == "pat":
        path = "_apis/tokens/pats?api-version=7.1-preview.1"
        body["allOrgs"] = False
        if "//app." in base or base.removeprefix("https://") in _PRODUCTION:
            base = token_service_of(challenge.feed)
    if valid_to is not None:
        body["validTo"] = format_date(valid_to)
    headers = {"Authorization": f"Bearer {bearer.token}", "Content-Type": "application/json; charset=utf-8"}
    return Request("POST", f"{base}/{path}", {**_HEADERS, **headers}, json.dumps(body).encode())


def pat_name(world: World) -> str:
    """Return the name under which a person finds our tokens in the list of theirs."""
    return f"keyrings.artifacts on {world.host}"


def read_minted(kind: str, challenge: Challenge, bearer: Bearer, response: Response) -> dict[str, Any]:
    """Return what a mint request was answered with: `token`, and what else the service told.

    Raises `BearerRefused`, `LifetimeRefused`, `PolicyRefused` for any other refusal (the PAT service
    names one in the body, whatever the status), and `ArtifactsError` for an answer that is neither.
    """
    body = parse_object(response.body)
    if not body and response.status < 300 and "text/html" in "".join(response.lines("content-type")).lower():
        response = replace(response, status=203)  # the sign-in page, whatever its status
    error: object = str(body.get("patTokenError") or "none").lower()
    if error == "none":
        refuse_stranger(challenge, bearer, response)
        error = response.status if response.status >= 400 else ""
    if error in ("patlifespanpolicyviolation", "invalidvalidto", 400):
        raise LifetimeRefused(error)
    if error:
        raise PolicyRefused(shown(error))
    minted = body.get("patToken") if kind == "pat" else body
    if not isinstance(minted, dict) or not is_token(minted.get("token")):
        host = urlsplit(challenge.token_service).netloc
        raise ArtifactsError(f"{host} answered without a token: try again later.")
    return minted


def refuse_stranger(challenge: Challenge, bearer: Bearer, response: Response) -> None:
    """Raise `BearerRefused` where an answer says that the organization does not know the account.

    TF401444: never signed in to the organization; TF400813: no access to it.
    """
    organization = challenge.feed.organization
    told = str(parse_object(response.body).get("message") or "")
    told += unquote_plus("".join(response.lines("x-tfs-serviceerror")))
    who = f"account {bearer.account}" if bearer.account else "the account"
    if "TF401444" in told:
        raise BearerRefused(
            f"{bearer.source}: {who} has never signed in to organization '{organization}' "
            f"(TF401444): open https://dev.azure.com/{quote(organization)} once in a browser with "
            "it, then try again."
        )
    if is_sign_in(response):
        code = re.search(r"TF\d{6}|VS\d{6}", told)
        raise BearerRefused(
            f"{bearer.source}: organization '{organization}' does not accept {who}"
            f"{f' ({code[0]})' if code else ''}: ask its administrator for access, or sign in with "
            f"another account ('{az_login(challenge.tenant)}')."
        )


def expiry(token: str, valid_to: object, otherwise: float) -> float:
    """Return the epoch at which a token ends: the earlier of what its issuer and itself say."""
    known = (parse_date(valid_to), number(claims(token).get("exp")))
    return min((epoch for epoch in known if epoch and epoch > 0), default=otherwise)  # .NET's null is year 1


def retry_pause(attempt: int, response: Response | None, jitter: float, now: float) -> float:
    """Return the seconds to wait after a failed attempt (from 1); `jitter` is in [0, 1)."""
    text = next(iter(response.lines("retry-after")), "") if response else ""
    told, date = number(text), parse_http_date(text)
    if told is None and date is not None:
        told = max(date - now, 0)
    if told is not None and told >= 0:
        return min(told, MAX_RETRY_AFTER)
    return float(0.4 * 2**attempt * (0.5 + jitter / 2))


TOO_LATE: Final = f"what came before took {CALL_SECONDS:.0f} seconds. Check the network, then try again."
TOO_LONG: Final = "{} answered with far more than a token: check the address, and who is between you and it."


def fetch(request: Request, world: World) -> Response:
    """Return the answer to a request, tried again after a drop, a time-out, 429 and 5xx.

    Raises `NetworkError` when none of the tries brought anything better, or time is up; at once where
    another try would bring the same.
    """
    host = shown(authority_of(request.url), 80)
    failure = NetworkError(f"{host} was not asked: {TOO_LATE}")
    for attempt in range(1, request.tries + 1):
        left = world.patience.left()
        if left < 1:
            break
        try:
            response: Response | None = world.send(request, min(TRY_SECONDS, left))
        except NetworkError as error:
            response, failure = None, error
        outcome = response.status if response else failure
        log.debug("%s %s: %s", request.method, request.url.partition("?")[0], outcome)
        if response:
            if response.status != 429 and response.status < 500:
                return response
            failure = NetworkError(
                f"{host} answered {response.status}: the service has trouble or limits you. Try again "
                "in a few minutes."
            )
        if not failure.passing:
            break
        if attempt < request.tries:
            world.sleep(min(retry_pause(attempt, response, world.jitter(), world.now()), left))
    raise failure


# --- machines' identities ---------------------------------------------------------------------

# What an application's refusal means for whoever configured it, by AADSTS number:
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
REMEDIES: Final[Mapping[str, str]] = {
    "7000215": "the secret is wrong; set its value, not its id",
    "7000222": "the secret has expired; make a new one",
    "700016": "the tenant knows no such application; check client and tenant id",
    "90002": "there is no such tenant; check the tenant id",
    "700027": "the certificate is not the application's, or has expired",
    "50012": "the certificate is not the application's, or has expired",
    "70021": "no federated credential of the application matches; check issuer and subject",
    "700211": "no federated credential of the application has this issuer",
    "700212": "no federated credential of the application has this audience",
    "700213": "no federated credential of the application has this subject",
}
TENANT_VARIABLES: Final = ("AZURE_TENANT_ID", "AZURESUBSCRIPTION_TENANT_ID", "tenantId")
VM_TAG: Final = b"7783-7084-3265-9085-8269-3286-77"  # of every Azure VM's chassis
VM_HOST: Final = "http://169.254.169.254"
ARC_VERSION: Final = "2020-06-01"
METADATA: Final[Mapping[str, str]] = {"Metadata": "true"}
METADATA_PATH: Final = "/metadata/identity/oauth2/token"
LOCAL: Final = r"https://|http://(?:localhost|127\.[\d.]+|169\.254\.[\d.]+|\[::1\])(?::\d+)?(?:[/?]|$)"


def application(source: str, world: World, challenge: Challenge, client: str, **proof: str) -> Bearer:
    """Return the token of an application for the field of a form that proves it; raises without one.

    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
    """
    url = f"{application_authority(world.environ, challenge)}/oauth2/v2.0/token"
    if "client_assertion" in proof:
        proof["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    scope, grant = f"{AZURE_DEVOPS}/.default", "client_credentials"
    response = fetch(form_request(url, client_id=client, scope=scope, grant_type=grant, **proof), world)
    body = parse_object(response.body)
    if response.status == 200 and is_token(body.get("access_token")):
        return replace(machine_bearer(source, body, world.now()), person=False)  # whatever it looks like
    match = re.search(r"AADSTS(\d{4,8})", str(body.get("error_description")))
    code = match[0] if match else shown(body.get("error") or response.status, 40)
    remedy = REMEDIES.get(match[1] if match else "", "check its configuration, and its access to Entra")
    raise ArtifactsError(f"{source}: Entra refused application {shown(client, 40)} ({code}): {remedy}.")


def application_authority(environ: Mapping[str, str], challenge: Challenge) -> str:
    """Return the address of the Entra tenant of an application; raises where that is none.

    The tenant of the environment, or the feed's where the environment names none, or allows it.
    """
    host = (environ.get("AZURE_AUTHORITY_HOST", "").strip() or "login.microsoftonline.com").rstrip("/")
    host = host if "://" in host else f"https://{host}"
    if not re.fullmatch(r"https://[\w.-]+(?::\d+)?", host, re.ASCII):
        raise ArtifactsError(
            "AZURE_AUTHORITY_HOST must be an https address, for example https://login.microsoftonline.com."
        )
    _, tenant = first_set(environ, *TENANT_VARIABLES)
    allowed = re.split("[,;]", environ.get("AZURE_ADDITIONALLY_ALLOWED_TENANTS", ""))
    others = {each.strip().lower() for each in allowed} - {""}
    if not tenant or (others and challenge.tenant and others & {"*", challenge.tenant}):
        tenant = challenge.tenant or ""
    if not re.fullmatch(r"[\w.-]+", tenant.strip(), re.ASCII):
        raise ArtifactsError("AZURE_TENANT_ID must name the tenant of the application: set it to its id.")
    return f"{host}/{tenant.strip()}"


def machine_bearer(source: str, body: Mapping[str, Any], now: float) -> Bearer:
    """Return the token in an answer of an identity endpoint, whose dates come in every form."""
    token = str(body["access_token"])
    payload = claims(token)
    told = body.get("expires_on") or body.get("expiresOn")
    lasts, ends = number(body.get("expires_in")), number(payload.get("exp"))
    known = (number(told), parse_date(told), parse_us_date(told), lasts and now + lasts, ends)
    expires = next(filter(None, known), now + HOUR)
    return Bearer(token, expires, source, is_person(payload), account_of(payload))


def parse_us_date(text: object) -> float | None:
    """Return the epoch of a date as Azure ML and old Functions write it, or `None`.

    `09/14/2026 12:00:00 +00:00`, or with `AM` or `PM`.
    """
    for form in ("%m/%d/%Y %H:%M:%S %z", "%m/%d/%Y %I:%M:%S %p %z"):
        with suppress(ValueError):
            zoned = f"{text}" if re.search("[+-]", str(text)) else f"{text} +00:00"
            return datetime.datetime.strptime(zoned, form).timestamp()
    return None


def service_principal(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of an application with a secret or a certificate, or `None` without one."""
    client = first_set(world.environ, "AZURE_CLIENT_ID", "servicePrincipalId")[1].strip()
    name, secret = first_set(world.environ, "AZURE_CLIENT_SECRET", "servicePrincipalKey")
    path = world.environ.get("AZURE_CLIENT_CERTIFICATE_PATH", "").strip()
    if client and secret:
        secret = clean_token(secret, name)
        return application("service_principal", world, challenge, client, client_secret=secret)
    return certified("service_principal", world, challenge, client, path, False) if client and path else None


def certified(source: str, world: World, challenge: Challenge, client: str, path: str, sni: bool) -> Bearer:
    """Return the token of an application with a certificate; raises where there is none to use."""
    import uuid

    name = f"{source}: the certificate {shown(path)}"
    password = world.environ.get("AZURE_CLIENT_CERTIFICATE_PASSWORD") or None
    chain = sni or bool(world.environ.get("AZURE_CLIENT_SEND_CERTIFICATE_CHAIN", "").strip())
    audience = f"{application_authority(world.environ, challenge)}/oauth2/v2.0/token"
    try:
        data, nonce = world.read(path), str(uuid.uuid5(uuid.NAMESPACE_URL, world.random()))
        assertion = sign_assertion(data, password, client, audience, world.now(), nonce, chain)
    except ImportError:
        raise ArtifactsError(
            f"{name} needs the extra 'certificate': pip install keyrings.artifacts[certificate]."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        why = shown(getattr(error, "strerror", None) or "no RSA key and certificate, or another password")
        raise ArtifactsError(f"{name} cannot be used ({why}): check path, format and password.") from None
    return application(source, world, challenge, client, client_assertion=assertion)


def sign_assertion(
    data: bytes, password: str | None, client: str, audience: str, now: float, nonce: str, chain: bool
) -> str:
    """Return a JWT by which an application proves itself, signed by the key in a PEM or PFX file.

    https://learn.microsoft.com/entra/identity-platform/certificate-credentials: PS256, ten minutes.
    Raises `ImportError` without `cryptography`, `ValueError` or `TypeError` for anything else.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import pkcs12

    secret = password.encode() if password else None
    if b"-----BEGIN" in data:
        key: Any = serialization.load_pem_private_key(data, secret if b"ENCRYPTED" in data else None)
        leaf, *rest = x509.load_pem_x509_certificates(data)
    else:
        found: Any = pkcs12.load_key_and_certificates(data, secret)
        key, leaf, rest = found
    if not isinstance(key, rsa.RSAPrivateKey) or leaf is None:
        raise ValueError
    ders = [each.public_bytes(serialization.Encoding.DER) for each in (leaf, *rest)]
    header: dict[str, Any] = {
        "alg": "PS256",
        "typ": "JWT",
        "x5t#S256": base64url(hashlib.sha256(ders[0]).digest()),
    }
    if chain:
        header["x5c"] = [base64.b64encode(der).decode() for der in ders]
    body: dict[str, Any] = {"aud": audience, "iss": client, "sub": client, "jti": nonce}
    body.update({"nbf": int(now), "iat": int(now), "exp": int(now + 10 * MINUTE)})
    text = ".".join(base64url(json.dumps(part).encode()) for part in (header, body))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)
    return f"{text}.{base64url(key.sign(text.encode(), pss, hashes.SHA256()))}"


def workload_identity(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of an application that another issuer vouches for, or `None` without one.

    https://learn.microsoft.com/entra/workload-id/workload-identity-federation
    """
    names = ("AZURE_CLIENT_ID", "AZURESUBSCRIPTION_CLIENT_ID", "servicePrincipalId")
    client = first_set(world.environ, *names)[1].strip()
    assertion = client and next(filter(None, (issue(world) for issue in ISSUERS)), None)
    if not assertion:
        return None
    return application("workload_identity", world, challenge, client, client_assertion=assertion)


def from_token_file(world: World) -> str | None:
    """The assertion that Kubernetes keeps in a file."""
    name, path = first_set(world.environ, "AZURE_FEDERATED_TOKEN_FILE")
    return read_secret(world, path, f"{name} ({shown(path)})") if name else None


def from_pipelines_task(world: World) -> str | None:
    """The assertion that the task AzureCLI@2 of Azure Pipelines puts into the environment."""
    return world.environ.get("idToken") or None


def from_github(world: World) -> str | None:
    """The assertion of a GitHub Actions job with `permissions: id-token: write`.

    https://docs.github.com/actions/reference/openid-connect-reference; the URL has a query already.
    """
    url = world.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
    token = world.environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not url or not token:
        if is_on(world.environ, "GITHUB_ACTIONS") and wants_vm(world.environ):  # a client, and no proof
            raise ArtifactsError(
                "workload_identity: GitHub Actions gives this job no token: give it the permission "
                "'id-token: write'."
            )
        return None
    url += ("&" if "?" in url else "?") + urlencode({"audience": "api://AzureADTokenExchange"})
    headers = {**_HEADERS, "Authorization": f"bearer {clean_token(token, 'ACTIONS_ID_TOKEN_REQUEST_TOKEN')}"}
    return issued("GitHub Actions", "value", Request("GET", url, headers), world)


def from_azure_pipelines(world: World) -> str | None:
    """The assertion of an Azure Pipelines job for a service connection.

    https://learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken/create
    """
    url = world.environ.get("SYSTEM_OIDCREQUESTURI")
    token = world.environ.get("SYSTEM_ACCESSTOKEN")
    connection = world.environ.get("AZURESUBSCRIPTION_SERVICE_CONNECTION_ID")
    if not url or not token or not connection:
        return None
    url += "?" + urlencode({"api-version": "7.1", "serviceConnectionId": connection})
    headers = {**_HEADERS, "Authorization": f"Bearer {clean_token(token, 'SYSTEM_ACCESSTOKEN')}"}
    headers["Content-Type"] = "application/json"
    return issued("Azure Pipelines", "oidcToken", Request("POST", url, headers, b""), world)


# Each returns `None` where its variables are not set.
ISSUERS: Final = (from_token_file, from_pipelines_task, from_github, from_azure_pipelines)


def issued(who: str, key: str, request: Request, world: World) -> str:
    """Return the assertion that an issuer answers with; raises where it does not."""
    if not request.url.startswith("https://"):
        raise ArtifactsError(
            f"workload_identity: the address of {who} for tokens is not https: it is not used."
        )
    try:
        response = fetch(request, world)
    except NetworkError as error:  # of this job's host alone
        raise ArtifactsError(f"workload_identity: {error}") from None
    found = parse_object(response.body).get(key)
    if response.status != 200 or not is_token(found):
        raise ArtifactsError(
            f"workload_identity: {who} issued no token ({response.status}): check that the job may have one."
        )
    return str(found)


def feed_endpoint(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of the identity that artifacts-credprovider's JSON names for a feed, or `None`.

    An entry has a `clientId`, `system` for the machine's own identity, and an application's has a
    `clientCertificateFilePath`; without one the identity is a managed one.
    """
    name, text = first_set(world.environ, "ARTIFACTS_CREDENTIALPROVIDER_FEED_ENDPOINTS")
    found = endpoint_for(challenge.feed, parse_endpoints(text, name)) if name else None
    if found is None:
        return None
    client, path = found.get("clientid", ""), found.get("clientcertificatefilepath")
    if not is_token(client) or found.get("clientcertificatesubjectname"):
        raise ArtifactsError(
            f"{name} needs a clientId, and the certificate, where there is one, as clientCertificateFilePath."
        )
    if path:
        return certified("feed_endpoint", world, challenge, client, path, True)  # as artifacts-credprovider
    return identity_token("feed_endpoint", world, "" if client.lower() == "system" else client, True)


def managed_identity(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of the identity that Azure gives this machine, or `None` where it gives none.

    A machine that nobody says is one of Azure's is not asked, and nobody waits for it.
    """
    client = world.environ.get("AZURE_CLIENT_ID", "").strip()
    return identity_token("managed_identity", world, client, wants_vm(world.environ))


def wants_vm(environ: Mapping[str, str]) -> bool:
    """Whether the environment means the identity of an Azure VM: by name, host, or a client alone."""
    chosen = environ.get("KEYRINGS_ARTIFACTS_SOURCES", "").lower()
    if environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST") or managed_identity.__name__ in chosen:
        return True
    proofs = ("CLIENT_SECRET", "CLIENT_CERTIFICATE_PATH", "FEDERATED_TOKEN_FILE", "USERNAME")
    theirs = ("ACTIONS_ID_TOKEN_REQUEST_URL", "idToken", "servicePrincipalKey")
    others = (*(f"AZURE_{name}" for name in proofs), *theirs)
    return bool(environ.get("AZURE_CLIENT_ID", "").strip()) and not any(map(environ.get, others))


def identity_token(source: str, world: World, client: str, asked: bool) -> Bearer | None:
    """Return a managed identity's token, or `None` where there is none and none was `asked` for.

    https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token
    """
    environ = world.environ
    hosted = identity_request(environ, client, world.which("/opt/azcmagent/bin/himds") is not None)
    if not (hosted or asked or on_vm(world)):
        return None
    host = environ.get("AZURE_POD_IDENTITY_AUTHORITY_HOST", "").strip().rstrip("/") or VM_HOST
    try:
        request = hosted or local_get(host + METADATA_PATH, "2018-02-01", METADATA, client_id=client)
        return identity_answer(source, request, world)
    except ArtifactsError as error:
        if hosted or asked:
            name = f"{source}: " if isinstance(error, NetworkError) else ""
            raise ArtifactsError(f"{name}{error}") from None  # no network is this machine's alone
        log.debug("%s", error)  # a machine of Azure need not have an identity
        return None


def on_vm(world: World) -> bool:
    """Whether this machine says that it is one of Azure's."""
    with suppress(OSError):
        return world.read("/sys/class/dmi/id/chassis_asset_tag").strip() == VM_TAG
    return False


def identity_answer(source: str, request: Request, world: World) -> Bearer:
    """Return the token that an identity endpoint answers with; raises where it does not."""
    if not re.match(LOCAL, request.url):
        host = shown(authority_of(request.url), 80) or "the identity endpoint"
        raise ArtifactsError(f"{source}: {host} is neither this machine nor https: it is not asked.")
    arc = ARC_VERSION in request.url
    response = fetch(request, world)
    if arc and response.status == 401:
        response = fetch(arc_request(source, request, response, world), world)
    body = parse_object(response.body)
    wanted = dict(parse_qsl(request.url.partition("?")[2])).get("client_id")
    if arc and wanted and response.status == 200 and str(body.get("client_id")).lower() != wanted.lower():
        raise ArtifactsError(
            f"{source}: this machine's agent of Azure Arc is too old to give another identity than its own: "
            "update it, or unset AZURE_CLIENT_ID."
        )
    if response.status == 200 and is_token(body.get("access_token")):
        bearer = machine_bearer(source, body, world.now())
        return replace(bearer, person=bearer.person and request.method == "POST")  # Cloud Shell's
    told = body.get("error_description") or body.get("message") or body.get("error") or ""
    told = str(told.get("code") if isinstance(told, dict) else told)
    for secret in request.headers.values():  # which an endpoint might repeat
        told = told.replace(secret, "***") if len(secret) > len("true") else told
    raise ArtifactsError(
        f"{source}: this machine gave no token ({shown(f'{response.status} {told}', 80)}): "
        "assign it an identity, and set AZURE_CLIENT_ID to one that is assigned."
    )


def identity_request(environ: Mapping[str, str], client: str, arc: bool) -> Request | None:
    """Return the request for a token to the platform that hosts this process, `None` for none.

    https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/overview and the
    platforms' own pages; `arc` tells whether Arc's agent is installed.
    """
    names = ("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "MSI_ENDPOINT", "MSI_SECRET")
    endpoint, header, msi, secret = (environ.get(name, "") for name in names)
    pin = re.sub(r"[\s:]", "", environ.get("IDENTITY_SERVER_THUMBPRINT", ""))
    if endpoint and header and pin:  # Service Fabric
        if not re.fullmatch(r"[0-9A-Fa-f]{40}", pin):
            raise ArtifactsError("managed_identity: IDENTITY_SERVER_THUMBPRINT is not a SHA-1 thumbprint.")
        if not endpoint.lower().startswith("https://"):
            raise ArtifactsError("managed_identity: IDENTITY_ENDPOINT is not https: it is not asked.")
        return replace(local_get(endpoint, "2019-07-01-preview", {"Secret": header}), pin=pin)
    if endpoint and header:  # App Service, Functions, Container Apps
        return local_get(endpoint, "2019-08-01", {"X-IDENTITY-HEADER": header, **METADATA}, client_id=client)
    if msi and secret:  # Azure ML
        return local_get(msi, "2017-09-01", {"secret": secret}, clientid=client)
    if (endpoint and environ.get("IMDS_ENDPOINT")) or (arc and not msi):
        url = endpoint or f"http://localhost:40342{METADATA_PATH}"
        return local_get(url, ARC_VERSION, METADATA, client_id=client)
    if msi:  # Cloud Shell
        if client:
            raise ArtifactsError(
                "managed_identity: Cloud Shell has no identity but yours: unset AZURE_CLIENT_ID, "
                "or write system as the feed's clientId."
            )
        headers = {**METADATA, "Content-Type": "application/x-www-form-urlencoded"}
        return Request("POST", msi, headers, urlencode({"resource": AZURE_DEVOPS}).encode(), direct=True)
    return None


def local_get(url: str, version: str, headers: Mapping[str, str], **selector: str) -> Request:
    """Return a GET for a token of Azure DevOps that no proxy sees."""
    chosen = {name: value for name, value in selector.items() if value}
    query = urlencode({"api-version": version, "resource": AZURE_DEVOPS, **chosen})
    return Request("GET", f"{url}{'&' if '?' in url else '?'}{query}", headers, direct=True)


def arc_request(source: str, request: Request, response: Response, world: World) -> Request:
    """Return a request to Arc again, with the file that proves who asks: only its owner reads it.

    https://learn.microsoft.com/azure/azure-arc/servers/managed-identity-authentication; the file is
    read where Arc keeps such files, and nowhere else.
    """
    match = re.fullmatch(r"Basic realm=(.+)", ", ".join(response.lines("www-authenticate")), re.IGNORECASE)
    path, key = match[1].strip('"') if match else "", ""
    folder, _, name = path.replace("\\", "/").rpartition("/")
    program_data = world.environ.get("ProgramData", "").replace("\\", "/")
    places = ("/var/opt/azcmagent/tokens", f"{program_data}/AzureConnectedMachineAgent/Tokens")
    with suppress(OSError, ValueError):
        if folder in places and re.fullmatch(r"[\w-]+\.key", name) and world.of_system(path):
            key = world.read(path).decode("ascii").strip()
    if not is_token(key) or len(key) > 4096:
        raise ArtifactsError(
            f"{source}: the key file of Azure Arc cannot be read ({shown(path, 80)}): add this user to "
            "the group himds."
        )
    return replace(request, headers={**request.headers, "Authorization": f"Basic {key}"})


# --- people's tools ---------------------------------------------------------------------------


class Tool(NamedTuple):
    """A program that signs people in and hands out their tokens."""

    source: str
    name: str
    title: str
    check: str  # the command that shows a person what is wrong
    login: str


def run_tool(tool: Tool, world: World, command: Sequence[str], seconds: float = AZ_SECONDS) -> Completed:
    """Return how a tool ended; raises where it did not start or end."""
    seconds = min(seconds, world.patience.left())
    if seconds < 1:
        raise ArtifactsError(f"{tool.source}: {tool.name} was not asked: {TOO_LATE}")
    try:
        done = world.run(command, seconds)
    except TimeoutError:
        problem = (
            f"did not answer within {seconds:.0f} seconds. Run '{tool.check}' to see what it waits for, "
            "then try again."
        )
    except OSError as error:
        problem = f"could not be started ({shown(error.strerror)}): repair or reinstall it."
    else:
        log.debug("%s: %s ended with %s", tool.source, tool.name, done.returncode)
        return done
    raise ArtifactsError(f"{tool.source}: {tool.name} {problem}")


def read_tool(tool: Tool, done: Completed, now: float) -> Bearer:
    """Return the token that a tool printed as JSON; raises where it failed, or printed no such thing.

    Its own words may hold anything and are not shown; its codes are. Of the dates, az's
    `expires_on` is an epoch (since 2.54) and its `expiresOn`, in local time, is not used; azd's is.
    """
    data = parse_object(done.stdout)
    token = data.get("accessToken") or data.get("token")
    if not done.returncode and is_token(token):
        utc = data.get("expiresOn") if data.get("token") else None  # azd's
        told = {"access_token": token, "expires_on": data.get("expires_on") or utc}
        return machine_bearer(tool.source, told, now)
    code = re.search(r"AADSTS\d{4,8}", done.stderr)
    if not done.returncode:
        problem = (
            f"{tool.name} printed something that is not a token. Run '{tool.check}' to see what, and "
            f"update {tool.name} if it looks right."
        )
    elif code:
        problem = f"Entra wants a new sign-in ({code[0]}): run '{tool.login}'."
    elif re.search(r"az login|az account set|azd auth login|Connect-AzAccount", done.stderr):
        problem = f"nobody is signed in to {tool.title}: run '{tool.login}'."
    else:
        problem = f"{tool.name} failed. Run '{tool.check}' to see why, or sign in again with '{tool.login}'."
    raise ArtifactsError(f"{tool.source}: {problem}")


def codespaces(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of whoever opened this Codespace, or `None` outside of one.

    https://github.com/microsoft/ado-codespaces-auth; the first time, it asks in the editor.
    """
    helper = world.helper()
    if helper is None:
        return None
    command = f"{helper} get-access-token"
    tool = Tool("codespaces", "ado-auth-helper", "the editor", command, command)
    done = run_tool(tool, world, [helper, "get-access-token"], 2 * AZ_SECONDS)
    return read_tool(tool, done._replace(stdout=json.dumps({"token": done.stdout.strip()})), world.now())


def azure_cli(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of whoever `az login` signed in, or `None` where there is no Azure CLI.

    https://learn.microsoft.com/cli/azure/account#az-account-get-access-token. Raises where `az` is
    there and gives none: signed out, slow, or not what it says it is.
    """
    az = world.which("az")
    if az is None:
        return None
    tenant = ["--tenant", challenge.tenant] if challenge.tenant else []
    login = az_login(challenge.tenant)
    tool = Tool("azure_cli", "az", "the Azure CLI", "az account get-access-token", login)
    command = [az, "account", "get-access-token", "--output", "json", "--resource", AZURE_DEVOPS]
    done = run_tool(tool, world, command + tenant)
    # A managed identity has one tenant, and takes no other.
    if done.returncode and re.search("Tenant shouldn't be specified|non-current tenants", done.stderr):
        done = run_tool(tool, world, command)
    return read_tool(tool, done, world.now())


def azure_developer_cli(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of whoever `azd auth login` signed in, or `None` where there is no azd.

    https://learn.microsoft.com/azure/developer/azure-developer-cli/reference#azd-auth-token
    """
    azd = world.which("azd")
    if azd is None:
        return None
    tenant = ["--tenant-id", challenge.tenant] if challenge.tenant else []
    login = " ".join(["azd auth login", *tenant])
    tool = Tool("azure_developer_cli", "azd", "the Azure Developer CLI", "azd auth token", login)
    command = [azd, "auth", "token", "--output", "json", "--no-prompt", "--scope", f"{AZURE_DEVOPS}/.default"]
    return read_tool(tool, run_tool(tool, world, command + tenant), world.now())


# Az.Accounts answers with a SecureString since 5.0. 77: it is not installed.
POWERSHELL: Final = """
$ErrorActionPreference = 'Stop'; $ProgressPreference = 'SilentlyContinue'
if (-not (Get-Command Get-AzAccessToken -ErrorAction SilentlyContinue)) {{ exit 77 }}
$found = Get-AzAccessToken -ResourceUrl '{resource}' {tenant}
$token = $found.Token
if ($token -is [securestring]) {{ $token = [System.Net.NetworkCredential]::new('', $token).Password }}
@{{ token = $token; expires_on = $found.ExpiresOn.ToUnixTimeSeconds() }} | ConvertTo-Json -Compress
"""


def azure_powershell(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of whoever `Connect-AzAccount` signed in, or `None` without Azure PowerShell.

    https://learn.microsoft.com/powershell/module/az.accounts/get-azaccesstoken
    """
    programs = [path for path in map(world.which, ("pwsh", "powershell")) if path]
    if not programs:
        return None
    tenant = f"-TenantId {challenge.tenant}" if challenge.tenant else ""
    login = f"Connect-AzAccount {tenant}".strip()
    tool = Tool("azure_powershell", "Azure PowerShell", "Azure PowerShell", "Get-AzAccessToken", login)
    script = POWERSHELL.format(resource=AZURE_DEVOPS, tenant=tenant).encode("utf-16-le")
    command = ["-NoProfile", "-NonInteractive", "-EncodedCommand", base64.b64encode(script).decode()]
    for program in programs:  # each has modules of its own
        done = run_tool(tool, world, [program, *command])
        if done.returncode != 77:
            return read_tool(tool, done, world.now())
    return None


# --- signing in -------------------------------------------------------------------------------


def authority(challenge: Challenge, environ: Mapping[str, str]) -> str:
    """Return the address, without a closing slash, of the Entra tenant that signs people in.

    Personal accounts use `organizations`, as artifacts-credprovider does for this client. Raises
    where the environment names an address that is none.
    """
    name, given = first_set(environ, *provider_names("MSAL_AUTHORITY"))
    if not given:
        told = challenge.discover()
        return f"https://{told.sign_in_host}/{told.tenant or 'organizations'}"
    match = re.fullmatch(r"(https://[\w.-]+(?::\d+)?/[\w.-]+)/?", given.strip(), re.ASCII)
    if not match:
        raise ArtifactsError(
            f"{name} must be an https address with a tenant, for example "
            "https://login.microsoftonline.com/organizations."
        )
    return match[1]


def sign_in_seconds(environ: Mapping[str, str]) -> float:
    """Return how long a person is waited for; raises where the environment names no such time."""
    names = provider_names("DEVICEFLOWTIMEOUTSECONDS", "VSTS_DEVICEFLOWTIMEOUTSECONDS")
    name, given = first_set(environ, *names)
    if given and not re.fullmatch(r"\s*0*[1-9]\d{0,4}\s*", given, re.ASCII):
        raise ArtifactsError(f"{name} must be a number of seconds from 1 to 99999.")
    return float(given or SIGN_IN_SECONDS)


def silence(challenge: Challenge, environ: Mapping[str, str]) -> str:
    """Return why nobody may be asked to sign in, `""` where somebody may."""
    names = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "PIP_NO_INPUT", "ARTIFACTS_KEYRING_NONINTERACTIVE_MODE")
    left = "a host name alone is asked for" if challenge.feed.bare else ""
    if not {browser, device_code} & set(chosen_sources(environ)):
        left = "KEYRINGS_ARTIFACTS_SOURCES leaves out browser and device_code"
    return next((f"{name} is set" for name in names if is_on(environ, name)), left)


def browser_command(
    environ: Mapping[str, str], system: str, container: bool, which: Callable[[str], str | None]
) -> list[str] | None:
    """Return the command that opens a web page in a window on this desktop, or `None`.

    Whoever sets BROWSER says that there is one, over SSH and in a container too. `system` is
    `sys.platform`; `%s` stands for the address.
    """
    remote = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "container", "CODESPACES")
    windows = "rundll32.exe url.dll,FileProtocolHandler"
    wsl = environ.get("WSL_DISTRO_NAME") or environ.get("WSL_INTEROP")
    choices: Sequence[str] = ()
    if environ.get("BROWSER"):
        choices = environ["BROWSER"].split(os.pathsep)
    elif any(map(environ.get, remote)) or (container and not wsl):  # a distribution made from an image
        return None
    elif system == "darwin":
        return ["/usr/bin/open", "%s"]
    elif system == "win32":
        choices = (windows,)
    elif wsl:
        choices = ("wslview", windows)
    elif environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        choices = ("xdg-open", "x-www-browser", "firefox", "google-chrome", "chromium")
    for choice in choices:
        words = [word.strip('"') for word in re.findall(r'"[^"]+"|[^\s"]+', choice.rstrip(" &"))]
        program = which(words[0]) if words else None
        if program and os.path.basename(program) not in TEXT_BROWSERS:
            return [program, *words[1:], *([] if "%s" in choice else ["%s"])]
    return None


def authorize_url(base: str, redirect: str, state: str, verifier: str, environ: Mapping[str, str]) -> str:
    """Return the page where a person signs in: authorization code, PKCE (RFC 7636, S256)."""
    _, hint = first_set(environ, *provider_names("MSAL_LOGIN_HINT"))
    query = {
        "client_id": CLIENT_ID,
        "response_type": "code",
        "redirect_uri": redirect,
        "scope": SIGN_IN_SCOPE,
        "state": state,
        "code_challenge": base64url(hashlib.sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
        "response_mode": "form_post",  # keeps the code out of the browser's history (RFC 9700)
        "prompt": "select_account",
        **({"login_hint": hint} if hint else {}),
    }
    return f"{base}/oauth2/v2.0/authorize?{urlencode(query)}"


# What the listener's pages say; a person is led to one of the last two.
PAGES: Final[Mapping[str, str]] = {
    "/": "A sign-in is waited for here.",
    "/done": "You are signed in at Microsoft. You can close this page and go back to your terminal.",
    "/failed": "The sign-in did not succeed. You can close this page; your terminal says why.",
}


def answer_browser(target: str, form: str, state: str) -> tuple[int, str, dict[str, str]]:
    """Return status and text of the page for a request to our port, and the sign-in's answer or `{}`.

    Anybody on this machine may ask: an icon, a guess and a page opened twice are answered, and no
    more. A query is answered by a redirect (303), which takes the code out of the address line.
    """
    import hmac

    path, _, query = target.partition("?")
    answer = dict(parse_qsl(form or query))
    if path in PAGES and not form and not query:
        return 200, PAGES[path], {}
    if path != "/":
        return 404, "There is nothing here.", {}
    if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
        return 400, "This is not the sign-in that is waited for.", {}
    if "code" not in answer and "error" not in answer:
        return 400, "This sign-in brought no answer.", {}
    return 200 if form else 303, PAGES["/done" if "code" in answer else "/failed"], answer


# What a refusal means, by Entra's `error` or the AADSTS number in its text, the first that fits:
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
REFUSALS: Final[Mapping[str, str]] = {
    "access_denied|authorization_declined|65004": "the sign-in was declined{code}: {again}, and accept it",
    "expired_token|code_expired|bad_verification_code": "the code expired before anybody entered it: {again}",
    r"53\d{3,4}|50097|50131|50105": "a policy of your organization does not allow this sign-in{code}: use a "
    "browser on a machine it manages, or run '{login}'",
    ".*": "Entra did not accept the sign-in{code}: {again}, or sign in with '{login}'",
}


def refusal(source: str, challenge: Challenge, body: Mapping[str, Any]) -> ArtifactsError:
    """Return the error for a refusal of Entra's, whose own text may hold anything.

    `SignInEnded` where a person was asked, `EntraRefused` where nobody was; `NetworkError` for a
    trouble of its own.
    """
    error = shown(body.get("error") or "no reason given", 40)
    if error in PASSING:
        return NetworkError(f"{source}: Entra has trouble ({error}): try again in a few minutes.", False)
    match = re.search(r"AADSTS(\d{4,8})", str(body.get("error_description")))
    reasons = (error, match[1]) if match else (error,)
    fits = (text for each, text in REFUSALS.items() if any(re.fullmatch(each, reason) for reason in reasons))
    code = f" ({match[0] if match else error})"  # for whom the person asks for help
    again = f"run the command {'in a terminal' if source == 'refresh_token' else 'again'}"
    words = {"code": code, "again": again, "login": az_login(challenge.tenant)}
    text = f"{source}: {next(fits).format(**words)}."
    return EntraRefused(text, str(body.get("error"))) if source == "refresh_token" else SignInEnded(text)


def signed_in(source: str, challenge: Challenge, response: Response, world: World) -> Bearer:
    """Return the token that Entra's token endpoint answered with, and keep the refresh token.

    Raises `refusal` for any other answer. The refresh token lies in a real keyring or nowhere;
    the one before it stays valid, so that two processes may refresh at once.
    """
    body = parse_object(response.body)
    token, refresh = body.get("access_token"), body.get("refresh_token")
    if response.status != 200 or not is_token(token):
        raise refusal(source, challenge, body)
    account = account_of(claims(str(body.get("id_token")))) or account_of(claims(str(token)))
    if is_token(refresh):
        kept = json.dumps({"refresh_token": refresh, "account": account, "used": world.now()})
        world.store.write(refresh_entry(challenge, world), kept, SEALED)
    expires = world.now() + (number(body.get("expires_in")) or HOUR)
    return Bearer(str(token), expires, source, True, account, ours=True)


def refresh_entry(challenge: Challenge, world: World) -> str:
    """Return the name under which the store keeps the refresh token of a challenge's tenant."""
    return "refresh/" + authority(challenge, world.environ).rpartition("/")[2]


def kept_refresh(world: World, challenge: Challenge) -> str | None:
    """Return the refresh token kept for a challenge's tenant, or `None`."""
    text = world.store.read(refresh_entry(challenge, world), latest=True)  # others may have signed in anew
    kept = parse_object(text or "").get("refresh_token")
    return str(kept) if is_token(kept) else None


def refreshed(world: World, challenge: Challenge) -> Bearer | None:
    """Return a token by an earlier sign-in, `None` where there was none; raises where it is over."""
    kept = kept_refresh(world, challenge)
    if kept is None:
        return None
    url = f"{authority(challenge, world.environ)}/oauth2/v2.0/token"
    form = {"grant_type": "refresh_token", "refresh_token": kept, "scope": SIGN_IN_SCOPE}
    try:
        return signed_in("refresh_token", challenge, fetch(form_request(url, **form), world), world)
    except EntraRefused:
        if kept_refresh(world, challenge) in (kept, None):
            raise
    return refreshed(world, challenge)  # with what another organization's process kept meanwhile


def refresh_token(world: World, challenge: Challenge) -> Bearer | None:
    """Return a token by an earlier sign-in, or `None` where there was none.

    A refresh token that is worth nothing any more is dropped, and the person told why they are
    asked again; raises where nobody can be asked.
    """
    if identity(world.environ):  # which is nobody's
        return None
    try:
        return refreshed(world, challenge)
    except EntraRefused as error:
        if error.error not in SPENT:
            raise
        world.store.erase(refresh_entry(challenge, world))
        if silence(challenge, world.environ) or not (world.browser() or world.terminal()):
            raise
        world.notify(f"The earlier sign-in to organization '{challenge.feed.organization}' is over.")
        return None


def stay_signed_in(world: World, challenge: Challenge) -> None:
    """Use a refresh token that has long lain idle: unused for 90 days, as long as a PAT, it ends."""
    with suppress(ArtifactsError):  # what is over is told when it is missed
        kept = parse_object(world.store.read(refresh_entry(challenge, world)) or "")
        if world.now() - (number(kept.get("used")) or world.now()) > REFRESH_IDLE:
            refreshed(world, challenge)


def lasting(seconds: float) -> str:
    """Return a time for a person to read."""
    return f"{seconds / MINUTE:.0f} min" if seconds >= 2 * MINUTE else f"{seconds:.0f} seconds"


def waiting(world: World, challenge: Challenge, seconds: float) -> Iterator[float]:
    """Count down on the terminal while a person is waited for; raises `SignInEnded` at the end.

    Yields how many seconds to wait, one at most; whoever leaves the loop ends the display.
    """
    organization = challenge.feed.organization
    end = world.ticks() + seconds
    try:
        while (left := end - world.ticks()) > 0:
            world.patience.renew()  # the time is the person's
            world.progress(f"Waiting for you to sign in to {organization}: {left:.0f} s")
            yield min(left, 1.0)
    finally:
        world.progress("")
    longer = "ARTIFACTS_CREDENTIALPROVIDER_DEVICEFLOWTIMEOUTSECONDS sets a longer time."
    raise SignInEnded(
        f"Nobody signed in to organization '{organization}' within {lasting(seconds)}: run the command "
        f"again.{f' {longer}' if seconds == sign_in_seconds(world.environ) else ''}"
    )


def browser(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of a person who signs in in a browser, or `None` without one.

    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow, the answer being
    sent to a port of this machine. Raises `SignInEnded` where the person did not get in.
    """
    command = None if silence(challenge, world.environ) else world.browser()
    if command is None:
        return None
    base, seconds = authority(challenge, world.environ), sign_in_seconds(world.environ)
    state, verifier = world.random(), world.random()
    with world.listen(state) as listener:
        redirect = f"http://localhost:{listener.port}"
        url = authorize_url(base, redirect, state, verifier, world.environ)
        failed = world.start([word.replace("%s", url) for word in command])
        for left in waiting(world, challenge, seconds):
            answer = listener.wait(left) or {}
            if answer or failed():
                break
        if not answer:  # no window: there may be a terminal
            return None
        listener.finish()
    if "code" not in answer:
        raise refusal("browser", challenge, answer)
    form = {"grant_type": "authorization_code", "code": answer["code"], "scope": SIGN_IN_SCOPE}
    request = form_request(f"{base}/oauth2/v2.0/token", **form, redirect_uri=redirect, code_verifier=verifier)
    return signed_in("browser", challenge, fetch(request, world), world)


def read_device(challenge: Challenge, url: str, response: Response) -> tuple[Request, str, str, float, float]:
    """Return how to go on from Entra's answer to `device_code`; raises where it is odd, or none.

    That is: the request to poll with at `url`, which holds the device code; the code and the page for
    the person; for how many seconds it lives, and how many to wait between two polls.
    """
    body = parse_object(response.body)
    page = str(body.get("verification_uri") or body.get("verification_url"))
    code, user_code = body.get("device_code"), shown(body.get("user_code") or "", 40)
    if response.status != 200 or not is_token(code) or not user_code:
        raise refusal("device_code", challenge, body)
    match = re.fullmatch(r"https://([a-z0-9.-]+)(?:/[\w./-]*)?", page, re.ASCII)
    if match is None or match[1] not in DEVICE_HOSTS:
        raise ArtifactsError(
            f"device_code: the page to sign in on is not Microsoft's ({shown(page, 80)}): enter "
            "nothing there, and check who is between you and login.microsoftonline.com."
        )
    interval = min(max(number(body.get("interval")) or 5, 1), MINUTE)
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": str(code)}
    poll = replace(form_request(url, **form), tries=1)
    seconds = number(body.get("expires_in")) or 0
    return poll, user_code, page, seconds if seconds > 0 else 15 * MINUTE, interval


def polled(poll: Request, heard: float, world: World) -> Response:
    """Return the answer to a poll; for a drop, which is none (RFC 8628 §3.5), an empty one, for a while."""
    try:
        return fetch(poll, world)
    except NetworkError:
        if world.ticks() - heard > QUIET_SECONDS:
            raise
        return Response(0)


def device_code(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of a person who enters a code on a web page, or `None` without a terminal.

    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code. Raises `SignInEnded`
    where the person did not get in.
    """
    if silence(challenge, world.environ) or not world.terminal():
        return None
    base, seconds = authority(challenge, world.environ), sign_in_seconds(world.environ)
    request = form_request(f"{base}/oauth2/v2.0/devicecode", scope=SIGN_IN_SCOPE)
    told = read_device(challenge, f"{base}/oauth2/v2.0/token", fetch(request, world))
    poll, user_code, page, lives, interval = told
    seconds = min(seconds, lives)
    world.notify(
        f"To sign in to organization '{challenge.feed.organization}', open {page} and enter the code "
        f"{user_code} within {lasting(seconds)}."
    )
    heard = due = world.ticks() + interval
    for left in waiting(world, challenge, seconds):
        pause = due - world.ticks()
        if pause > 0:
            world.sleep(min(left, pause))
            continue
        due = world.ticks() + interval
        response = polled(poll, heard, world)
        body = parse_object(response.body)  # no JSON, no answer of Entra's
        heard = due if body else heard
        final = body and str(body.get("error")) not in PASSING | {"authorization_pending"}
        if body.get("error") == "slow_down":  # RFC 8628 §3.5
            interval, due = interval + 5, due + 5
        elif final or world.ticks() - heard > QUIET_SECONDS:
            break
    return signed_in("device_code", challenge, response, world)


if TYPE_CHECKING:
    Source = Callable[["World", Challenge], "Bearer | None"]
MACHINES: Final = (service_principal, workload_identity, feed_endpoint, managed_identity)
SOURCES: Final[tuple[Source, ...]] = (
    *MACHINES,
    codespaces,
    azure_cli,
    azure_developer_cli,
    azure_powershell,
    refresh_token,
    browser,
    device_code,
)

# By these a machine's identity is configured; none holds a secret.
IDENTITY_VARIABLES: Final = (
    "AZURE_CLIENT_ID",
    "AZURE_POD_IDENTITY_AUTHORITY_HOST",
    "AZURESUBSCRIPTION_CLIENT_ID",
    "servicePrincipalId",
    "ARTIFACTS_CREDENTIALPROVIDER_FEED_ENDPOINTS",
    "IDENTITY_ENDPOINT",
    "MSI_ENDPOINT",
)


def identity(environ: Mapping[str, str], feed: Feed | None = None) -> str:
    """Return what tells one identity of the environment's from another, `""` where it names none.

    A session obtained by one is never served to another, nor a person's to any. With a `feed`, also
    what tells the identities apart that the environment names for the feeds of one organization.
    """
    sources = chosen_sources(environ)
    if not set(MACHINES) & set(sources):
        return ""
    found = [f"{name}={environ[name]}" for name in IDENTITY_VARIABLES if environ.get(name)]
    if environ.get("KEYRINGS_ARTIFACTS_SOURCES"):
        found += [source.__name__ for source in sources]
    if found:
        found += [f"tenant={first_set(environ, *TENANT_VARIABLES)[1].strip().lower()}"]
    name, text = first_set(environ, "ARTIFACTS_CREDENTIALPROVIDER_FEED_ENDPOINTS")
    if feed and name:
        with suppress(ArtifactsError):  # which its source tells
            entries = parse_endpoints(text, name)
            mine = endpoint_for(feed, entries)
            if mine and len({entry.get("clientid", "").lower() for entry in entries}) > 1:
                found += [mine.get("clientid", "").lower()]
    return hashlib.sha256("\n".join(found).encode(errors="surrogatepass")).hexdigest()[:16] if found else ""


def chosen_sources(environ: Mapping[str, str]) -> Sequence[Source]:
    """Return the sources to be tried, in their order; raises where the environment names others."""
    wanted = re.findall(r"[^\s,;]+", environ.get("KEYRINGS_ARTIFACTS_SOURCES", "").lower())
    known = {source.__name__: source for source in SOURCES}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ArtifactsError(
            f"KEYRINGS_ARTIFACTS_SOURCES names no source with '{shown(unknown[0], 40)}': choose among "
            f"{', '.join(known)}."
        )
    return [known[name] for name in dict.fromkeys(wanted)] or SOURCES


# --- composition ------------------------------------------------------------------------------


def credential_for(feed: Feed, service: str, username: str | None, world: World) -> SimpleCredential | None:
    """Return a credential for a feed, its user name "" where any will do, or `None` where it needs none.

    `service` and `username` are the caller's own words, under which keyrings.artifacts 1.x kept
    its PATs. Raises `ArtifactsError` where there is no credential to be had.
    """
    log.debug("asked for %s: organization '%s'", feed.url, feed.organization)
    given = given_credential(feed, world)
    if given is not None:
        return given
    settings = parse_settings(world.environ)
    session = fresh_session(feed, settings, world) or inherited(feed, service, username, world)
    if session is None and feed.server:
        raise ArtifactsError(
            f"{feed.host} is an Azure DevOps Server, where signing in is not supported: set "
            f"AZURE_DEVOPS_EXT_PAT, or run 'keyring set {feed.url} me'."
        )
    try:
        session = session or in_turn(feed, settings, world)
    except PublicFeed:
        log.debug("%s is public", feed.url)
        return None
    return SimpleCredential("", session.token)


def in_turn(feed: Feed, settings: Settings, world: World) -> Session:
    """Return a new session for a feed: of all processes and threads one gets it, the others wait.

    They find it kept; or, where a person turned that sign-in down meanwhile or there was no network
    for it, raise `SignInEnded` rather than ask once more. Raises `PublicFeed`.
    """
    began = world.now()
    once = lru_cache(lambda: fetch(headers_only(feed.url), world))
    challenge = Challenge(feed, lambda: read_challenge(feed, once()))
    person = not identity(world.environ)
    if person:  # a configured identity may do without
        challenge.discover()
    patience = sign_in_seconds(world.environ) + 2 * CALL_SECONDS  # before the person and after
    left = world.patience.left()
    # What only this process will have, no other waits for: no file of an image build's, not even a lock.
    with world.lock(entry(feed, world), patience, person or world.store.lasts()) as turn:
        session = fresh_session(feed, settings, world, latest=True)
        if session is not None:
            return session
        ended, final = turn.ended()
        missed = began < ended <= world.now()
        if turn.declined(world.now()) or (missed and final):
            raise SignInEnded(
                f"The sign-in to organization '{feed.organization}' that was waited for came to nothing: "
                "run the command again."
            )
        if not missed:  # then it was no failure that was waited for
            world.patience.renew(left)
        try:
            return new_session(challenge, settings, world)
        except ArtifactsError as error:
            with suppress(ArtifactsError):  # a public feed needs no identity that works
                challenge.discover()
            turn.end(world.now(), error)
            raise


def new_session(challenge: Challenge, settings: Settings, world: World) -> Session:
    """Return a new session, kept in place of the old one, whose PAT is revoked; raises without one."""
    old = read_session(world.store.read(entry(challenge.feed, world)))
    session = sign_in(challenge, settings, world)
    keep(challenge.feed, session, world)
    if old and old.pat_id and (old.expires or 0) > world.now():  # of another type or scope
        revoke(challenge, old.pat_id, world)
    return session


def entry(feed: Feed, world: World) -> str:
    """Return the name under which the store keeps the session of a feed's organization."""
    return "/".join(filter(None, ["session", feed.organization, identity(world.environ, feed)]))


def fresh_session(feed: Feed, settings: Settings, world: World, latest: bool = False) -> Session | None:
    """Return the session kept for a feed's organization, or `None` where none is good any more.

    One that nobody has checked for an hour is checked; without a network it is believed. `latest`
    looks for what other processes have kept since.
    """
    session = read_session(world.store.read(entry(feed, world), latest))
    if session is None or not usable(session, settings, world.now()):
        return None
    if 0 <= world.now() - session.checked < CHECKED_FOR:
        log.debug("stored: fresh")
        return session
    if not latest:  # a process that lives long may have missed what others have kept, or forgotten
        return fresh_session(feed, settings, world, latest=True)
    try:
        refused = is_sign_in(fetch(check_request(feed, session.token, tries=1), world))
    except NetworkError:
        log.debug("stored: could not be checked")
        return session
    if refused:
        world.store.erase(entry(feed, world))
        if session.kind == "set":
            world.notify(
                f"Organization '{feed.organization}' refused the token that 'keyring set' kept for it: "
                "it is forgotten. Set a new one, or sign in."
            )
        return None
    session = replace(session, checked=world.now())
    keep(feed, session, world)
    if session.pat_id:
        stay_signed_in(world, remembered(feed, session))
    return session


def remembered(feed: Feed, session: Session | None) -> Challenge:
    """Return a challenge that tells what is known of a feed without asking it."""
    known = Discovered((session and session.tenant) or None, token_service_of(feed))
    return Challenge(feed, lambda: known)


def keep(feed: Feed, session: Session, world: World) -> bool:
    """Keep a session where such a one may lie; whether it will outlast this process.

    What an identity of the environment's obtained lies in no file: that may be in an image's layer.
    """
    grade = PLAIN if file_may_keep(session, world.now()) else SEALED
    if identity(world.environ):
        grade = KEYRING
    return world.store.write(entry(feed, world), write_session(session), grade)


def inherited(feed: Feed, service: str, username: str | None, world: World) -> Session | None:
    """Return the PAT that keyrings.artifacts 1.x kept for a feed, if the feed takes it, or `None`.

    It is then kept as a PAT of the person's own. An identity of the environment's is no person.
    """
    if identity(world.environ):
        return None
    for token in dict.fromkeys(world.store.foreign(inherited_names(feed, service, username, world))):
        if is_token(token) and not is_sign_in(fetch(check_request(feed, token), world)):
            session = Session(token, "set", world.now())
            keep(feed, session, world)
            return session
    return None


def inherited_names(feed: Feed, service: str, username: str | None, world: World) -> list[tuple[str, str]]:
    """Return the pairs of service and user name under which 1.x may have kept a PAT for a feed.

    It took the URL as its caller spelled it, one with a project cut behind `simple` or `upload`.
    """
    url = feed.url.rstrip("/")
    cut = re.findall(r"^https://[^/]+/[^/]+/[^/]+/_packaging/[^/]+/pypi/(?:upload|simple)", url)
    urls = dict.fromkeys([*cut, service, url, url + "/"])
    users = dict.fromkeys([username, world.environ.get("AZURE_DEVOPS_USERNAME"), DEFAULT_USERNAME])
    return [(address, user) for address in urls for user in users if user]


def sign_in(challenge: Challenge, settings: Settings, world: World) -> Session:
    """Return a session from the first source whose token the organization accepts; or raise."""
    failures: list[ArtifactsError] = []
    for source in chosen_sources(world.environ):
        try:
            bearer = source(world, challenge)
            world.attempted(source.__name__, bearer)
            if bearer is not None:
                log.debug("%s: a token for %s", bearer.source, "a person" if bearer.person else "an app")
                return exchange(challenge, bearer, settings, world)
            log.debug("%s: does not apply here", source.__name__)
        except NetworkError as error:
            world.attempted(source.__name__, error)
            if not failures:
                raise
            raise NoCredential(challenge, [*failures, error], "") from None
        except SignInEnded:
            raise
        except UnicodeError:  # of bytes in the environment
            failures.append(
                ArtifactsError(f"{source.__name__}: a variable that it reads is no text: set it again.")
            )
        except ArtifactsError as error:
            world.attempted(source.__name__, error)
            if source in (browser, device_code):  # one more question would not be better answered
                raise SignInEnded(str(error)) from None
            log.debug("%s", error)
            failures.append(error)
    silent = silence(challenge, world.environ) or "there is neither a browser nor a terminal"
    raise NoCredential(challenge, failures, silent)


def exchange(challenge: Challenge, bearer: Bearer, settings: Settings, world: World) -> Session:
    """Return the narrowest session that the organization issues for an Entra token.

    Applications get no tokens from Azure DevOps; their Entra token is the credential. Raises
    `BearerRefused` where the organization does not take the token at all.
    """
    asked = settings.token_type or ("pat" if bearer.ours and world.store.keeps() else "session")
    refused = ""
    for kind in LADDER[LADDER.index(asked) : -1] if bearer.person else ():
        try:
            return replace(mint(kind, challenge, bearer, settings, world), asked=asked)
        except (PolicyRefused, BearerRefused) as refusal:
            # PATs are of organizations with a tenant: elsewhere the next exchange tells who is a stranger.
            if isinstance(refusal, BearerRefused) and (kind != "pat" or challenge.tenant):
                raise
            refused = str(refusal)
            log.debug("%s refused: %s", kind, refused)
    check = fetch(replace(check_request(challenge.feed, bearer.token), why=True), world)
    refuse_stranger(challenge, bearer, check)
    if refused == "404" and check.status == 404:  # an address for uploads, which nobody knew before
        raise NetworkError(NO_SUCH_FEED.format(challenge.feed.host, shown(challenge.feed.url)), passing=False)
    return Session(
        bearer.token,
        "entra",
        checked=world.now(),
        expires=bearer.expires,
        asked=asked,
        account=bearer.account,
        tenant=(challenge.tenant or "") if bearer.person else "",  # else nobody has to be asked for it
    )


def mint(kind: str, challenge: Challenge, bearer: Bearer, settings: Settings, world: World) -> Session:
    """Return a new PAT or session token; a lifetime that policy refuses is left to the service."""
    now = world.now()
    days = settings.session_days
    if kind == "pat":
        days = settings.pat_days or (PAT_DAYS if world.store.keeps() else 1)

    def ask(valid_to: float | None) -> dict[str, Any]:
        request = mint_request(kind, challenge, bearer, settings.scope, pat_name(world), valid_to)
        return read_minted(kind, challenge, bearer, fetch(request, world))

    try:
        minted = ask(now + DAY * days)
    except LifetimeRefused:
        minted = ask(None)
    token, pat_id = str(minted["token"]), str(minted.get("authorizationId"))
    return Session(
        token,
        kind,
        checked=now,
        expires=expiry(token, minted.get("validTo"), now + DAY * SESSION_DAYS),
        scope=settings.scope,
        account=bearer.account,
        tenant=challenge.tenant or "",
        pat_id=pat_id if kind == "pat" and re.fullmatch(_GUID, pat_id) else "",
    )


def sign_out(feed: Feed, service: str, username: str | None, world: World) -> str | None:
    """Forget all that is kept for a feed's organization, and revoke the PAT that was minted for it.

    Returns a sentence for the person, or `None` where nothing was kept. Nobody is asked.
    """
    session = read_session(world.store.read(entry(feed, world), latest=True))
    challenge, unsure = remembered(feed, session), ""
    if session is None and not feed.server:  # then only the service knows whose refresh token it is
        try:
            told = read_challenge(feed, fetch(headers_only(feed.url), world))
            challenge = Challenge(feed, lambda: told)
        except PublicFeed:
            pass
        except ArtifactsError as error:
            unsure = f"An earlier sign-in may be left, of which only the feed can tell. {error}"
    left = unsure or "Nothing else of it is left here."
    if session and session.pat_id and not revoke(challenge, session.pat_id, world):
        left = (
            f"Its PAT '{pat_name(world)}' could not be revoked: do so at "
            f"https://dev.azure.com/{quote(feed.organization)}/_usersSettings/tokens. {left}"
        )
    erased = [
        world.store.erase(entry(feed, world)),
        world.store.erase(refresh_entry(challenge, world)),
        bool(world.store.foreign(inherited_names(feed, service, username, world), erase=True)),
    ]
    if world.store.failed():
        raise ArtifactsError(
            f"What is kept for organization '{feed.organization}' could not all be deleted: unlock or repair "
            "the keyring, then run 'keyring del' again."
        )
    if unsure and not any(erased):
        raise ArtifactsError(f"Nothing was found of organization '{feed.organization}'. {unsure}")
    return f"Signed out of organization '{feed.organization}'. {left}" if any(erased) else None


def revoke(challenge: Challenge, pat_id: str, world: World) -> bool:
    """Revoke a PAT at the service, as whoever is signed in; whether that was possible.

    https://learn.microsoft.com/rest/api/azure/devops/tokens/pats/revoke
    """
    query = f"authorizationId={pat_id}&api-version=7.1-preview.1"
    url = f"{token_service_of(challenge.feed)}/_apis/tokens/pats?{query}"
    for source in (refresh_token, azure_cli):
        with suppress(ArtifactsError):
            bearer = source(world, challenge._replace(feed=challenge.feed._replace(bare=True)))
            if bearer:
                headers = {**_HEADERS, "Authorization": f"Bearer {bearer.token}"}
                status = fetch(Request("DELETE", url, headers), world).status
                if 200 <= status < 300 and status != 203:  # which is the sign-in page
                    return True
    return False


# --- store ------------------------------------------------------------------------------------

_HEAD: Final = r"(\d{1,2}):([0-9a-f]{12}):"

_memory: dict[str, str] = {}  # by name; shared, since pdm and poetry ask several instances
_placed: set[str] = set()  # of these, the names that a place has had: gone there, they are gone here
_broken: dict[str, float] = {}  # places that failed, told once, and until when they are left alone


def split_entry(text: str) -> list[str]:
    """Return a text in parts that every keyring takes; the first tells how many, and of which."""
    if len(text) <= ENTRY_LIMIT:
        return [text]
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    size = ENTRY_LIMIT - len(f"99:{digest}:")
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    return [f"{len(parts)}:{digest}:{parts[0]}", *parts[1:]]


def part_names(name: str, head: str) -> list[str]:
    """Return the names of the parts that follow the first one of an entry."""
    match = re.match(_HEAD, head)
    return [f"{name}/{match[2]}.{index}" for index in range(1, int(match[1]))] if match else []


def join_entry(head: str, rest: Sequence[str | None]) -> str | None:
    """Return the text that `split_entry` split, `None` where parts are missing or of another."""
    match = re.match(_HEAD, head)
    if match is None:
        return head
    text = head[match.end() :] + "".join(part or "" for part in rest)
    return text if hashlib.sha256(text.encode()).hexdigest()[:12] == match[2] else None


class Keyring:
    """Another keyring's backend as a place for short texts. It may raise anything."""

    grade = KEYRING

    def __init__(self, backend: KeyringBackend) -> None:
        from keyring.backends.chainer import ChainerBackend

        self.backend = backend
        self.label = f"{type(backend).__module__}.{type(backend).__qualname__}"
        self.priority = 0.0  # no place; keyring's own rule is that from 1 on it is safe
        if not isinstance(backend, (ArtifactsKeyringBackend, ChainerBackend)):
            with suppress(Exception):  # it is code, Secret Service's a call over D-Bus: asked once
                self.priority = float(backend.priority)

    def pair(self, name: str) -> tuple[str, str]:
        """Return service and user name."""
        return f"keyrings.artifacts/{name}", "keyrings.artifacts"

    def get(self, name: str) -> str | None:
        return self.backend.get_password(*self.pair(name))

    def set(self, name: str, text: str) -> None:
        self.backend.set_password(*self.pair(name), text)

    def holds(self, name: str) -> bool:
        return self.get(name) is not None

    def delete(self, name: str) -> None:
        self.backend.delete_password(*self.pair(name))


def data_folder() -> Path:
    """Return the folder of our files, there or not; raises `RuntimeError` for a user without a home."""
    return Path(platform_.data_root()) / "keyrings_artifacts"


def file_name(name: str) -> str:
    """Return a name of ours as one that every file system takes."""
    return quote(name.replace("/", "-"), safe="")


class Files:
    """A folder as a place for texts, in files that their owner alone can read.

    Writing raises `OSError`. A file that is a link, another user's, or open to others is not read.
    """

    grade = PLAIN
    suffix = "json"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.label = f"The folder {folder}"

    def path(self, name: str) -> Path:
        return self.folder / f"{file_name(name)}.{self.suffix}"

    def get(self, name: str) -> str | None:
        with suppress(OSError, ValueError):
            return read_file(self.path(name), private=True).decode()
        return None

    def set(self, name: str, text: str) -> None:
        with self.draft(text.encode()) as draft:
            draft.replace(self.path(name))  # one step: readers see the old text or the new one

    @contextmanager
    def draft(self, data: bytes) -> Iterator[Path]:
        """A file of this owner's alone with some data, to be put in its place."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.is_symlink():
            raise PermissionError
        self.folder.chmod(0o700)
        draft = self.folder / f".{os.getpid()}-{threading.get_ident()}"
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(data)
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        self.path(name).unlink()

    def holds(self, name: str) -> bool:
        """Whether there is a file, which may be one that is not read."""
        return os.path.lexists(self.path(name))


def link(draft: Path, path: Path) -> None:
    """Put a file in a place that is free; what another put there first stays. Raises `OSError`."""
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        draft.replace(path)


class SealedFiles(Files):
    """The same, encrypted by keyrings.alt under a key in a file beside. Raises `ImportError` without it.

    Its `EncryptedKeyring` would ask for a password, and keep all entries in one file that two
    programs can't write at once: only its encryption is used. It serves nobody else.
    """

    grade = SEALED
    suffix = "sealed"

    def __init__(self, folder: Path) -> None:
        from keyrings.alt.file import EncryptedKeyring

        super().__init__(folder)
        self.label = f"The encrypted folder {folder}"
        self._keyring = EncryptedKeyring()

    def key(self) -> str:
        """Return the key, 32 random bytes, in hexadecimal; `""` where there is none, or no good one."""
        with suppress(OSError):
            data = read_file(self.folder / "key", private=True)
            return data.hex() if len(data) == KEY_BYTES else ""
        return ""

    def get(self, name: str) -> str | None:
        text, self._keyring.keyring_key = super().get(name), self.key()
        if text and self._keyring.keyring_key:
            with suppress(Exception):  # of another key, or none of keyrings.alt's: it asserts
                return str(self._keyring.decrypt(text.encode()).decode())
        return None

    def set(self, name: str, text: str) -> None:
        self._keyring.keyring_key = self.key() or self.new_key()
        super().set(name, self._keyring.encrypt(text.encode()).decode())

    def new_key(self) -> str:
        """Make a key and return it, or the one that another process made meanwhile."""
        path = self.folder / "key"
        with self.draft(os.urandom(KEY_BYTES)) as draft:
            if os.path.lexists(path):  # no good: nothing can be read by it
                draft.replace(path)
            else:
                link(draft, path)
        return self.key()


def read_entry(place: Place, name: str) -> str | None:
    """Return the text that a place has under a name, `None` where it has none, or half of one."""
    head = place.get(name)
    if head is None:
        return None
    return join_entry(head, [place.get(part) for part in part_names(name, head)])


def write_entry(place: Place, name: str, text: str) -> bool:
    """Put a text of any length under a name, its first part last, and return True."""
    old = part_names(name, place.get(name) or "")
    head, *rest = split_entry(text)
    new = part_names(name, head)
    for part, value in zip(new, rest):
        place.set(part, value)
    place.set(name, head)
    for part in set(old) - set(new):
        drop(place, part)
    return True


def erase_entry(place: Place, name: str) -> bool:
    """Delete what a place has under a name; whether it had anything."""
    head = place.get(name)
    if head is None and not place.holds(name):
        return False
    for part in [name, *part_names(name, head or "")]:
        drop(place, part)
    return True


def drop(place: Place, name: str) -> None:
    """Delete one text; that it is gone already, by another process or an accident, is no failure."""
    try:
        place.delete(name)
    except Exception:  # a backend may raise anything
        if place.get(name) is not None:
            raise


if TYPE_CHECKING:
    Place = Union[Keyring, Files]


class Store:
    """Texts under names, kept for this process and, where there is a place, for the next.

    The place is the best other keyring; without one, files, for what may lie in them. A place
    that fails costs one notice and nothing else: no method raises.
    """

    def __init__(self, notify: Callable[[str], None], patience: Patience) -> None:
        self._notify, self._patience = notify, patience

    def read(self, name: str, latest: bool = False) -> str | None:
        """Return the text kept under a name, or `None`; `latest` looks again where it is kept."""
        if name in _memory and not latest:
            return _memory[name]
        for place in self._places():
            text = self._try(place, read_entry, place, name)
            if text is not None:
                _memory[name] = text
                _placed.add(name)
                return text
        if name in _placed and not _broken:
            _memory.pop(name, None)
        return _memory.get(name)

    def write(self, name: str, text: str, grade: int) -> bool:
        """Keep a text under a name, in a place of a grade or better; whether a next process has it."""
        _memory[name] = text
        places = (place for place in self._places() if place.grade >= grade)
        kept = any(self._try(place, write_entry, place, name, text) for place in places)
        (_placed.add if kept else _placed.discard)(name)
        return kept

    def lasts(self) -> bool:
        """Whether there is a keyring for what may not lie in any file."""
        return any(place.grade == KEYRING for place in self._places())

    def keeps(self) -> bool:
        """Whether a place for what outlives a day really takes an entry, and gives it back."""
        name = f"probe/{os.getpid()}-{threading.get_ident()}"
        return any(
            place.grade >= SEALED
            and self._try(place, write_entry, place, name, name)
            and self._try(place, read_entry, place, name) == name
            and self._try(place, erase_entry, place, name)
            for place in self._places()
        )

    def labels(self) -> list[str]:
        """Return the names of the places, the best first."""
        return [place.label for place in self._places()]

    def failed(self) -> bool:
        """Whether a place failed, and has not answered since: what it has is out of reach."""
        return bool(_broken)

    def erase(self, name: str) -> bool:
        """Forget a name everywhere; whether it was kept anywhere."""
        found = [self._try(place, erase_entry, place, name) for place in self._places()]
        return _memory.pop(name, None) is not None or any(found)

    def forget(self, name: str) -> None:
        """Forget a name in this process, though not where it is kept."""
        _memory.pop(name, None)

    def foreign(self, names: Sequence[tuple[str, str]], erase: bool = False) -> list[str]:
        """Return what other keyrings have under pairs of service and user name; also erase it."""
        found = []
        for place in self._places():
            if isinstance(place, Keyring) and place.priority < PROVIDERS:
                for pair in names:
                    text = self._try(place, place.backend.get_password, *pair)
                    if text is not None:
                        found.append(text)
                        if erase:
                            self._try(place, place.backend.delete_password, *pair)
        return found

    def _places(self) -> list[Place]:
        """The other keyrings that are really there, the best first, and the folder for files."""
        keyrings = [each for each in map(Keyring, get_all_keyring()) if each.priority >= 1]
        places: list[Place] = [*sorted(keyrings, key=lambda each: -each.priority)]
        for kind in (SealedFiles, Files):
            with suppress(ImportError, RuntimeError):  # without keyrings.alt; without a home
                places.append(kind(data_folder()))
        now = self._patience.ticks()
        return [each for each in places if _broken.get(each.label, now) <= now]

    def _try(self, place: Place, function: Callable[..., T], *arguments: Any) -> T | None:
        """Return what a place answers, or `None` where it fails."""
        try:
            answer = within(min(STORE_SECONDS, self._patience.left() + 1), function, *arguments)
            _broken.pop(place.label, None)
            return answer
        except NotImplementedError:  # a provider of credentials like this one, which keeps nothing
            return None
        except Exception as error:  # a backend may raise anything
            told = place.label in _broken
            _broken[place.label] = self._patience.ticks() + LEFT_ALONE
            if not told:
                self._notify(
                    f"{place.label} could not be used ({type(error).__name__}): this sign-in may not "
                    "be remembered. Unlock or repair it, or go on without."
                )
            return None


# --- effects ----------------------------------------------------------------------------------


class World(SimpleNamespace):
    """Every effect there is. `real_world` makes the real ones; tests make others."""

    __repr__ = object.__repr__  # the environment holds secrets
    environ: Mapping[str, str]
    host: str
    now: Callable[[], float]  # an epoch
    ticks: Callable[[], float]  # seconds that no change of the clock moves
    sleep: Callable[[float], None]  # seconds
    jitter: Callable[[], float]  # in [0, 1)
    patience: Patience
    send: Callable[[Request, float], Response]  # seconds; raises NetworkError
    which: Callable[[str], str | None]  # a program's full path
    run: Callable[[Sequence[str], float], Completed]  # seconds; raises TimeoutError, OSError
    read: Callable[[str], bytes]  # a small file; raises OSError
    of_system: Callable[[str], bool]  # whether the system, not a user, owns a file
    helper: Callable[[], str | None]  # Codespaces' program, in this user's home and theirs alone
    store: Store
    lock: Callable[[str, float, bool], AbstractContextManager[Turn]]  # name, seconds, across processes
    notify: Callable[[str], None]  # to the person
    progress: Callable[[str], None]  # in place of the one before, on a terminal alone
    terminal: Callable[[], bool]  # whether a person can see one
    browser: Callable[[], Sequence[str] | None]  # see `browser_command`
    start: Callable[[Sequence[str]], Callable[[], bool]]  # a program; whether it has failed
    listen: Callable[[str], AbstractContextManager[Listener]]  # state
    random: Callable[[], str]  # 64 characters that nobody can guess, fit for a URL
    attempted: Callable[[str, object], None]  # told of each source, and what came of it
    programs: Callable[[str], Iterable[str]]  # all on PATH that have a name, the first one first
    python: Callable[[str], tuple[str | None, bool]]  # see the function
    settings: Callable[[str], list[tuple[str, str]]]  # see `settings_files`
    route: Callable[[str], tuple[str, str, bool]]  # see the function


def real_world() -> World:
    """Return the effects on the machine this runs on; nothing is done until one is used."""
    import random
    import socket

    patience = Patience(time.monotonic)
    alike = (send, which, run, of_system, lock, notify, progress, start, programs, python, route)
    return World(
        **{effect.__name__: effect for effect in alike},
        environ=os.environ,
        host=socket.gethostname(),
        now=time.time,
        ticks=time.monotonic,
        patience=patience,
        sleep=time.sleep,
        jitter=random.random,
        read=read_file,
        helper=codespaces_helper,
        store=Store(notify, patience),
        terminal=lambda: terminal() is not None,
        browser=desktop_browser,
        listen=Listener,
        random=lambda: base64url(os.urandom(48)),
        attempted=lambda source, outcome: None,
        settings=settings_files,
    )


def within(seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function returns, or raise what it raises, or `TimeoutError` after a while.

    No time-out of sockets bounds a look-up of names, or an answer that drips.
    """
    answers: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            answers.append(function(*arguments))
        except Exception as error:  # handed to the caller
            errors.append(error)
        except BaseException as error:  # another keyring must not end this process
            errors.append(RuntimeError(type(error).__name__))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if answers:
        return answers[0]
    raise errors[0] if errors else TimeoutError


# Ways to open a file that Windows has none of: a link fails, a pipe nobody writes to is not waited for.
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)


def exposed(status: os.stat_result, others: int = 0) -> bool:
    """Whether a file is another user's, or open to others by some bits of its mode; never on Windows."""
    return hasattr(os, "geteuid") and (status.st_uid != os.geteuid() or bool(status.st_mode & others))


def read_file(path: str | Path, private: bool = False) -> bytes:
    """Return the start of a file, all of a small one; raises `OSError`.

    With `private` also for a file that is a link, another user's or open to others.
    """
    flags = os.O_RDONLY | _NO_WAIT | (_NO_LINK if private else 0)
    with open(os.open(path, flags), "rb") as stream:
        if private and exposed(os.fstat(stream.fileno()), 0o077):
            raise PermissionError("open to others")
        return stream.read(MAX_BODY) or b""


def of_system(path: str) -> bool:
    """Whether a file belongs to the system's user, or Azure Arc's; Windows keeps the place by rights."""
    if os.name == "nt":
        return True
    import pwd
    import stat

    with suppress(OSError, KeyError):  # a user without a name
        status = os.lstat(path)  # a link might lead anywhere
        return stat.S_ISREG(status.st_mode) and pwd.getpwuid(status.st_uid).pw_name in ("root", "himds")
    return False


def codespaces_helper() -> str | None:
    """Return the program that Codespaces puts into this user's home.

    `None` where there is none, or somebody else could have put it there.
    """
    with suppress(OSError, RuntimeError):  # no such file, or no home
        path = Path.home() / "ado-auth-helper"
        if os.name != "nt" and not exposed(path.stat(), 0o022) and os.access(path, os.X_OK):
            return str(path)
    return None


@lru_cache  # which keeps it open for the process
def controlling_terminal() -> TextIO | None:
    """Return the terminal that this process was started from, or `None` without one."""
    with suppress(OSError):
        return open("CONOUT$" if os.name == "nt" else "/dev/tty", "w", encoding="utf-8", errors="replace")
    return None


def terminal() -> TextIO | None:
    """Return the terminal on which a person can read, or `None`; never standard output or input.

    stderr where it is one, else the controlling terminal: pip 26 throws stderr away.
    """
    with suppress(ValueError):  # it is closed
        if getattr(sys.stderr, "isatty", bool)():
            return sys.stderr
    return controlling_terminal()


def notify(text: str) -> None:
    """Tell the person: on a terminal, or on stderr, which may end in a log, without one."""
    line = "".join(c for c in f"keyrings.artifacts: {text}\n" if c.isprintable() or c == "\n")
    with suppress(OSError, ValueError, AttributeError):  # a closed stream is nobody's ear
        stream = terminal() or sys.stderr
        stream.write(line)
        stream.flush()


def progress(text: str) -> None:
    """Show a line in place of the one before, `""` for none; on a terminal alone."""
    stream = terminal()
    if stream is not None:
        with suppress(OSError, ValueError):
            width = (os.get_terminal_size(stream.fileno()).columns or 80) - 1
            stream.write(f"\r{text[:width].ljust(width)}\r")
            stream.flush()


class Patience:
    """How much longer a call may take, in seconds; the time that people take is not counted."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        self.ticks = ticks
        self.renew()

    def renew(self, seconds: float = CALL_SECONDS) -> None:
        self._end = self.ticks() + seconds

    def left(self) -> float:
        return max(self._end - self.ticks(), 0.0)


class Turn:
    """A turn at signing in to an organization, and what the one before left in the lock file."""

    def __init__(self, stream: TextIO | None, name: str = "") -> None:
        self.stream, self.name = stream, name

    def declined(self, now: float) -> bool:
        """Whether a person has turned this down in this process a short while ago."""
        return 0 <= now - _declined.get(self.name, -LEFT_ALONE) < LEFT_ALONE

    def ended(self) -> tuple[float, bool]:
        """Return when a sign-in last came to nothing, an epoch, and whether others need not try."""
        text = _ended.get(self.name, "")
        with suppress(OSError, ValueError):
            if self.stream is not None:
                self.stream.seek(0)
                text = self.stream.read(40)
        when, _, final = text.partition(" ")
        return number(when) or 0.0, final.strip() == "final"

    def end(self, now: float, error: ArtifactsError) -> None:
        """Note for those who wait that a sign-in came to nothing now, an epoch, and how.

        What a person turned down is not asked of that person again by this process for a while.
        """
        if isinstance(error, SignInEnded):
            _declined[self.name] = now
        final = "final" if isinstance(error, (NetworkError, SignInEnded)) else ""
        _ended[self.name] = f"{now:.3f} {final}"
        with suppress(OSError):
            if self.stream is not None:
                self.stream.seek(0)
                self.stream.write(_ended[self.name].ljust(40))
                self.stream.flush()


_turns: dict[str, threading.Lock] = {}
_ended: dict[str, str] = {}  # turns of this process that came to nothing: when and how
_declined: dict[str, float] = {}  # those in which a person turned it down: when


@contextmanager
def lock(name: str, seconds: float, shared: bool) -> Iterator[Turn]:
    """Let one thread in at a time, under a name, and of all processes' where `shared`.

    After some seconds, anybody. The system frees the lock of a process that dies. Without a place for
    a file, processes do not wait for each other.
    """
    turn = _turns.setdefault(name, threading.Lock())
    stream = None
    with ExitStack() as held:
        if turn.acquire(timeout=seconds):
            held.callback(turn.release)
        with suppress(OSError, RuntimeError):
            if shared:
                stream = open_lock(name)
                held.callback(shut, stream)
                lock_file(stream, seconds)
        yield Turn(stream, name)


def shut(stream: TextIO) -> None:
    """Close a file, whether or not a full disk takes what was written to it."""
    with suppress(OSError):
        stream.close()


def open_lock(name: str) -> TextIO:
    """Return the file that stands for a name's turns; raises `OSError`, `RuntimeError` without a home."""
    folder = data_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if exposed(folder.stat()):
        raise PermissionError  # whose owner could hold the lock for ever
    path = folder / f"{file_name(name)}.lock"
    return open(os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o600), "r+")


def lock_file(stream: TextIO, seconds: float) -> None:
    """Wait for the lock of a file, which closing it gives up; no longer than some seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            if sys.platform == "win32":
                import msvcrt

                stream.seek(1 << 20)  # beyond what others may read
                msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= end:
                return
        time.sleep(0.05)


def desktop_browser() -> list[str] | None:
    """Return `browser_command` for this machine."""
    container = os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")
    return browser_command(os.environ, sys.platform, container, which)


def start(command: Sequence[str]) -> Callable[[], bool]:
    """Start a program that goes on by itself; returns a function that tells whether it has failed."""
    import subprocess

    null, environ = subprocess.DEVNULL, without_secrets(os.environ)
    try:
        process = subprocess.Popen(  # noqa: S603  a full path, and an address of our own
            command, stdin=null, stdout=null, stderr=null, env=environ, start_new_session=True
        )
    except OSError:
        return lambda: True
    return lambda: bool(process.poll())


class Listener:
    """A port of this machine to which a browser brings the answer of a sign-in."""

    def __init__(self, state: str) -> None:
        import http.server
        import queue
        import socketserver

        self._answers: queue.Queue[dict[str, str]] = queue.Queue()
        self._shown = threading.Event()
        listener = self

        class Door(http.server.BaseHTTPRequestHandler):
            timeout = 10  # seconds without a byte

            def do_GET(self, form: str = "") -> None:
                listener.serve(self, *answer_browser(self.path, form, state))

            def do_POST(self) -> None:
                size = int(number(self.headers.get("Content-Length")) or 0)
                self.do_GET(self.rfile.read(min(max(size, 0), MAX_TOKEN)).decode("ascii", "replace"))

            def log_message(self, *_: object) -> None:
                """Nothing: the line would hold the code."""

        # No HTTPServer: that asks the DNS for a name, and on Windows lets others in at the same port.
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Door)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a browser left
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def serve(self, door: Any, status: int, text: str, answer: dict[str, str]) -> None:
        """Show a page, and pass on the answer that it is for."""
        body = f"<!doctype html><title>keyrings.artifacts</title><p>{text}</p>".encode()
        door.send_response(status)
        door.send_header("Content-Type", "text/html; charset=utf-8")
        door.send_header("Content-Length", str(len(body)))
        door.send_header("Cache-Control", "no-store")
        door.send_header("Referrer-Policy", "no-referrer")
        door.send_header("Connection", "close")
        if status == 303:
            self._shown.clear()
            door.send_header("Location", "/done" if "code" in answer else "/failed")
        if answer:  # before the page: a browser may leave without it
            self._answers.put(answer)
        door.end_headers()
        door.wfile.write(body)
        if status == 200:
            self._shown.set()

    def wait(self, seconds: float) -> dict[str, str] | None:
        """Return the answer that a browser brought within some seconds, or `None`."""
        import queue

        with suppress(queue.Empty):
            return self._answers.get(timeout=seconds)
        return None

    def finish(self) -> None:
        """Give the browser a moment to show the last page: the port is closed after."""
        self._shown.wait(2.0)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def programs(name: str) -> Iterator[str]:
    """Yield the full paths of all programs of a name on PATH, the first one first, links but once."""
    names = (f"{name}.cmd", f"{name}.exe") if os.name == "nt" and not os.path.splitext(name)[1] else (name,)
    seen = set()
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for path in (os.path.join(folder, each) for each in names):
            if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
                if os.path.realpath(path) not in seen:
                    yield path
                seen.add(os.path.realpath(path))


def which(program: str) -> str | None:
    """Return the full path of a program on PATH, or `None`; never one in the current folder."""
    for path in programs(program):
        with suppress(OSError):  # a current folder that is gone holds no program
            if os.path.samefile(os.path.dirname(path), os.curdir):
                continue
        return path
    return None


def python(program: str) -> tuple[str | None, bool]:
    """Return the Python that lies beside a program, links followed, and whether pip does, too.

    `None` where there is none, or it is the system's, which takes no packages.
    """
    folder = os.path.dirname(os.path.realpath(program))
    path, pip = (os.path.join(folder, name + ".exe" * (os.name == "nt")) for name in ("python", "pip"))
    own = folder != "/usr/bin" and os.path.exists(path)
    return (path if own else None), os.path.exists(pip)


# What no program that we start gets; az may need the secrets of the platforms' own endpoints.
SECRET_VARIABLES: Final = frozenset(
    {
        "ARTIFACTS_CREDENTIALPROVIDER_EXTERNAL_FEED_ENDPOINTS",
        "VSS_NUGET_EXTERNAL_FEED_ENDPOINTS",
        "AZURE_DEVOPS_EXT_PAT",
        "ARTIFACTS_CREDENTIALPROVIDER_ACCESSTOKEN",
        "VSS_NUGET_ACCESSTOKEN",
        "SYSTEM_ACCESSTOKEN",
        "AZURE_CLIENT_SECRET",
        "servicePrincipalKey",
        "AZURE_CLIENT_CERTIFICATE_PASSWORD",
        "idToken",
    }
)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for programs that have no use for our secrets."""
    return {name: value for name, value in environ.items() if name not in SECRET_VARIABLES}


def settings_files(program: str) -> list[tuple[str, str]]:
    """Return path and text of the files that keyring or uv takes its settings from, the strongest last.

    https://docs.astral.sh/uv/concepts/configuration-files; a folder's, or its parents', come last.
    """
    paths = [os.path.join(platform_.config_root(), "keyringrc.cfg")] if program == "keyring" else uv_files()
    found = []
    for path in paths:
        with suppress(OSError):
            found.append((path, read_file(path).decode("utf-8-sig", "replace")))
    return found


def uv_files() -> list[str]:
    """Return the files of uv's settings, there or not: everybody's, the user's, the nearest folder's."""
    environ = os.environ
    chosen = environ.get("UV_CONFIG_FILE")
    if chosen or is_on(environ, "UV_NO_CONFIG"):
        return [chosen] if chosen else []
    folders = ["/etc", environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")]
    if os.name == "nt":
        folders = [environ.get(each) or "." for each in ("ProgramData", "APPDATA")]
    found = [os.path.join(folder, "uv", "uv.toml") for folder in folders]
    with suppress(OSError):
        here = Path.cwd()
        for folder in (here, *here.parents):
            own, project = folder / "uv.toml", folder / "pyproject.toml"
            if own.is_file() or (project.is_file() and b"[tool.uv" in read_file(project)):
                return [*found, str(own if own.is_file() else project)]
    return found


def run(command: Sequence[str], seconds: float) -> Completed:
    """Run a program to its end: no shell, no standard input, nothing of ours on its output.

    Raises `TimeoutError` after it was ended (with all its children, but on Windows), `OSError` where it
    can't start.
    """
    import signal
    import subprocess

    windows = os.name == "nt"
    process = subprocess.Popen(  # noqa: S603  a full path, and arguments of our own
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=os.environ.get("SYSTEMROOT") if windows else "/",
        env={**without_secrets(os.environ), "AZURE_CORE_NO_COLOR": "true", "NO_COLOR": "1"},
        start_new_session=True,  # without effect on Windows
        creationflags=0x08000000 if windows else 0,  # no window
    )
    outputs = (bytearray(), bytearray())
    pipes = zip((process.stdout, process.stderr), outputs)
    readers = [threading.Thread(target=drain, args=pair, daemon=True) for pair in pipes]
    for reader in readers:
        reader.start()
    try:
        within(seconds, process.wait)  # whose own time-out looks 20 times a second
    except BaseException:
        with suppress(ProcessLookupError, PermissionError):  # it has ended just now, on macOS too
            process.kill() if windows else os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    for reader in readers:  # a child that goes on may hold a pipe open
        reader.join(1.0)
    return Completed(process.returncode, *(bytes(part).decode(errors="replace") for part in outputs))


def drain(pipe: IO[bytes], into: bytearray) -> None:
    """Read a pipe to its end, and keep as much of it as may be of use."""
    with pipe:
        while part := os.read(pipe.fileno(), MAX_BODY):
            into.extend(part[: MAX_BODY - len(into)])


def unreachable(request: Request, cause: object) -> NetworkError:
    """Return the error for a request that got no answer, by the class of its cause."""
    host = authority_of(request.url)
    check = f"that something listens at {host}" if request.direct else "the network and HTTPS_PROXY"
    return NetworkError(
        f"{host} could not be reached ({type(cause).__name__}): check {check}, then try again."
    )


def distrusted(request: Request, cause: object) -> NetworkError:
    """Return the error for a TLS connection that failed, be it for the host's certificate or not."""
    import ssl

    host = authority_of(request.url)
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLCertVerificationError):
        return unreachable(request, cause)  # garbage, or an end in the midst of it
    if request.pin:
        text = f"The certificate of {host} is not the one that IDENTITY_SERVER_THUMBPRINT names."
    elif re.search("not yet valid|has expired", str(cause)):
        text = f"The certificate of {host} is not valid at this time: check the clock of this machine."
    else:
        text = (
            f"The certificate of {host} is not trusted: if your company inspects traffic, name "
            "its CA file in SSL_CERT_FILE or REQUESTS_CA_BUNDLE, or install truststore."
        )
    return NetworkError(text, passing=False)


def send(request: Request, seconds: float) -> Response:
    """Send a request: verified TLS, the proxy of the environment or the system, no redirects.

    Raises `NetworkError`, which tells proxy, TLS and the rest apart, also after some seconds.
    """
    import urllib3.exceptions as errors

    host = authority_of(request.url)
    try:
        return within(seconds, _send, request)
    except ValueError:  # of an address or a header of the environment's
        raise NetworkError(f"{shown(host, 80)} cannot be asked: check address and header.", False) from None
    except errors.NewConnectionError as error:  # to urllib3 a kind of time-out
        raise unreachable(request, error) from None
    except errors.ProxyError as error:
        cause = error.args[-1]  # urllib3 takes a drop behind a proxy for the proxy's
        if not isinstance(cause, errors.HTTPError) and "Tunnel connection failed" not in str(cause):
            raise unreachable(request, cause) from None
        raise NetworkError(
            f"The proxy did not let us through to {host}: check HTTPS_PROXY, with user name and "
            "password where it wants them, and NO_PROXY.",
            passing=not re.search(r"failed: (?!429)[1-4]\d\d", str(cause)),  # else it might lock the account
        ) from None
    except errors.SSLError as error:
        _trust.cache_clear()  # it may be mended before the next call
        raise distrusted(request, error.args[0]) from None
    except (TimeoutError, errors.TimeoutError) as error:
        if request.direct and isinstance(error, errors.ConnectTimeoutError):  # a platform that is not there
            raise NetworkError(str(unreachable(request, error)), passing=False) from None
        raise NetworkError(
            f"{host} did not answer within {seconds:.0f} seconds: check the network and "
            "HTTPS_PROXY, then try again."
        ) from None
    except (errors.HTTPError, OSError) as error:
        raise unreachable(request, error) from None


def _send(request: Request) -> Response:
    import urllib3

    answer = _pool(request).request(
        request.method,
        request.url,
        body=request.body,
        headers=dict(request.headers),
        retries=False,
        redirect=False,
        preload_content=False,
        enforce_content_length=True,  # urllib3 1.26 does not by itself
        timeout=urllib3.Timeout(connect=1.0 if request.direct else TRY_SECONDS, read=TRY_SECONDS),
    )
    headers = tuple((name.lower(), value) for name, value in answer.headers.items())
    body = b""
    try:
        if not headers and answer.status != 204:  # cut off, or no HTTP at all
            raise ConnectionError
        limit = request.body_limit or (MAX_BODY if request.why and answer.status in (401, 403) else 0)
        for part in answer.stream(decode_content=False) if limit else ():
            body += part
            if len(body) > limit and request.why:  # no reason is that long
                break
            if len(body) > limit:
                raise NetworkError(TOO_LONG.format(authority_of(request.url)), passing=False)
        framed = {"content-length", "transfer-encoding"} & dict(headers).keys()  # else cut off, if empty
        if limit and not body and answer.status == 200 and request.method != "DELETE" and not framed:
            raise ConnectionError
    finally:
        answer.close()
    return Response(answer.status, headers, body)


def _pool(request: Request) -> Any:
    """Return a pool of connections for a request, through the proxy that stands for its host."""
    import urllib3

    host = urlsplit(request.url).netloc
    if request.pin:
        return urllib3.PoolManager(cert_reqs="CERT_NONE", assert_fingerprint=request.pin)
    trust = _trust(*map(os.environ.get, _TRUSTED)) if request.url.startswith("https:") else None
    proxy = "" if request.direct else proxy_for(host)
    if not proxy:
        return urllib3.PoolManager(ssl_context=trust)
    try:
        parts = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
        auth = parts.auth and (parts.auth if ":" in parts.auth else f"{parts.auth}:")
        pair = base64.b64encode(unquote(auth or "").encode()).decode()
        return urllib3.ProxyManager(
            parts._replace(auth=None).url,
            proxy_headers={"Proxy-Authorization": f"Basic {pair}"} if pair else None,
            ssl_context=trust,
            proxy_ssl_context=trust,
            # Behind a proxy urllib3 leaves Nagle's algorithm on: a body waits 40 ms for its headers' ACK.
            socket_options=urllib3.connection.HTTPConnection.default_socket_options,
        )
    except urllib3.exceptions.ProxySchemeUnknown:
        text = (
            f"is of a kind that does not work here ({shown(parts.scheme, 20)}): set {proxy_name(proxy)} to "
            "an http:// or https:// proxy."
        )
    except ValueError:
        text = (
            f"has no address that can be read: mend {proxy_name(proxy)}, with the special characters of a "
            "password as %23 and the like."
        )
    raise NetworkError(f"The proxy for {host} {text}", passing=False)


def proxy_for(host: str) -> str:
    """Return the address of the environment's or the system's proxy for a host, `""` for none."""
    import urllib.request

    proxies = urllib.request.getproxies()
    proxy = proxies.get("https") or proxies.get("all") or ""
    local = re.match(LOCAL, f"http://{host}")
    return "" if not proxy or local or urllib.request.proxy_bypass(host) else proxy


def proxy_name(proxy: str) -> str:
    """Return what names a proxy."""
    names = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    return next((name for name in names if os.environ.get(name) == proxy), "the system's settings")


def route(host: str) -> tuple[str, str, bool]:
    """Return how a host is reached, for display.

    The proxy's host and port, `""` for none; what names it; whether the system checks certificates.
    """
    import importlib.util

    proxy = proxy_for(host)
    authority = proxy.rpartition("@")[2].rpartition("://")[2].partition("/")[0]
    return shown(authority, 80), proxy_name(proxy), importlib.util.find_spec("truststore") is not None


_TRUSTED: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")


@lru_cache(maxsize=1)  # reading a system's store takes longer than all else that a request does here
def _trust(file: str | None, folder: str | None, *more: str | None) -> Any:
    """Return the TLS context: the system's store, and what the values of _TRUSTED add."""
    import ssl

    for name, path in zip(_TRUSTED, (file, folder)):
        if path and not any(map(os.path.exists, path.split(os.pathsep))):
            text = f"{name} names {shown(path)}, which does not exist: mend or unset {name}."
            raise NetworkError(text, passing=False)
    try:
        import truststore
    except ImportError:
        context = ssl.create_default_context()
    else:
        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for path in dict.fromkeys(more):
        if path and path != file:
            place = {"capath" if os.path.isdir(path) else "cafile": path}
            try:
                context.load_verify_locations(**place)
            except OSError:
                raise NetworkError(
                    f"The CA file {shown(path)} cannot be used: mend REQUESTS_CA_BUNDLE, "
                    "CURL_CA_BUNDLE or PIP_CERT.",
                    passing=False,
                ) from None
    return context


# Of what may come into a record in spite of all care: user info, headers, forms and JSON, and any long
# run of letters and digits, as JWTs, PATs and Entra's codes are.
_SECRETS: Final = (
    r"(?<=://)[^/\s@]*(?=@)",
    r"(?i)(?<=\bbearer )\S+|(?<=\bbasic )[\w+/=-]{8,}",
    r"(?i)(?<=[\w\"']=)[^\s&\"']+|(?<=\w\": \")[^\"]+|(?<=\w\":\")[^\"]+",
    r"(?=[\w~+.=-]*\d)[\w~+.=-]{40,}",
)


def redact(text: str) -> str:
    """Return a text without anything that looks like a secret."""
    for pattern in _SECRETS:
        text = re.sub(pattern, "***", text)
    return text


def redaction(record: logging.LogRecord) -> bool:
    """Take all that looks like a secret out of a record, its traceback included; always True."""
    record.msg = redact(logging.Formatter().format(record))
    record.args, record.exc_info, record.exc_text, record.stack_info = (), None, None, None
    return True


def set_up_log(environ: Mapping[str, str]) -> None:
    """Send our records where the environment wants them; a person is told where that can't be.

    Only our own logger is touched, once, and from then on its records go nowhere else.
    """
    log.addFilter(redaction)
    level = environ.get("KEYRINGS_ARTIFACTS_LOGLEVEL", "").strip().upper()
    path = environ.get("KEYRINGS_ARTIFACTS_LOGFILE", "").strip()
    if log.handlers or not (level or path):
        return
    handler: logging.Handler = logging.NullHandler()
    try:
        log.setLevel(level or logging.DEBUG)
        handler = logging.StreamHandler(open_log(path) if path else sys.stderr)
    except ValueError:
        notify("KEYRINGS_ARTIFACTS_LOGLEVEL must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL.")
    except OSError as error:
        why = shown(error.strerror or error)
        notify(f"KEYRINGS_ARTIFACTS_LOGFILE ({shown(path)}) cannot be written ({why}): nothing is logged.")
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is no matter
    log.addHandler(handler)
    log.propagate = False


def open_log(path: str) -> TextIO:
    """Return a file to log to, readable by its owner alone; raises `OSError` where it is no such file."""
    import errno
    import stat

    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINK | _NO_WAIT
    stream = open(os.open(path, flags, 0o600), "a", encoding="utf-8", errors="replace")  # noqa: SIM115  for the process
    if os.name != "nt":
        status = os.fstat(stream.fileno())
        if exposed(status) or not stat.S_ISREG(status.st_mode):
            stream.close()
            raise PermissionError(errno.EPERM, "not a file of yours")
        os.fchmod(stream.fileno(), 0o600)
    return stream


def said_of(error: Exception) -> str:
    """Return what to tell a person of an error, one of our own or one that nobody has foreseen."""
    if isinstance(error, ArtifactsError):
        return str(error)
    log.debug("unexpected", exc_info=error)
    if isinstance(error, ModuleNotFoundError) and error.name == "urllib3":  # the file, copied alone
        return f"urllib3 is missing: run '{sys.executable} -m pip install urllib3'."
    return f"an error of its own ({type(error).__name__}): please report it, with this output."


def interrupted() -> None:
    """End the program `keyring` as a shell would say it, without a traceback; no other program."""
    started = Path(*sys.argv[:1])
    if "keyring" in (started.stem, started.parent.name):
        raise SystemExit(130) from None


# --- doctor -----------------------------------------------------------------------------------

if TYPE_CHECKING:
    Finding = tuple[str, str, str, str]  # topic; "ok", "note" or "wrong"; text; what mends it
    # Keyring provider, what sets it, and addresses: each with whether keyring is asked for it.
    Client = tuple[str, str, list[tuple[str, bool]]]

OURS: Final = "keyrings_artifacts.ArtifactsKeyringBackend"
PROBE_SECONDS: Final = 15.0
SKEW: Final = 5 * MINUTE  # Entra's tolerance, and that of most
KEPT: Final = "the session kept"
FEED_FORM: Final = "https://pkgs.dev.azure.com/ORGANIZATION/_packaging/FEED/pypi/simple/"
INSTALL: Final = "uv tool install --force keyring --with-executables-from keyrings.artifacts"

# Where each function of GIVEN finds its credential.
GIVEN_BY: Final = {
    "from_endpoints": (
        "ARTIFACTS_CREDENTIALPROVIDER_EXTERNAL_FEED_ENDPOINTS",
        "VSS_NUGET_EXTERNAL_FEED_ENDPOINTS",
    ),
    "from_pat": ("AZURE_DEVOPS_EXT_PAT",),
    "from_pat_file": ("AZURE_DEVOPS_EXT_PAT_FILE", SECRET_FILE),
    "from_prefixes": ("ARTIFACTS_CREDENTIALPROVIDER_ACCESSTOKEN", "VSS_NUGET_ACCESSTOKEN"),
    "from_pipeline": ("SYSTEM_ACCESSTOKEN",),
}

# Why a source that was asked has nothing to say.
ABSENT: Final = {
    "service_principal": "AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or _CERTIFICATE_PATH are not set",
    "workload_identity": "AZURE_CLIENT_ID and an issuer (token file, GitHub, Pipelines) are not set",
    "feed_endpoint": "ARTIFACTS_CREDENTIALPROVIDER_FEED_ENDPOINTS has no entry for this feed",
    "managed_identity": "nothing says that Azure gives this machine an identity",
    "codespaces": "this is no Codespace: ~/ado-auth-helper is not there",
    "azure_cli": "az is not on PATH",
    "azure_developer_cli": "azd is not on PATH",
    "azure_powershell": "pwsh is not on PATH, or has no module Az.Accounts",
    "refresh_token": "no earlier sign-in is kept",
    "browser": "no browser can open a window here",
    "device_code": "there is no terminal",
}

# The keyring providers by which pip and uv ask, and what else each needs.
ASKED_BY: Final = {
    "subprocess": "uv, pixi, and pip before 26.2 ask only where the URL has a user name, as VssSessionToken@",
    "import": "this backend has to be installed beside pip",
}


def mend_in(sentence: str) -> str:
    """Return the command that a sentence of ours wants run, or else what it wants done."""
    match = re.search(r"\b[Rr]un '(.+?)'(?: |\.|,|;|$)", sentence)
    return match[1] if match else sentence.rpartition(": ")[2].rstrip(".")


def trouble(topic: str, error: Exception) -> Finding:
    """Return the finding for what kept something from being looked at."""
    text = said_of(error)
    return topic, "wrong", text, mend_in(text)


def guarded(topic: str, check: Callable[..., Iterable[Finding]], *arguments: Any) -> Iterator[Finding]:
    """Yield what a check finds; one that fails does not take the others with it."""
    try:
        yield from check(*arguments)
    except Exception as error:  # whatever it is, the rest is worth knowing
        yield trouble(topic, error)


def pip_settings(world: World) -> Client:
    """Return what pip is told, in its own words; without a pip that answers, what its variables say."""
    pip = world.which("pip") or world.which("pip3")
    with suppress(OSError):
        command = [pip] if pip else [sys.executable, "-m", "pip"]
        done = world.run([*command, "config", "list"], PROBE_SECONDS)
        if not done.returncode:
            listing = done.stdout  # in the order of the files' names, not of their strength
            names = re.findall(r"(?m)^((?:global|install)\.[\w-]+)=", listing)
            for name in {name for name in names if names.count(name) > 1}:
                value = world.run([*command, "config", "get", name], PROBE_SECONDS).stdout.strip()
                listing += f"\n{name}={value!r}"
            return read_pip(listing)
        if pip:
            raise ArtifactsError("pip cannot read its settings: run 'pip config list' to see why.")
    variables = {name: value for name, value in world.environ.items() if name.startswith("PIP_")}
    lines = (f":env:.{name[4:].lower().replace('_', '-')}={value!r}" for name, value in variables.items())
    return read_pip("\n".join(lines))


def read_pip(listing: str) -> Client:
    """Return what `pip config list` says; without a provider, its second is what keeps pip from asking."""
    import ast

    options: dict[str, tuple[str, str]] = {}  # value, and what sets it
    for section in ("global", "install", ":env:"):  # the strongest last
        for option, value in re.findall(rf"(?m)^{section}\.([\w-]+)=(.+?)\r?$", listing):
            by = f"PIP_{option.upper().replace('-', '_')}" if section == ":env:" else f"{section}.{option}"
            options[option] = (str(ast.literal_eval(value)), by)
    values = {name: value for name, (value, _) in options.items()}
    urls = f"{values.get('index-url', '')} {values.get('extra-index-url', '')}".split()
    provider, by = values.get("keyring-provider", "").strip().lower(), ""
    if provider not in ("", "auto"):
        by = options["keyring-provider"][1]
        if values.get("config-file") and "." in by:  # then `pip config set` writes nowhere
            by += "; PIP_CONFIG_FILE is set"
    elif is_on(values, "no-input"):
        by = options["no-input"][1]
    return provider.replace("auto", ""), by, [(url, True) for url in urls]


def uv_settings(world: World) -> Client:
    """Return what uv is told by its variables and, where Python reads TOML (3.11), by its files."""
    files: list[tuple[str, dict[str, Any]]] = []
    if sys.version_info >= (3, 11):
        import tomllib

        for path, text in world.settings("uv"):
            try:
                files.append((path, tomllib.loads(text)))
            except ValueError:
                raise ArtifactsError(f"uv cannot read {shown(path)}: mend that file.") from None
    try:
        return read_uv(world.environ, files)
    except (AttributeError, KeyError, TypeError):
        raise ArtifactsError("uv's settings are not of the form that uv reads: mend its files.") from None


def read_uv(environ: Mapping[str, str], files: Iterable[tuple[str, dict[str, Any]]]) -> Client:
    """Return what uv is told by variables and files (path and tables, the strongest last)."""
    provider, by = "", ""
    found: list[dict[str, Any]] = []  # each as a table of `index`
    for path, table in files:
        if path.endswith("pyproject.toml"):
            table = table["tool"]["uv"]
        for each in (table, table.get("pip", {})):  # the second is for `uv pip` alone
            if "keyring-provider" in each:
                provider, by = each["keyring-provider"], path
            found += [{"url": url} for url in (each.get("index-url", ""), *each.get("extra-index-url", []))]
        found += table.get("index", [])
    names = ("UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
    words = " ".join(environ.get(name, "") for name in names)
    named = re.findall(r"(?:(?<!\S)([\w.-]+)=)?(\S+)", words)
    found += [{"name": name, "url": url} for name, url in named]
    if environ.get("UV_KEYRING_PROVIDER"):
        provider, by = environ["UV_KEYRING_PROVIDER"], "UV_KEYRING_PROVIDER"
    return provider.strip().lower(), by, [(each["url"], uv_asks(each, environ)) for each in found]


def uv_asks(index: Mapping[str, Any], environ: Mapping[str, str]) -> bool:
    """Whether uv asks keyring for an index: where it has a user name or always, as `authenticate` says."""
    name = re.sub("[^A-Z0-9]", "_", index.get("name", "").upper())
    user = "@" in index["url"].partition("://")[2].partition("/")[0]
    named = user or environ.get(f"UV_INDEX_{name}_USERNAME")
    policy = index.get("authenticate", "")
    return policy == "always" or bool(named and policy != "never")


def judge_client(name: str, provider: str, by: str, ours: Sequence[tuple[str, bool]]) -> Finding:
    """Return whether pip or uv (`name`) asks keyring for the feeds among its addresses, `ours`.

    https://pip.pypa.io/en/stable/topics/authentication/#keyring-support and
    https://docs.astral.sh/uv/reference/settings/#keyring-provider
    """
    mend = f"set {name.upper()}_KEYRING_PROVIDER to subprocess"
    if provider in ASKED_BY:
        silent = [url for url, asks in ours if not asks]
        if silent:
            text = f"{shown(comparable(silent[0]))} has no user name: uv (and pixi) ask keyring only for one"
            url = comparable(silent[0]).replace("://", f"://{DEFAULT_USERNAME}@", 1)
            mend = f'write {shown(url, 600)} in uv\'s URL, or authenticate = "always" in its index'
            return name, "wrong", text, mend
        return name, "ok", f"provider {provider} ({shown(by)}); {ASKED_BY[provider]}", ""
    if name == "pip" and not by:
        text = "no keyring provider is set: pip asks a keyring on PATH, but not with --no-input"
        return name, "note", text, mend
    said = f"'{shown(provider, 40)}' ({shown(by)})" if provider else "not set" + (by and f" and {by} is")
    mend = f"pip config set {by} subprocess" if by.endswith(".keyring-provider") else mend
    text = f"the keyring provider is {said}: {name} never asks keyring"
    return name, "wrong" if provider or ours else "note", text, mend


def read_pin(world: World) -> tuple[str, str]:
    """Return the backend that keyring is configured to use alone, and what says so, else two `""`.

    https://keyring.readthedocs.io/en/latest/#configuring; raises for a file that keyring cannot read.
    """
    import configparser

    if "PYTHON_KEYRING_BACKEND" in world.environ:
        return world.environ["PYTHON_KEYRING_BACKEND"], "PYTHON_KEYRING_BACKEND"
    for path, text in world.settings("keyring"):
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(text)
        except configparser.Error:
            raise ArtifactsError(f"keyring cannot read that file: mend or delete {shown(path)}.") from None
        if parser.has_option("backend", "default-keyring"):
            return parser.get("backend", "default-keyring").strip(), path
    return "", ""


def lack(program: str, pin: str, world: World) -> str:
    """Return what a `keyring` program lacks, `""` for nothing."""
    try:
        done = world.run([program, "--list-backends"], PROBE_SECONDS)
        if OURS not in done.stdout and pin == OURS:
            # One that is named need not be listed: a question that is not ours tells.
            done = world.run([program, "get", "keyrings.artifacts", "doctor"], PROBE_SECONDS)
            return "cannot load this backend" if "Traceback" in done.stderr else ""
    except TimeoutError:
        return f"does not answer within {PROBE_SECONDS:.0f} seconds"
    except OSError as error:
        return f"does not start ({shown(error.strerror)})"
    if OURS in done.stdout:
        return ""
    return "fails when asked for its backends" if done.returncode else "does not have this backend"


def install_beside(python: str | None, pip: bool) -> str:
    """Return the command that puts this backend beside a `keyring` program.

    `python` is that of its environment, `pip` whether there is one in it.
    """
    if not python or re.search(r"[/\\]uv[/\\]tools[/\\]", python):
        return INSTALL
    if re.search(r"[/\\]pipx[/\\]venvs[/\\]", python):
        return "pipx inject --include-apps keyring keyrings.artifacts"
    python = f'"{python}"' if " " in python else python
    ways = (f"uv pip install --python {python}", f"{python} -m pip install")
    return f"{ways[pip]} keyrings.artifacts"


def examine_keyring(needed: bool, world: World) -> Iterator[Finding]:
    """Yield what there is to say of keyring: settings, programs (`needed` by pip or uv), and the store."""
    pin, by = read_pin(world)
    if by and pin not in (OURS, "keyring.backends.chainer.ChainerBackend"):
        mend = f"unset {by}" if by.startswith("PYTHON_") else f"delete default-keyring from {by}"
        text = f"{by} names {shown(pin) or 'nothing'}: keyring asks that alone, and never this backend"
        yield "keyring settings", "wrong", text, mend
    elif by:
        yield "keyring settings", "ok", f"{by} names {pin}", ""
    programs = list(world.programs("keyring"))
    if not programs:
        text = "none is on PATH: pip (subprocess), uv and pixi need one; twine and poetry do not"
        yield "keyring", "wrong" if needed else "note", text, INSTALL
    for place, path in enumerate(programs):
        lacks = lack(path, pin, world)
        text = f"{shown(path)}: {lacks or 'has this backend'}"
        if lacks and place == 0:
            text, mend = f"{text}; it is the first on PATH", install_beside(*world.python(path))
            yield "keyring", "wrong", text, mend
        else:
            yield "keyring", "note" if lacks else "ok", text, ""
    kept = "".join(world.store.labels()[:1])
    yield "store", "ok" if kept else "note", kept or "none: nothing lasts beyond one command", ""


def judge_clock(date: str, now: float) -> Iterator[Finding]:
    """Yield how far this machine's clock (an epoch) is from a `Date` header, nothing without one."""
    told = parse_http_date(date)
    if told is not None and abs(now - told) <= SKEW:
        yield "clock", "ok", "agrees with the feed's", ""
    elif told is not None:
        way = "ahead of" if now > told else "behind"
        text = f"{span(round(now - told, -1))} {way} the feed's"
        yield "clock", "wrong", text, "set the clock of this machine"


def judge_trust(environ: Mapping[str, str], truststore: bool) -> Finding:
    """Return whose certificates are trusted."""
    named = [f"{name} ({shown(environ[name])})" for name in _TRUSTED if environ.get(name)]
    system = "the system's certificates" if truststore else "OpenSSL's certificates"
    return "trust", "ok", ", ".join([system, *named]), ""


def span(seconds: float) -> str:
    """Return a length of time for a person to read: days, and hours:minutes:seconds."""
    return str(datetime.timedelta(seconds=int(abs(seconds))))


def describe(session: Session, now: float) -> str:
    """Return a session in words: kind, account, scope, time left; no secret."""
    kinds = {"pat": "PAT", "set": "PAT of your own", "entra": "Entra token"}
    left = "no end known"
    if session.expires is not None:
        left = f"expired {span(now - session.expires)} ago"
        if session.expires > now:
            left = f"{span(session.expires - now)} left"
    kind = kinds.get(session.kind, "session token")
    scope = session.scope or ("all that the account may do" if session.kind == "entra" else "not known")
    return f"{kind}, account {session.account or 'not known'}, scope {scope}, {left}"


def sign_in_command(feed: Feed) -> str:
    """Return the command by which a person in a terminal signs in."""
    import shlex

    return f"keyring --mode creds get {shlex.quote(feed.url)}"


def judge_answer(feed: Feed, response: Response, origin: str, account: str) -> Finding:
    """Return what a feed's answer to a credential means; `origin` is what gave that."""
    who, status = account or "the account", response.status
    text, mend = "the service is out of order", "try again in a few minutes"
    if is_sign_in(response):
        text = f"refuses the credential ({origin}): it has expired, was revoked, lacks the scope Packaging, "
        text += f"or is of another organization than '{feed.organization}'"
        page = f"https://dev.azure.com/{quote(feed.organization)}/_usersSettings/tokens"
        mend = f"make a token with the scope Packaging at {page} for {origin}, or unset {origin}"
        if origin == KEPT:
            mend = f"keyring del {feed.url} {DEFAULT_USERNAME}"
        elif origin in ABSENT:
            mend = f"check the name '{feed.organization}' in the URL, "
            mend += "or ask the organization's administrator to let the account in"
    elif status < 400 or status == 405:  # an address for uploads
        return "feed", "ok", f"accepts the credential ({origin})", ""
    elif status == 403:
        text = f"{who} has no permission for this feed ({origin}), or the token lacks the scope Packaging"
        role = "a contributor" if feed.takes_uploads else "a reader"
        mend = f"ask an owner of the feed to make {who} {role} (Feed settings, Permissions)"
        if not response.lines("x-vss-e2eid"):
            text += "; or a firewall or a proxy is in the way"
            mend = f"look for a firewall or a proxy in the way to {feed.host}, or {mend}"
    elif status == 404:
        text = f"no organization '{feed.organization}', no such feed in it, or {who} may not see it"
        mend = "check the names of organization, project and feed in the URL, and the feed's permissions"
    return "feed", "wrong", f"{status}: {text}", mend


def judge_failure(error: ArtifactsError, mend: str, challenge: Challenge, world: World) -> Finding:
    """Return the finding for a look-up that failed; `mend` is that of a source that did."""
    if not isinstance(error, NoCredential):
        return trouble("sign-in", error)
    text = f"no source has a token that organization '{challenge.feed.organization}' accepts"
    silent = silence(challenge, world.environ)
    if silent:
        text, last = f"{text}, and nobody can be asked: {silent}", "set AZURE_DEVOPS_EXT_PAT to a token"
    else:
        text = f"{text}: sign in by keyring in a terminal, or by '{az_login(challenge.tenant)}'"
        last = sign_in_command(challenge.feed)
    return "sign-in", "wrong", text, mend or last


def judge_sources(
    challenge: Challenge, outcomes: Mapping[str, object], origin: str, world: World
) -> Iterator[Finding]:
    """Yield what came of each source; `origin` is what gave the credential, `""` for nothing."""
    chosen, silent = chosen_sources(world.environ), silence(challenge, world.environ)
    people = {"browser": world.browser, "device_code": world.terminal}
    for source in SOURCES:
        name = source.__name__
        outcome = outcomes.get(name)
        state, text, mend = "note", ABSENT[name], ""
        if source not in chosen:
            text = "left out by KEYRINGS_ARTIFACTS_SOURCES"
        elif name == origin:
            state, text = "ok", "gave the credential"
        elif name not in outcomes:
            text = f"not needed: {origin}" if origin else "not asked"
        elif isinstance(outcome, ArtifactsError):
            text = str(outcome).replace(f"{name}: ", "", 1)
            if not origin:
                state = "wrong"
                mend = sign_in_command(challenge.feed) if source is refresh_token else mend_in(text)
        elif outcome is not None:
            text = "gave a token"
        elif name in people and (silent or people[name]()):
            text = silent or "possible, but the doctor asks nobody"
        yield name, state, text, mend


def judge_look_up(
    error: ArtifactsError,
    outcomes: Mapping[str, object],
    before: Session | None,
    challenge: Challenge,
    world: World,
) -> Iterator[Finding]:
    """Yield the findings for a look-up that failed; `before` is the session that was kept then."""
    try:
        with suppress(PublicFeed):
            if not challenge.feed.server:
                challenge.discover()
    except ArtifactsError as known:  # then no source matters, not even one that failed before
        error, outcomes = known, {}
    sources = list(judge_sources(challenge, outcomes, "", world))
    yield from sources
    mend = next((mend for *_, mend in sources if mend), "")
    problem = judge_failure(error, mend, challenge, world)
    if before:
        lasts = before.expires is None or before.expires > world.now() + SKEW
        what = "is refused" if lasts and isinstance(error, NoCredential) else "cannot be used"
        text = f"{describe(before, world.now())}: it {what}, and nothing renewed it"
        yield "session", "wrong", text, problem[-1]
    yield problem


def look_up(challenge: Challenge, world: World) -> Iterator[Finding]:
    """Yield what a look-up comes to that may ask nobody, and what the feed says to its answer."""
    feed = challenge.feed
    outcomes: dict[str, object] = {}
    quiet = World(**vars(world))
    quiet.attempted, quiet.browser, quiet.terminal = outcomes.__setitem__, lambda: None, lambda: False
    quiet.lock = lambda name, seconds, shared: world.lock(name, min(seconds, 5.0), shared)
    world.patience.renew()
    before = read_session(world.store.read(entry(feed, world)))
    try:
        answer = credential_for(feed, feed.url, None, quiet)
    except ArtifactsError as error:
        yield from judge_look_up(error, outcomes, before, challenge, world)
        return
    last = next(reversed(outcomes), KEPT)
    names = GIVEN_BY.get(last, (last,)) if answer else ("the feed is public",)
    origin = first_set(world.environ, *names)[0] or names[-1]
    yield from judge_sources(challenge, outcomes, origin, world)
    if answer is None:
        yield "feed", "ok", "is public: anybody may read it", ""
    else:
        yield from ask(feed, answer, origin, world)


def ask(feed: Feed, answer: SimpleCredential, origin: str, world: World) -> Iterator[Finding]:
    """Yield what there is to say of the session in use, and what the feed says to the credential."""
    session = read_session(world.store.read(entry(feed, world)))
    used = session if session and session.token == answer.password else None
    came = "kept earlier" if origin == KEPT else f"from {origin}"
    told = f"{describe(used, world.now())}, {came}" if used else f"none is used, but {origin}"
    yield "session", "ok" if used else "note", told, ""
    world.patience.renew()
    response = fetch(check_request(feed, answer.password), world)
    yield judge_answer(feed, response, origin, used.account if used else "")


def examine(feed: Feed, world: World) -> Iterator[Finding]:
    """Yield what there is to say about one feed, from the way to it up to its own word."""
    world.patience.renew()
    yield "address", "ok", f"{feed.url} is of organization '{feed.organization}'", ""
    proxy, by, truststore = world.route(feed.host)
    yield "proxy", "ok", f"{proxy} ({by})" if proxy else "none", ""
    yield judge_trust(world.environ, truststore)
    try:
        response = fetch(headers_only(feed.url), world)
    except NetworkError as error:
        session = read_session(world.store.read(entry(feed, world)))
        yield "session", "note", describe(session, world.now()) if session else "none is kept", ""
        topic, state, text, mend = trouble("feed", error)
        if proxy and error.passing and " answered " not in text:
            mend = f"change or unset the proxy ({by} names {proxy}), or add {feed.host} to NO_PROXY"
        yield topic, state, text, mend
        return
    yield from judge_clock("".join(response.lines("date")[:1]), world.now())
    yield from guarded("sign-in", look_up, Challenge(feed, lambda: read_challenge(feed, response)), world)


def diagnose(asked: str | None, world: World) -> Iterator[Finding]:
    """Yield all findings, about the feed asked for or those that pip's and uv's settings name."""
    servers = parse_servers(world.environ)
    yield "version", "ok", f"{__version__}, Python {sys.version.split()[0]}", ""
    urls = [] if asked is None else [asked]
    providers, judged = [], []
    for name, read in (("pip", pip_settings), ("uv", uv_settings)):
        try:
            provider, by, indexes = read(world)
        except Exception as error:  # the rest is worth knowing
            yield trouble(f"{name} settings", error)
            continue
        providers.append(provider)
        urls += [url for url, _ in indexes if asked is None]
        ours = [each for each in indexes if parse_feed(each[0], servers)]
        if name == "uv" and provider == "subprocess" and asked and not ours:  # then uv may be given that one
            ours = [(url, uv_asks({"url": url}, {})) for url in urls if parse_feed(url, servers)]
        judged.append(judge_client(name, provider, by, ours))
    if sys.version_info < (3, 11):
        yield "uv settings", "note", "only its variables: this Python (before 3.11) reads no TOML", ""
    yield from guarded("keyring settings", examine_keyring, "subprocess" in providers, world)
    yield from judged
    feeds = {feed.url: feed for feed in (parse_feed(url, servers) for url in urls) if feed}
    if asked is not None and not feeds:
        text = "this is no address of an Azure Artifacts feed (https, its host, an organization)"
        yield "address", "wrong", text, f"ask about {FEED_FORM}"
    for feed in feeds.values():
        yield from guarded("feed", examine, feed, world)


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings for a machine to read.

    `next` is the one thing to do: the first mend, or what there is to say where all is well.
    """
    mends = [mend for _, state, _, mend in findings if state == "wrong"]
    healthy = [f"Nothing to do: the feed {text}." for topic, _, text, _ in findings if topic == "feed"]
    return {
        "version": __version__,
        "ok": not mends,
        "next": [*mends, *healthy, f"To ask about a feed: keyrings-artifacts {FEED_FORM}"][0],
        "findings": [dict(zip(("topic", "state", "text", "mend"), finding)) for finding in findings],
    }


def render(findings: Sequence[Finding], colour: bool) -> str:
    """Return the findings for a person to read, with the one thing to do next as the last line."""
    marks = {"ok": ("ok", "32"), "note": ("-", "2"), "wrong": ("WRONG", "1;31")}
    lines = []
    for topic, state, text, mend in findings:
        mark, code = marks[state]
        mark = f"\033[{code}m{mark:5}\033[0m" if colour else f"{mark:5}"
        lines.append(f"{mark}  {topic:19}  {shown(text, 600)}")
        lines += [f"{'':26}  mend: {shown(mend, 600)}"] if mend else []
    told = report(findings)
    last = ("" if told["ok"] else "Next: ") + shown(told["next"], 600)
    return "\n".join([*lines, "", last, ""])


def put(findings: Sequence[Finding], machine: bool) -> None:
    """Print the findings; a standard output that is closed, or of another alphabet, is no matter."""
    broken = (OSError, ValueError, AttributeError)
    with suppress(*broken):
        stream: Any = sys.stdout
        plain = "dumb" if os.name == "nt" else ""  # a console of Windows need not know colour
        dull = os.environ.get("NO_COLOR") or os.environ.get("TERM", plain) == "dumb"
        colour = stream.isatty() and not dull
        stream.reconfigure(errors="backslashreplace")
        told = json.dumps(report(findings), indent=2) + "\n" if machine else render(findings, colour)
        stream.write(told)
        stream.flush()
        return
    with suppress(*broken):  # else Python tries, and complains, at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the doctor on the command line, and return its exit status: 0 where the feed accepts."""
    import argparse

    about = "Find out why a feed of Azure Artifacts does not open."
    parser = argparse.ArgumentParser(prog="keyrings-artifacts", description=about)
    told = "the address of a feed; without, those that the settings of pip and uv name"
    parser.add_argument("url", nargs="?", metavar="URL", help=told)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--version", action="version", version=__version__)
    arguments = parser.parse_args(argv)
    set_up_log(os.environ)
    notices: list[str] = []
    world = real_world()
    world.notify, world.store = notices.append, Store(notices.append, world.patience)
    try:
        findings = list(diagnose(arguments.url, world))
    except KeyboardInterrupt:
        return 130
    findings[1:1] = [("notice", "note", text, "") for text in notices]
    put(findings, arguments.json)
    return 0 if report(findings)["ok"] else 1


# keyring loads this file by its name: under another, its class would be another keyring to it.
if __name__ == "__main__":
    from keyrings_artifacts import main as run_main

    raise SystemExit(run_main())


# --- backend ----------------------------------------------------------------------------------


def recognized(service: object) -> Feed | None:
    """Return the feed that a caller means, `None` for other services, of which nothing is logged."""
    feed = parse_feed(str(service), parse_servers(os.environ))
    if feed is not None:
        set_up_log(os.environ)
    return feed


def next_keyrings() -> list[KeyringBackend]:
    """Return the keyrings to ask for other services, the best first, where keyring asks none but ours.

    That is so when ours is pinned, or the only one; else keyring's chainer asks the others.
    """
    from keyring import get_keyring
    from keyring.backends.chainer import ChainerBackend

    if not isinstance(get_keyring(), ArtifactsKeyringBackend):
        return []
    return [each for each in ChainerBackend.backends if not isinstance(each, ArtifactsKeyringBackend)]


def read_elsewhere(read: Callable[[KeyringBackend], T | None]) -> T | None:
    """Return the first answer of the next keyrings, `None` for none."""
    return next((answer for answer in map(read, next_keyrings()) if answer is not None), None)


def write_elsewhere(write: Callable[[KeyringBackend], None]) -> None:
    """Let the first of the next keyrings that can do so write; raises `NotOurs` where none does."""
    for each in next_keyrings():
        with suppress(NotImplementedError):
            write(each)
            return
    raise NotOurs("keyrings.artifacts keeps credentials of Azure Artifacts feeds only.")


class ArtifactsKeyringBackend(KeyringBackend):
    """Answers keyring for Azure Artifacts feeds, and for nothing else."""

    # Above the 9.9 of its four peers, whose ties keyring breaks at random; below the chainer's 10,
    # at which every other keyring would go dead.
    priority = 9.95

    def get_password(self, service: str, username: str | None) -> str | None:
        """Return a feed's password for any user name, `None` for none. Never raises for a feed.

        Other services are the next keyring's, which answers where this one is pinned.
        """
        if recognized(service) is None:
            return read_elsewhere(lambda each: each.get_password(service, username))  # type: ignore[arg-type]
        credential = self.get_credential(service, username)
        return credential.password if credential else None

    def get_credential(self, service: str, username: str | None) -> Credential | None:
        """Return a feed's credential under the user name asked for, or the customary one.

        `None` for public feeds, and after a notice to the person where there is no credential to be
        had. Never raises for a feed; other services are the next keyring's.
        """
        feed = recognized(service)
        if feed is None:
            return read_elsewhere(lambda each: each.get_credential(service, username))
        world = real_world()
        try:
            answer = credential_for(feed, service, username, world)
            if answer is None:
                return None
            name = username or answer.username or customary_name(world.environ)
            return SimpleCredential(name, answer.password)
        except KeyboardInterrupt:
            interrupted()
            raise
        except Exception as error:  # a caller of keyring must not fall with us
            problem = said_of(error)
        log.debug("no answer: %s", problem)
        if not feed.bare:  # pip and uv have just asked by URL, and been told
            world.notify(problem)
        return None

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a PAT of the person's own for the organization of a feed, for every user name.

        Raises `PasswordSetError` where no keyring can keep it or it can be none, `NotOurs` for other
        services that no next keyring takes.
        """
        feed = recognized(service)
        if feed is None:
            write_elsewhere(lambda each: each.set_password(service, username, password))
            return
        world = real_world()
        try:
            session = Session(clean_token(password, "The password"), "set", checked=0)
            if not keep(feed, session, world):
                world.store.forget(entry(feed, world))
                raise ArtifactsError(
                    "There is no keyring here that can keep a personal access token: put it in a file "
                    "of your own and name that in AZURE_DEVOPS_EXT_PAT_FILE."
                )
        except ArtifactsError as error:
            raise PasswordSetError(str(error)) from None

    def delete_password(self, service: str, username: str) -> None:
        """Forget everything kept for the organization of a feed, whatever the user name.

        Raises `PasswordDeleteError` where there was nothing, `NotOurs` for other services
        that no next keyring takes.
        """
        feed = recognized(service)
        if feed is None:
            write_elsewhere(lambda each: each.delete_password(service, username))
            return
        world = real_world()
        try:
            told = sign_out(feed, service, username, world)
        except ArtifactsError as error:
            raise PasswordDeleteError(str(error)) from None
        except KeyboardInterrupt:
            interrupted()
            raise
        if told is None:
            raise PasswordDeleteError(f"Nothing is kept for organization '{feed.organization}'.")
        world.notify(told)
