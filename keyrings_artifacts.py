# SPDX-License-Identifier: MIT
"""Credentials for Azure Artifacts feeds, for every tool that asks Python's keyring.

pip, uv, pixi, twine and others ask `keyring` for a password; this backend answers for
`pkgs.dev.azure.com` and its kin, and says nothing about any other service. It needs
`keyring` and `urllib3`, and may be used as a copied file:

    PYTHON_KEYRING_BACKEND=keyrings_artifacts.ArtifactsKeyringBackend

with the file on `PYTHONPATH`. A credential is given by the environment (AZURE_DEVOPS_EXT_PAT and
its kin), found where an earlier call kept it, or obtained: an Entra token, from the Azure CLI,
is exchanged for a token that opens packages and nothing else. README.md lists the variables.

Decisions are pure functions over plain values; every effect is a field of `World`. `None` means
"not mine"; an `ArtifactsError` means "mine, and broken" and is one sentence that names the mend.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import logging
import os
import re
import threading
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlencode, urlsplit

from keyring.backend import KeyringBackend, get_all_keyring
from keyring.backends.chainer import ChainerBackend
from keyring.credentials import SimpleCredential
from keyring.errors import PasswordDeleteError, PasswordSetError
from keyring.util import platform_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TextIO

__version__ = "2.0.0"
__all__ = ["ArtifactsKeyringBackend"]

log = logging.getLogger(__name__)
T = TypeVar("T")

# --- constants -------------------------------------------------------------------------------

# Azure DevOps as Entra knows it, the same in every tenant:
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

TRIES: Final = 3
TRY_SECONDS: Final = 10.0
MAX_RETRY_AFTER: Final = 5.0  # seconds: an installer waits behind this call
MAX_BODY: Final = 1 << 18  # bytes; a token answer is a few thousand
MAX_TOKEN: Final = 1 << 14  # characters
SIGN_IN_SECONDS: Final = 180.0
AZ_SECONDS: Final = 30.0  # az starts in 1 to 15 seconds (Azure/azure-cli#29871)
STORE_SECONDS: Final = 30.0  # long enough to type the password that unlocks a keyring
ENTRY_LIMIT: Final = 1200  # characters; Windows takes 2,560 bytes of UTF-16 an entry

# Feed hosts, themselves or a dot and a name before them, and the token hosts that may serve them.
# The last three are Microsoft's own test fabrics. Source: artifacts-credprovider's allow-lists.
_PRODUCTION: Final = ("vssps.dev.azure.com", "vssps.visualstudio.com")
FEED_HOSTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "pkgs.dev.azure.com": _PRODUCTION,
        "pkgs.visualstudio.com": _PRODUCTION,
        "pkgs.codedev.ms": ("vssps.codedev.ms",),
        "pkgs.vsts.me": ("vssps.vsts.me",),
        "pkgs.codeapp.ms": ("vssps.codeapp.ms",),
    }
)

# https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud, public cloud
SIGN_IN_HOSTS: Final = frozenset(
    {"login.microsoftonline.com", "login.microsoft.com", "login.windows.net", "sts.windows.net"}
)

# The public client of Azure Artifacts' own tools (artifacts-credprovider), known in every tenant.
CLIENT_ID: Final = "d5a56ea4-7369-46b8-a538-c370805301bf"
# Narrower scopes are refused to this client (AADSTS65002); the exchange narrows.
SIGN_IN_SCOPE: Final = f"{AZURE_DEVOPS}/.default offline_access openid profile"

# Where Entra has people type a device code.
DEVICE_HOSTS: Final = frozenset({"microsoft.com", "www.microsoft.com", *SIGN_IN_HOSTS})

# Answers to a refresh token that is worth nothing any more:
# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
SPENT: Final = frozenset({"invalid_grant", "interaction_required", "login_required", "consent_required"})

# Browsers that draw in the terminal, which is not ours to draw in.
TEXT_BROWSERS: Final = frozenset(
    {"w3m", "lynx", "links", "links2", "elinks", "www-browser", "browsh", "carbonyl", "curl"}
)

SECRET_FILE: Final = "/run/secrets/azure_devops_ext_pat"  # noqa: S105  where Docker mounts it

# Exchanges in the order they are tried; each is what the one before it falls back to.
LADDER: Final = ("pat", "session", "entra")

# --- values ----------------------------------------------------------------------------------


class Feed(NamedTuple):
    """A feed as one caller spelled it; `organization` is the key of everything kept for it."""

    organization: str
    url: str
    bare: bool = False  # asked by host name alone: pip's and uv's repeat of a look-up by URL

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def takes_uploads(self) -> bool:
        return urlsplit(self.url).path.rstrip("/").endswith("/upload")


class Challenge(NamedTuple):
    """What an unauthenticated request to a feed tells: who signs in where, who exchanges."""

    feed: Feed
    tenant: str | None  # None: backed by personal accounts, or not told
    token_service: str
    sign_in_host: str = "login.microsoftonline.com"


class Settings(NamedTuple):
    """How the environment wants the exchange; `token_type` is "" where it does not say."""

    token_type: str = ""
    pat_days: int = PAT_DAYS
    scope: str = DEFAULT_SCOPE


@dataclass(frozen=True)
class Request:
    """One HTTP request. `body_limit` 0 reads the headers only."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)
    body_limit: int = MAX_BODY
    tries: int = TRIES


@dataclass(frozen=True)
class Response:
    """Its answer; header names in lower case, a repeated header once for each line."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def lines(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class Completed(NamedTuple):
    """A program that ended by itself."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Bearer:
    """An Entra access token; `expires` is an epoch."""

    token: str = field(repr=False)
    expires: float
    source: str
    person: bool
    account: str = ""
    ours: bool = False  # from a sign-in through this module, which renews it


@dataclass(frozen=True)
class Device:
    """A device code to poll with, and what the person has to do with it. Times in seconds."""

    code: str = field(repr=False)
    user_code: str
    page: str
    seconds: float
    interval: float


@dataclass(frozen=True)
class Session:
    """What opens the feeds of one organization, and what is known of it. Times are epochs."""

    token: str = field(repr=False)
    kind: str  # of LADDER, or "set": a PAT of the person's own
    checked: float  # when the service last accepted it
    expires: float | None = None  # None: it did not say
    asked: str = ""  # of LADDER: what this is the answer to, a policy may have led elsewhere
    scope: str = ""
    account: str = ""
    tenant: str = ""
    pat_id: str = ""  # of a PAT minted here: what the service revokes it by


@dataclass(frozen=True)
class Answer:
    """A credential for the caller; `username` None leaves the name to the caller."""

    password: str = field(repr=False)
    username: str | None = None


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
        name, url = challenge.feed.organization, challenge.feed.url
        text = (
            f"Nobody is signed in to organization '{name}', and nobody can be asked: {silent}. Run "
            f"'keyring --mode creds get {url}' in a terminal, or '{az_login(challenge.tenant)}', "
            "or set AZURE_DEVOPS_EXT_PAT to a personal access token."
        )
        if len(failures) == 1:
            text = str(failures[0])
        elif failures:
            tried = "\n".join(f"  {failure}" for failure in failures[:8])
            text = f"No sign-in to organization '{name}' succeeded:\n{tried}"
        super().__init__(text)


class NotOurs(PasswordSetError, PasswordDeleteError, NotImplementedError):
    """A write for another service: keyring's chainer passes on, callers of keyring catch it."""


def shown(text: object, limit: int = 200) -> str:
    """Return outside text fit for a terminal: one line of printable characters, not too many."""
    clean = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    return " ".join(clean.split())[:limit]


def az_login(tenant: str | None) -> str:
    """Return the command that signs the Azure CLI in to a tenant."""
    return f"az login --tenant {tenant}" if tenant else "az login"


# --- feeds -----------------------------------------------------------------------------------

_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")  # urlsplit drops some of these, browsers others
_AUTHORITY = re.compile(r"([a-z0-9.-]+)(?::(?:443)?)?", re.ASCII | re.IGNORECASE)
_ORGANIZATION = re.compile(r"[^\W_][\w.-]*")
_HOST_GUID = re.compile(r"a[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"


def under(host: str, name: str) -> bool:
    """Whether a host is a name or below it."""
    return host == name or host.endswith("." + name)


def parse_feed(service: str) -> Feed | None:
    """Return the feed that a caller of keyring means, or `None` where it is not one of ours.

    Recognized by host: https, the default port, an allow-listed name; user info, query and
    fragment are dropped. A bare host name is a feed where it names an organization.
    """
    if _UNSAFE.search(service):
        return None
    bare = "://" not in service
    if bare and not re.fullmatch(r"[\w.-]+(:443)?", service):
        return None
    try:
        parts = urlsplit("https://" + service if bare else service)
    except ValueError:
        return None
    user, _, authority = parts.netloc.rpartition("@")
    match = _AUTHORITY.fullmatch(authority)
    if parts.scheme != "https" or "@" in user or match is None:
        return None
    host = match[1].lower()
    organization = organization_of(host, parts.path)
    if organization is None:
        return None
    return Feed(organization, f"https://{host}{quote(parts.path, safe=_PATH_SAFE) or '/'}", bare)


def organization_of(host: str, path: str) -> str | None:
    """Return the key of the organization that a feed's host and path name, or `None`.

    The first path segment, or the first label of a legacy host; the two are the same name. The
    host-GUID form (`pkgsprodsu3weu.pkgs.visualstudio.com/A{guid}/`) has it in the path.
    """
    base = next((name for name in FEED_HOSTS if under(host, name)), None)
    if base is None or (host != base and base == "pkgs.dev.azure.com"):
        return None
    segments = [unquote(segment).lower() for segment in path.split("/")[1:]]
    if {".", ".."} & set(segments):
        return None  # clients resolve these, and would end in another organization
    first = segments[0] if segments else ""
    if host != base and not _HOST_GUID.fullmatch(first):
        first = host.split(".")[0]
    return first if _ORGANIZATION.fullmatch(first) else None


# --- tokens ----------------------------------------------------------------------------------

_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.\d*)?(?:Z|([+-])(\d\d):?(\d\d))?", re.ASCII
)


def is_token(value: object) -> bool:
    """Whether a value can be a password in an HTTP header and on a line of its own."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_TOKEN
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def clean_token(value: str, name: str) -> str:
    """Return a credential that a person gave under a name; raises where it cannot be one."""
    if not value.strip():
        raise ArtifactsError(f"{name} is set but empty: set it to a token, or unset it.")
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
    match = _DATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    *fields, sign, hours, minutes = match.groups()
    zone = int(hours or 0) * HOUR + int(minutes or 0) * MINUTE
    try:
        when = datetime.datetime(*map(int, fields), tzinfo=datetime.timezone.utc)  # type: ignore[misc,arg-type]  # six integers
    except ValueError:
        return None
    return when.timestamp() - (-zone if sign == "-" else zone)


def format_date(epoch: float) -> str:
    """Return an epoch in the form Azure DevOps takes, whole seconds and `Z`."""
    when = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def number(value: object) -> float | None:
    """Return a number that a service wrote as one or as text, or `None`; never NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < 1e12 else None


def claims(token: str) -> dict[str, Any]:
    """Return the payload of a JWT, unverified, for display and expiry; `{}` where there is none."""
    head, _, rest = token.partition(".")
    payload, dot, signature = rest.partition(".")
    if not head or not dot or "." in signature:
        return {}
    try:
        raw = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    except ValueError:
        return {}
    return parse_object(raw)


def is_person(payload: Mapping[str, Any]) -> bool:
    """Whether an Entra token's claims are a person's rather than an application's.

    https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference: `idtyp`
    decides where it is present; delegated tokens have `scp`, an application's `roles` at most.
    """
    kind = payload.get("idtyp")
    if kind in ("app", "user"):
        return bool(kind == "user")
    if payload.get("scp"):
        return True
    application = payload.get("roles") or payload.get("appid") or payload.get("azp")
    return bool(account_of(payload)) or not application


def account_of(payload: Mapping[str, Any]) -> str:
    """Return the name of an Entra token's account for display, `""` where it has none."""
    names = (payload.get(key) for key in ("upn", "unique_name", "preferred_username", "email"))
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
    if session.kind == "set":
        return True
    if settings.token_type not in ("", session.asked):
        return False
    return session.kind == "entra" or session.scope == settings.scope


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
    kind, token = data.get("kind"), data.get("token")
    checked, expires = number(data.get("checked")), number(data.get("expires"))
    if kind not in (*LADDER, "set") or not is_token(token) or checked is None:
        return None
    if data.get("expires") is not None and expires is None:
        return None
    texts = ("asked", "scope", "account", "tenant", "pat_id")
    known = {key: shown(data.get(key) or "") for key in texts}
    return Session(str(token), str(kind), checked, expires, **known)


def write_session(session: Session) -> str:
    """Return the entry that `read_session` reads."""
    return json.dumps(asdict(session), separators=(",", ":"))


# --- given: what the environment says outright ------------------------------------------------


def parse_settings(environ: Mapping[str, str]) -> Settings:
    """Return how the environment wants the exchange; raises where a variable is not understood."""
    kind = environ.get("KEYRINGS_ARTIFACTS_TOKEN_TYPE", "").strip().lower()
    if kind and kind not in LADDER:
        raise ArtifactsError("KEYRINGS_ARTIFACTS_TOKEN_TYPE must be one of pat, session, entra.")
    if not kind and environ.get("KEYRINGS_ARTIFACTS_USE_BEARER_TOKEN", "").strip().lower() == "true":
        kind = "entra"
    days = environ.get("AZURE_DEVOPS_PAT_DURATION", "").strip() or str(PAT_DAYS)
    if not re.fullmatch(r"\d{1,4}", days, re.ASCII) or not 1 <= int(days) <= MAX_PAT_DAYS:
        raise ArtifactsError(
            f"AZURE_DEVOPS_PAT_DURATION is '{shown(days, 20)}': it must be a number of days from "
            f"1 to {MAX_PAT_DAYS}."
        )
    scope = environ.get("AZURE_DEVOPS_PAT_SCOPE", "").strip() or DEFAULT_SCOPE
    if not re.fullmatch(r"[\w.]+(?: [\w.]+)*", scope, re.ASCII):
        raise ArtifactsError(
            f"AZURE_DEVOPS_PAT_SCOPE must be scopes separated by single spaces, for example {DEFAULT_SCOPE}."
        )
    return Settings(kind, int(days), scope)


def first_set(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    """Return name and value of the first variable that is not blank, else two empty strings."""
    found = ((name, environ[name]) for name in names if environ.get(name, "").strip())
    return next(found, ("", ""))


def comparable(url: str) -> str:
    """Return a URL in the form in which endpoints and prefixes are compared."""
    scheme, _, rest = url.strip().partition("://")
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    path = path.partition("#")[0].partition("?")[0]
    host = host[: -len(":443")] if host.endswith(":443") else host
    return f"{scheme}://{host}{slash}{quote(unquote(path), safe=_PATH_SAFE)}".lower()


def holds(address: str, feed: Feed) -> bool:
    """Whether a comparable address is the feed's or, at a slash, a prefix of it."""
    return (comparable(feed.url).rstrip("/") + "/").startswith(address.rstrip("/") + "/")


def parse_endpoints(text: str, name: str) -> list[tuple[str, Answer]]:
    """Return endpoints, made comparable, and their credentials; raises where it is not that.

    The form of artifacts-credprovider: `{"endpointCredentials": [{"endpoint": URL, "username":
    optional, "password": ...}]}`, keys in any case, single quotes tolerated. An entry without a
    password is passed over.
    """
    data = parse_object(text if '"' in text else text.replace("'", '"'))
    entries = {key.lower(): value for key, value in data.items()}.get("endpointcredentials")
    if not isinstance(entries, list):
        raise ArtifactsError(
            f"{name} is not the JSON it should be: mend it, or unset it. "
            'Its form: {"endpointCredentials": [{"endpoint": "https://...", "password": "..."}]}'
        )
    found = []
    for index, raw in enumerate(entries, 1):
        entry = {key.lower(): value for key, value in raw.items()} if isinstance(raw, dict) else {}
        endpoint, password = entry.get("endpoint"), entry.get("password")
        if not isinstance(endpoint, str) or not isinstance(password or "", str):
            raise ArtifactsError(f"{name}: entry {index} needs an endpoint and a password, as text.")
        if password:
            user = entry.get("username")
            token = clean_token(password, f"{name}: the password of entry {index}")
            found.append((comparable(endpoint), Answer(token, user if is_token(user) else None)))
    return found


def endpoint_for(feed: Feed, endpoints: Sequence[tuple[str, Answer]]) -> Answer | None:
    """Return the credential of the endpoint that is the feed or holds it, the closest, or `None`.

    artifacts-credprovider takes a whole address only; here an address also holds what is below
    it, since pip asks with a closing slash, poetry without one, and uv with either.
    """
    holding = [pair for pair in endpoints if holds(pair[0], feed)]
    return max(holding, key=lambda pair: len(pair[0].rstrip("/")))[1] if holding else None


def from_endpoints(feed: Feed, world: World) -> Answer | None:
    """Credentials per feed, as artifacts-credprovider and NuGetAuthenticate take them."""
    name, text = first_set(
        world.environ,
        "ARTIFACTS_CREDENTIALPROVIDER_EXTERNAL_FEED_ENDPOINTS",
        "VSS_NUGET_EXTERNAL_FEED_ENDPOINTS",
    )
    return endpoint_for(feed, parse_endpoints(text, name)) if name else None


def from_pat(feed: Feed, world: World) -> Answer | None:
    """The variable of the `az devops` extension, for every organization."""
    name = "AZURE_DEVOPS_EXT_PAT"
    value = world.environ.get(name)
    return None if value is None else Answer(clean_token(value, name))


def from_pat_file(feed: Feed, world: World) -> Answer | None:
    """The same in a file: one that is named, or a Docker secret of that name."""
    name = "AZURE_DEVOPS_EXT_PAT_FILE"
    path = world.environ.get(name)
    label = f"{name} ({shown(path)})" if path else SECRET_FILE
    if path is not None and not path.strip():
        raise ArtifactsError(f"{name} is set but empty: set it to a file's path, or unset it.")
    try:
        text = world.read_text(path or SECRET_FILE)
    except (OSError, ValueError) as error:
        if path is None and isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return None
        why = shown(getattr(error, "strerror", None) or "it is not text")
        raise ArtifactsError(f"{label} cannot be read ({why}): mend the path or the file.") from None
    return Answer(clean_token(text.lstrip("\ufeff").strip(), label))


def from_prefixes(feed: Feed, world: World) -> Answer | None:
    """A token for the addresses that begin with one of the prefixes, as NuGetAuthenticate sets."""
    _, prefixes = first_set(
        world.environ, "ARTIFACTS_CREDENTIALPROVIDER_URI_PREFIXES", "VSS_NUGET_URI_PREFIXES"
    )
    names = ("ARTIFACTS_CREDENTIALPROVIDER_ACCESSTOKEN", "VSS_NUGET_ACCESSTOKEN")
    if not any(holds(comparable(prefix), feed) for prefix in prefixes.split(";") if prefix.strip()):
        return None
    name, value = first_set(world.environ, *names)
    name = name or next((name for name in names if name in world.environ), "")
    return Answer(clean_token(value, name)) if name else None


def from_pipeline(feed: Feed, world: World) -> Answer | None:
    """The job's own token, which belongs to the pipeline's organization and no other."""
    name = "SYSTEM_ACCESSTOKEN"
    value = world.environ.get(name)
    _, collection = first_set(world.environ, "SYSTEM_COLLECTIONURI", "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI")
    if value is None or collection_organization(collection) not in (None, feed.organization):
        return None
    return Answer(clean_token(value, name))


def collection_organization(uri: str) -> str | None:
    """Return the key of the organization that a pipeline's collection URI names.

    `https://dev.azure.com/contoso/` or `https://contoso.visualstudio.com/`; `""` for any other
    address, which no organization equals, and `None` where there is no address.
    """
    if not uri:
        return None
    match = re.fullmatch(
        r"https://(?:dev\.azure\.com/([^/?#]+)|([\w-]+)\.visualstudio\.com)(?:[/?#].*)?", uri.strip().lower()
    )
    return unquote(match[1] or match[2]) if match else ""


GIVEN: Final = (from_endpoints, from_pat, from_pat_file, from_prefixes, from_pipeline)


def given_credential(feed: Feed, world: World) -> Answer | None:
    """Return what the environment says outright, or `None`; raises where it cannot be meant."""
    for source in GIVEN:
        answer = source(feed, world)
        if answer is not None:
            log.debug("given: %s", source.__name__)
            return answer
    return None


# --- requests and answers ---------------------------------------------------------------------

_GUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_AUTHORIZATION_URI = re.compile(r"\bauthorization_uri\s*=\s*\"?([^\",\s]*)", re.IGNORECASE)
_NO_TENANT: Final = ("", "00000000-0000-0000-0000-000000000000")  # personal accounts

_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Accept": "application/json",
        "User-Agent": f"keyrings.artifacts/{__version__}",
        "X-TFS-FedAuthRedirect": "Suppress",  # 401 in place of a redirect to a sign-in page
    }
)


def headers_only(url: str, extra: Mapping[str, str] | None = None, tries: int = TRIES) -> Request:
    """Return the GET that asks a feed who may read it; its index, of any size, stays there."""
    return Request("GET", url, {**_HEADERS, **(extra or {})}, body_limit=0, tries=tries)


def check_request(feed: Feed, token: str, tries: int = TRIES) -> Request:
    """Return the request that shows whether a token opens a feed; see `accepted`."""
    pair = base64.b64encode(f"{DEFAULT_USERNAME}:{token}".encode()).decode()
    return headers_only(feed.url, {"Authorization": f"Basic {pair}"}, tries)


def is_sign_in(response: Response) -> bool:
    """Whether an answer means "who are you": 401, the sign-in page (203), or the way to it.

    303 is none: it is how the service sends a client to a package file.
    """
    return response.status in (203, 401) or response.status in (301, 302, 307, 308)


def accepted(response: Response) -> bool:
    """Whether the service knew the credential. What it may do is another matter: 403, 404."""
    return not is_sign_in(response)


def read_challenge(feed: Feed, response: Response) -> Challenge | None:
    """Return who signs in for a feed, or `None` where nobody has to: a public feed.

    `response` answers an unauthenticated GET. Its headers are outside data: tenant and token
    service are taken from them only where they are what Microsoft's would be, and raise otherwise.
    """
    reading = not feed.takes_uploads  # anybody may read a public feed; writing takes a credential
    if reading and (200 <= response.status < 300 or response.status == 303):
        if not is_sign_in(response):
            return None
    elif reading and response.status == 404:
        raise ArtifactsError(
            f"{feed.host} knows no such feed ({shown(feed.url)}): check the names of organization, "
            "project and feed in the URL."
        )
    if response.status in (400, 403) and not response.lines("x-vss-e2eid"):
        raise NetworkError(
            f"{feed.host} answered {response.status} before anybody signed in: a firewall, a proxy "
            "or a network policy of the organization is in the way."
        )
    tenant, host = read_tenant(feed, response)
    return Challenge(feed, tenant, read_token_service(feed, response), host)


def read_tenant(feed: Feed, response: Response) -> tuple[str | None, str]:
    """Return the GUID of the Entra tenant behind a feed, `None` for personal accounts, and its host.

    From `WWW-Authenticate: Bearer authorization_uri=https://login.microsoftonline.com/{tenant}`
    and `X-VSS-ResourceTenant`; both may be absent, must agree, and are trusted no further.
    """
    found, host = set(), "login.microsoftonline.com"
    for line in response.lines("www-authenticate"):
        for uri in _AUTHORIZATION_URI.findall(line):
            host, tenant = sign_in_address(feed, uri)
            found.add(tenant)
    for line in response.lines("x-vss-resourcetenant"):
        found.update(part.strip().lower() for part in line.split(","))
    found -= {"common", "organizations", *_NO_TENANT}
    if not found:
        return None, host
    tenant = found.pop()
    if found or not _GUID.fullmatch(tenant):
        raise ArtifactsError(
            f"{feed.host} named no single tenant for organization '{feed.organization}': nothing "
            "was sent. Try again, and if it stays, tell the organization's administrator."
        )
    return tenant, host


def sign_in_address(feed: Feed, uri: str) -> tuple[str, str]:
    """Return host and tenant of a sign-in address; raises where the address is not Entra's."""
    match = re.fullmatch(r"https://([a-z0-9.-]+)/([\w.-]+)/?(?:oauth2/.*)?", uri.lower(), re.ASCII)
    if match is None or match[1] not in SIGN_IN_HOSTS:
        raise ArtifactsError(
            f"{feed.host} named a sign-in address that is not Microsoft's ({shown(uri, 80)}): "
            "nothing was sent to it. Check the feed's URL and who is between you and it."
        )
    return match[1], match[2]


def read_token_service(feed: Feed, response: Response) -> str:
    """Return the address, without a closing slash, of the service that issues tokens for a feed.

    `X-VSS-AuthorizationEndpoint`, where a person's Entra token will be sent: https, a host that
    serves this feed's, and no organization but the feed's in it; raises otherwise. Without the
    header, the documented address.
    """
    hosts = next(hosts for name, hosts in FEED_HOSTS.items() if under(feed.host, name))
    found = {line.strip().rstrip("/") for line in response.lines("x-vss-authorizationendpoint")}
    if not found:
        return default_token_service(feed)
    match = re.fullmatch(r"(https://([a-z0-9.-]+))(?:/([^/?#\\\s@]+))?", min(found).lower())
    if len(found) == 1 and match is not None:
        service = next((name for name in hosts if under(match[2], name)), None)
        label = match[2][: -len(service) - 1] if service else ""
        named = {unquote(match[3] or ""), label} - {"", "app"}
        if service and (named <= {feed.organization} or _HOST_GUID.fullmatch(feed.organization)):
            return found.pop()
    raise ArtifactsError(
        f"{feed.host} named a token service that is not organization '{feed.organization}' at "
        f"Azure DevOps ({shown(min(found), 80)}): nothing was sent to it."
    )


def default_token_service(feed: Feed) -> str:
    """Return the documented address of the service that issues tokens for an organization."""
    hosts = next(hosts for name, hosts in FEED_HOSTS.items() if under(feed.host, name))
    return f"https://{hosts[0]}/{quote(feed.organization)}"


def mint_request(kind: str, challenge: Challenge, bearer: Bearer, body: Mapping[str, Any]) -> Request:
    """Return the request that exchanges a person's Entra token for a PAT or a session token.

    PAT: https://learn.microsoft.com/rest/api/azure/devops/tokens/pats/create, which an organization
    answers under its own address. Session token: artifacts-credprovider, `SelfDescribing`.
    """
    base = challenge.token_service
    path = "_apis/Token/SessionTokens?tokenType=SelfDescribing&api-version=5.0-preview.1"
    if kind == "pat":
        path = "_apis/tokens/pats?api-version=7.1-preview.1"
        if "//app." in base:
            base = default_token_service(challenge.feed)
    headers = {
        **_HEADERS,
        "Authorization": f"Bearer {bearer.token}",
        "Content-Type": "application/json; charset=utf-8",
    }
    return Request("POST", f"{base}/{path}", headers, json.dumps(body).encode())


def revoke_request(challenge: Challenge, bearer: Bearer, pat_id: str) -> Request:
    """Return the request that revokes a PAT.

    https://learn.microsoft.com/rest/api/azure/devops/tokens/pats/revoke
    """
    headers = {**_HEADERS, "Authorization": f"Bearer {bearer.token}"}
    query = f"authorizationId={pat_id}&api-version=7.1-preview.1"
    base = default_token_service(challenge.feed)
    return Request("DELETE", f"{base}/_apis/tokens/pats?{query}", headers)


def pat_name(world: World) -> str:
    """Return the name under which a person finds our tokens in the list of theirs."""
    return f"keyrings.artifacts on {world.host}"


def mint_body(kind: str, settings: Settings, name: str, valid_to: float | None) -> dict[str, Any]:
    """Return what is asked for; without `validTo` (an epoch here) the service chooses the time."""
    body: dict[str, Any] = {"displayName": name, "scope": settings.scope}
    if kind == "pat":
        body["allOrgs"] = False
    if valid_to is not None:
        body["validTo"] = format_date(valid_to)
    return body


def read_minted(kind: str, challenge: Challenge, bearer: Bearer, response: Response) -> dict[str, Any]:
    """Return what a mint request was answered with: `token`, and what else the service told.

    Raises `BearerRefused` (401, a sign-in page), `LifetimeRefused`, `PolicyRefused` for any other
    refusal, and `ArtifactsError` for an answer that is neither. The PAT service reports refusals as
    `patTokenError` in the body, whatever the status.
    """
    body = parse_object(response.body)
    refuse_stranger(challenge, bearer, response, body)
    error = str(body.get("patTokenError") or "none").lower()
    if error in ("patlifespanpolicyviolation", "invalidvalidto"):
        raise LifetimeRefused(error)
    if response.status == 400 and error == "none":
        raise LifetimeRefused("400")
    if response.status >= 400 or error != "none":
        raise PolicyRefused(shown(error if error != "none" else response.status))
    minted = body.get("patToken") if kind == "pat" else body
    if not isinstance(minted, dict) or not is_token(minted.get("token")):
        host = urlsplit(challenge.token_service).netloc
        raise ArtifactsError(f"{host} answered without a token: try again later.")
    return minted


def refuse_stranger(
    challenge: Challenge, bearer: Bearer, response: Response, body: Mapping[str, Any]
) -> None:
    """Raise `BearerRefused` where an answer says that the organization does not know the account.

    TF401444: never signed in to the organization; TF400813: no access to it.
    """
    organization = challenge.feed.organization
    told = str(body.get("message") or "") + unquote_plus("".join(response.lines("x-tfs-serviceerror")))
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
    return min((epoch for epoch in known if epoch is not None), default=otherwise)


def retry_pause(attempt: int, response: Response | None, jitter: float) -> float:
    """Return the seconds to wait after a failed attempt (from 1); `jitter` is in [0, 1)."""
    told = number(next(iter(response.lines("retry-after")), None)) if response else None
    if told is not None and told >= 0:
        return min(told, MAX_RETRY_AFTER)
    return float(0.4 * 2**attempt * (0.5 + jitter / 2))


def fetch(request: Request, world: World) -> Response:
    """Return the answer to a request, tried again after a drop, a time-out, 429 and 5xx.

    Raises `NetworkError` when none of the tries brought anything better.
    """
    for attempt in range(1, request.tries + 1):
        response = None
        try:
            response = world.send(request)
        except NetworkError as error:
            failure = error
            if not error.passing:
                raise
        else:
            log.debug("%s %s: %s", request.method, request.url.partition("?")[0], response.status)
            if response.status != 429 and response.status < 500:
                return response
            failure = NetworkError(
                f"{urlsplit(request.url).netloc} answered {response.status}: the service has "
                "trouble or limits you (https://status.dev.azure.com). Try again in a few minutes."
            )
        if attempt < request.tries:
            world.sleep(retry_pause(attempt, response, world.jitter()))
    raise failure


# --- sources of an Entra token ----------------------------------------------------------------


def azure_cli(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of whoever `az login` signed in, or `None` where there is no Azure CLI.

    https://learn.microsoft.com/cli/azure/account#az-account-get-access-token. Raises where `az` is
    there and gives none: signed out, slow, or not what it says it is.
    """
    az = world.which("az")
    if az is None:
        return None
    command = [az, "account", "get-access-token", "--output", "json", "--resource", AZURE_DEVOPS]
    tenant = ["--tenant", challenge.tenant] if challenge.tenant else []
    try:
        done = world.run(command + tenant, AZ_SECONDS)
        if done.returncode and tenant and refuses_tenant(done.stderr):
            done = world.run(command, AZ_SECONDS)
    except TimeoutError:
        raise ArtifactsError(
            f"azure_cli: az did not answer within {AZ_SECONDS:.0f} seconds. Run 'az account "
            "get-access-token' to see what it waits for, then try again."
        ) from None
    except OSError as error:
        raise ArtifactsError(
            f"azure_cli: az could not be started ({shown(error.strerror)}): repair or reinstall it."
        ) from None
    if done.returncode:
        raise ArtifactsError(az_failure(done.stderr, challenge.tenant))
    return read_az(done.stdout, world.now())


def refuses_tenant(stderr: str) -> bool:
    """Whether az says that its managed identity has one tenant and takes no `--tenant`."""
    return "Tenant shouldn't be specified" in stderr or "non-current tenants" in stderr


def az_failure(stderr: str, tenant: str | None) -> str:
    """Return the sentence for an az that failed: its own text may hold anything, codes do not."""
    code = re.search(r"AADSTS\d{4,8}", stderr)
    if code:
        return f"azure_cli: Entra wants a new sign-in ({code[0]}): run '{az_login(tenant)}'."
    if "az login" in stderr or "az account set" in stderr:
        return f"azure_cli: nobody is signed in to the Azure CLI: run '{az_login(tenant)}'."
    return (
        "azure_cli: az failed. Run 'az account get-access-token' to see why, "
        f"or sign in again with '{az_login(tenant)}'."
    )


def read_az(stdout: str, now: float) -> Bearer:
    """Return the token that az printed as JSON; raises where it printed something else.

    `expires_on` is an epoch and there since az 2.54; `expiresOn` is local time and is not used.
    """
    data = parse_object(stdout)
    token = data.get("accessToken")
    if not is_token(token):
        raise ArtifactsError(
            "azure_cli: az printed something that is not a token. Run 'az account "
            "get-access-token' to see what, and update az if it looks right."
        )
    payload = claims(str(token))
    expires = number(data.get("expires_on")) or number(payload.get("exp")) or now + HOUR
    return Bearer(str(token), expires, "azure_cli", is_person(payload), account_of(payload))


# --- signing in -------------------------------------------------------------------------------


def authority(challenge: Challenge, environ: Mapping[str, str]) -> str:
    """Return the address, without a closing slash, of the Entra tenant that signs people in.

    Personal accounts use `organizations`, as artifacts-credprovider does for this client. Raises
    where the environment names an address that is none.
    """
    name, given = first_set(
        environ, "ARTIFACTS_CREDENTIALPROVIDER_MSAL_AUTHORITY", "NUGET_CREDENTIALPROVIDER_MSAL_AUTHORITY"
    )
    if not given:
        return f"https://{challenge.sign_in_host}/{challenge.tenant or 'organizations'}"
    if not re.fullmatch(r"https://[\w.-]+/[\w.-]+/?", given.strip(), re.ASCII):
        raise ArtifactsError(
            f"{name} must be an https address with a tenant, for example "
            "https://login.microsoftonline.com/organizations."
        )
    return given.strip().rstrip("/")


def sign_in_seconds(environ: Mapping[str, str]) -> float:
    """Return how long a person is waited for; raises where the environment names no such time."""
    name, given = first_set(
        environ,
        "ARTIFACTS_CREDENTIALPROVIDER_DEVICEFLOWTIMEOUTSECONDS",
        "NUGET_CREDENTIALPROVIDER_VSTS_DEVICEFLOWTIMEOUTSECONDS",
    )
    if given and not re.fullmatch(r"\s*0*[1-9]\d{0,4}\s*", given, re.ASCII):
        raise ArtifactsError(f"{name} must be a number of seconds from 1 to 99999.")
    return float(given or SIGN_IN_SECONDS)


def silence(challenge: Challenge, environ: Mapping[str, str]) -> str:
    """Return why nobody may be asked to sign in, `""` where somebody may."""
    names = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "PIP_NO_INPUT")
    for name in (*names, "ARTIFACTS_KEYRING_NONINTERACTIVE_MODE"):
        if environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off"):
            return f"{name} is set"
    return "a host name alone is asked for" if challenge.feed.bare else ""


def browser_command(
    environ: Mapping[str, str], system: str, container: bool, which: Callable[[str], str | None]
) -> list[str] | None:
    """Return the command that opens a web page in a window on this desktop, or `None`.

    Whoever sets BROWSER says that there is one, over SSH and in a container too. `system` is
    `sys.platform`; `%s` stands for the address.
    """
    for choice in filter(None, environ.get("BROWSER", "").split(os.pathsep)):
        words = choice.rstrip(" &").split()
        program = which(words[0]) if words else None
        if program and os.path.basename(program) not in TEXT_BROWSERS:
            return [program, *words[1:], *([] if "%s" in choice else ["%s"])]
    remote = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "container", "CODESPACES")
    if environ.get("BROWSER") or container or any(environ.get(name) for name in remote):
        return None
    if system == "darwin":
        return ["/usr/bin/open", "%s"]
    windows = [which("rundll32.exe"), "url.dll,FileProtocolHandler"]
    choices: list[list[str | None]] = []
    if system == "win32":
        choices = [windows]
    elif environ.get("WSL_DISTRO_NAME") or environ.get("WSL_INTEROP"):
        choices = [[which("wslview")], windows]
    elif environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"):
        names = ("xdg-open", "x-www-browser", "firefox", "google-chrome", "chromium")
        choices = [[which(name)] for name in names]
    found = next((choice for choice in choices if choice[0]), None)
    return [*map(str, found), "%s"] if found else None


def form_request(url: str, **form: str) -> Request:
    """Return the POST of a form to one of Entra's endpoints, from the public client."""
    headers = {**_HEADERS, "Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"client_id": CLIENT_ID, **form}).encode()
    return Request("POST", url, headers, body)


def authorize_url(base: str, redirect: str, state: str, verifier: str, hint: str) -> str:
    """Return the page where a person signs in: authorization code, PKCE (RFC 7636, S256)."""
    digest = hashlib.sha256(verifier.encode()).digest()
    query = {
        "client_id": CLIENT_ID,
        "response_type": "code",
        "redirect_uri": redirect,
        "scope": SIGN_IN_SCOPE,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        "code_challenge_method": "S256",
        "response_mode": "form_post",  # keeps the code out of the browser's history (RFC 9700)
        "prompt": "select_account",
        **({"login_hint": hint} if hint else {}),
    }
    return f"{base}/oauth2/v2.0/authorize?{urlencode(query)}"


class Page(NamedTuple):
    """What a browser is shown, and the answer it brought."""

    status: int
    text: str
    answer: Mapping[str, str] | None = None


PAGE_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Connection": "close",
    }
)


def answer_browser(target: str, form: str, state: str) -> Page:
    """Return the page for a request to our port; with an answer where it is the sign-in's.

    Anybody on this machine may ask: an icon, a guess and a page opened twice are answered, and no
    more. A query is answered by a redirect (303), which takes the code out of the address line.
    """
    path, _, query = target.partition("?")
    answer = dict(parse_qsl(form or query))
    done = "You are done here: close this page and go back to your terminal."
    if path != "/":
        return Page(404, "There is nothing here.")
    if not form and not query:
        return Page(200, done)
    if not hmac.compare_digest(answer.get("state", "").encode(), state.encode()):
        return Page(400, "This is not the sign-in that is waited for.")
    if "code" not in answer and "error" not in answer:
        return Page(400, "This sign-in brought no answer.")
    return Page(200 if form else 303, done, answer)


def explain(source: str, challenge: Challenge, body: Mapping[str, Any]) -> str:
    """Return the sentence for an error of Entra's, whose own text may hold anything.

    https://learn.microsoft.com/entra/identity-platform/reference-error-codes: `error` decides; the
    AADSTS number is for the person, and for whom the person asks for help.
    """
    error = shown(body.get("error") or "no reason given", 40)
    match = re.search(r"AADSTS(\d{4,8})", str(body.get("error_description")))
    number = match[1] if match else ""
    code = f" (AADSTS{number})" if match else f" ({error})"
    again = "run the command again"
    if error in ("access_denied", "authorization_declined") or number == "65004":
        return f"{source}: the sign-in was declined{code}: {again}, and accept it."
    if error in ("expired_token", "code_expired", "bad_verification_code"):
        return f"{source}: the code expired before anybody entered it: {again}."
    if re.fullmatch(r"53\d{3,4}|50097|50131|50105", number):
        return (
            f"{source}: a policy of your organization does not allow this sign-in{code}: use a "
            f"browser on a machine it manages, or run '{az_login(challenge.tenant)}'."
        )
    return (
        f"{source}: Entra did not accept the sign-in{code}: {again}, or sign in with "
        f"'{az_login(challenge.tenant)}'."
    )


def signed_in(source: str, challenge: Challenge, response: Response, world: World) -> Bearer:
    """Return the token that Entra's token endpoint answered with, and keep the refresh token.

    Raises `EntraRefused` for any other answer. The refresh token lies in a real keyring or nowhere;
    the one before it stays valid, so that two processes may refresh at once.
    """
    body = parse_object(response.body)
    token, refresh = body.get("access_token"), body.get("refresh_token")
    if response.status != 200 or not is_token(token):
        raise EntraRefused(explain(source, challenge, body), str(body.get("error")))
    account = account_of(claims(str(body.get("id_token")))) or account_of(claims(str(token)))
    if is_token(refresh):
        kept = json.dumps({"refresh_token": refresh, "account": account})
        world.store.write(refresh_entry(challenge, world), kept, in_file=False)
    expires = world.now() + (number(body.get("expires_in")) or HOUR)
    return Bearer(str(token), expires, source, True, account, ours=True)


def refresh_entry(challenge: Challenge, world: World) -> str:
    """Return the name under which the store keeps the refresh token of a challenge's tenant."""
    return "refresh/" + authority(challenge, world.environ).rpartition("/")[2]


def refresh_token(world: World, challenge: Challenge) -> Bearer | None:
    """Return a token by an earlier sign-in, or `None` where there was none.

    A refresh token that is worth nothing any more is dropped, and the person told why they are
    asked again; raises where nobody can be asked.
    """
    name = refresh_entry(challenge, world)
    kept = parse_object(world.store.read(name) or "").get("refresh_token")
    if not is_token(kept):
        return None
    url = f"{authority(challenge, world.environ)}/oauth2/v2.0/token"
    form = {"grant_type": "refresh_token", "refresh_token": str(kept), "scope": SIGN_IN_SCOPE}
    response = fetch(form_request(url, **form), world)
    try:
        return signed_in("refresh_token", challenge, response, world)
    except EntraRefused as refusal:
        if refusal.error not in SPENT:
            raise
        world.store.erase(name)
        if silence(challenge, world.environ) or not (world.browser() or world.terminal()):
            raise
        world.notify(f"The earlier sign-in to organization '{challenge.feed.organization}' is over.")
        return None


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
    _, hint = first_set(
        world.environ,
        "ARTIFACTS_CREDENTIALPROVIDER_MSAL_LOGIN_HINT",
        "NUGET_CREDENTIALPROVIDER_MSAL_LOGIN_HINT",
    )
    with world.listen(state) as listener:
        redirect = f"http://localhost:{listener.port}"
        url = authorize_url(base, redirect, state, verifier, hint)
        started = world.start([word.replace("%s", url) for word in command])
        answer = None if started else listener.wait(0)
        if not started and answer is None:
            return None
        answer = answer or wait_for(world, challenge, seconds, listener.wait)
        listener.finish()
        if "code" not in answer:
            raise SignInEnded(explain("browser", challenge, answer))
        form = {"grant_type": "authorization_code", "code": answer["code"], "scope": SIGN_IN_SCOPE}
        request = form_request(
            f"{base}/oauth2/v2.0/token", **form, redirect_uri=redirect, code_verifier=verifier
        )
        try:
            return signed_in("browser", challenge, fetch(request, world), world)
        except EntraRefused as refusal:
            raise SignInEnded(str(refusal)) from None


def device_code(world: World, challenge: Challenge) -> Bearer | None:
    """Return the token of a person who enters a code on a web page, or `None` without a terminal.

    https://learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code. Raises `SignInEnded`
    where the person did not get in.
    """
    if silence(challenge, world.environ) or not world.terminal():
        return None
    base, seconds = authority(challenge, world.environ), sign_in_seconds(world.environ)
    request = form_request(f"{base}/oauth2/v2.0/devicecode", scope=SIGN_IN_SCOPE)
    device = read_device(challenge, fetch(request, world))
    seconds = min(seconds, device.seconds)
    world.notify(
        f"To sign in to organization '{challenge.feed.organization}', open {device.page} and enter "
        f"the code {device.user_code} within {max(1, round(seconds / MINUTE))} min."
    )
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device.code}
    poll = replace(form_request(f"{base}/oauth2/v2.0/token", **form), tries=1)
    ask = device_poll(poll, device.interval, world)
    answer = wait_for(world, challenge, seconds, ask)
    try:
        return signed_in("device_code", challenge, answer, world)
    except EntraRefused as refusal:
        raise SignInEnded(str(refusal)) from None


def device_poll(request: Request, interval: float, world: World) -> Callable[[float], Response | None]:
    """Return a function that polls as RFC 8628 §3.5 wants it, and returns an answer or `None`."""
    due = world.ticks() + interval

    def ask(left: float) -> Response | None:
        nonlocal interval, due
        if world.ticks() < due:
            world.sleep(min(left, due - world.ticks()))
            return None
        due = world.ticks() + interval
        with suppress(NetworkError):  # a drop is no answer
            response = fetch(request, world)
            error = parse_object(response.body).get("error")
            if error not in ("authorization_pending", "slow_down"):
                return response
            if error == "slow_down":
                interval += 5
                due += 5
        return None

    return ask


def read_device(challenge: Challenge, response: Response) -> Device:
    """Return the device code that Entra answered with; raises where it did not, or oddly."""
    body = parse_object(response.body)
    page = str(body.get("verification_uri") or body.get("verification_url"))
    code, user_code = body.get("device_code"), shown(body.get("user_code") or "", 40)
    if response.status != 200 or not is_token(code) or not user_code:
        raise ArtifactsError(explain("device_code", challenge, body))
    match = re.fullmatch(r"https://([a-z0-9.-]+)(?:/[\w./-]*)?", page, re.ASCII)
    if match is None or match[1] not in DEVICE_HOSTS:
        raise ArtifactsError(
            f"device_code: the page to sign in on is not Microsoft's ({shown(page, 80)}): enter "
            "nothing there, and check who is between you and login.microsoftonline.com."
        )
    interval = min(max(number(body.get("interval")) or 5, 1), MINUTE)
    return Device(str(code), user_code, page, number(body.get("expires_in")) or 15 * MINUTE, interval)


def wait_for(world: World, challenge: Challenge, seconds: float, poll: Callable[[float], T | None]) -> T:
    """Return what `poll`, called with the seconds left, returns first; raises `SignInEnded` after."""
    organization = challenge.feed.organization
    end = world.ticks() + seconds
    try:
        while world.ticks() < end:
            left = end - world.ticks()
            world.progress(f"Waiting for you to sign in to {organization}: {left:.0f} s")
            found = poll(min(left, 1.0))
            if found is not None:
                return found
    finally:
        world.progress("")
    raise SignInEnded(
        f"Nobody signed in to organization '{organization}' within {seconds:.0f} seconds: run the "
        "command again. ARTIFACTS_CREDENTIALPROVIDER_DEVICEFLOWTIMEOUTSECONDS sets a longer time."
    )


SOURCES: Final[tuple[Callable[[World, Challenge], Bearer | None], ...]] = (
    azure_cli,
    refresh_token,
    browser,
    device_code,
)

# --- composition ------------------------------------------------------------------------------


def credential_for(feed: Feed, service: str, username: str | None, world: World) -> Answer | None:
    """Return a credential for a feed, or `None` where it needs none.

    `service` and `username` are the caller's own words, under which keyrings.artifacts 1.x kept
    its PATs. Raises `ArtifactsError` where there is no credential to be had.
    """
    given = given_credential(feed, world)
    if given is not None:
        return given
    settings = parse_settings(world.environ)
    session = fresh_session(feed, settings, world) or inherited(feed, service, username, world)
    if session is None:
        began = world.now()
        challenge = read_challenge(feed, fetch(headers_only(feed.url), world))
        if challenge is None:
            log.debug("%s is public", feed.url)
            return None
        session = in_turn(challenge, settings, world, began)
    return Answer(session.token)


def in_turn(challenge: Challenge, settings: Settings, world: World, began: float) -> Session:
    """Return a session for a challenge's feed: of all processes and threads one gets it.

    The others wait, and find it kept; or, where a person turned that sign-in down after `began`
    (an epoch), raise `SignInEnded` rather than ask that person once more.
    """
    feed = challenge.feed
    patience = sign_in_seconds(world.environ) + 2 * AZ_SECONDS
    with world.lock(feed.organization, patience) as turn:
        session = fresh_session(feed, settings, world, latest=True)
        if session is not None:
            return session
        if turn.ended_at() >= began:
            raise SignInEnded(
                f"The sign-in to organization '{feed.organization}' that another process waited "
                "for came to nothing: run the command again."
            )
        try:
            session = sign_in(challenge, settings, world)
        except SignInEnded:
            turn.end(world.now())
            raise
        keep(feed, session, world)
    return session


def entry(feed: Feed) -> str:
    """Return the name under which the store keeps the session of a feed's organization."""
    return f"session/{feed.organization}"


def fresh_session(feed: Feed, settings: Settings, world: World, latest: bool = False) -> Session | None:
    """Return the session kept for a feed's organization, or `None` where none is good any more.

    One that nobody has checked for an hour is checked; without a network it is believed. `latest`
    looks for what other processes have kept since.
    """
    session = read_session(world.store.read(entry(feed), latest))
    if session is None or not usable(session, settings, world.now()):
        return None
    if 0 <= world.now() - session.checked < CHECKED_FOR:
        log.debug("stored: fresh")
        return session
    try:
        good = accepted(fetch(check_request(feed, session.token, tries=1), world))
    except NetworkError:
        log.debug("stored: could not be checked")
        return session
    if good:
        session = replace(session, checked=world.now())
        keep(feed, session, world)
        return session
    world.store.erase(entry(feed))
    if session.kind == "set":
        world.notify(
            f"Organization '{feed.organization}' refused the token that 'keyring set' kept for it: "
            "it is forgotten. Set a new one, or sign in."
        )
    return None


def keep(feed: Feed, session: Session, world: World) -> bool:
    """Keep a session where such a one may lie; whether it will outlast this process."""
    allowed = file_may_keep(session, world.now())
    return world.store.write(entry(feed), write_session(session), in_file=allowed)


def inherited(feed: Feed, service: str, username: str | None, world: World) -> Session | None:
    """Return the PAT that keyrings.artifacts 1.x kept for a feed, if the feed takes it, or `None`.

    It is then kept as a PAT of the person's own.
    """
    for token in dict.fromkeys(world.store.foreign(inherited_names(feed, service, username, world))):
        if is_token(token) and accepted(fetch(check_request(feed, token), world)):
            session = Session(token, "set", world.now())
            keep(feed, session, world)
            return session
    return None


def inherited_names(feed: Feed, service: str, username: str | None, world: World) -> list[tuple[str, str]]:
    """Return the pairs of service and user name under which 1.x may have kept a PAT for a feed.

    It took the URL as its caller spelled it, one with a project cut behind `simple` or `upload`.
    """
    url = feed.url.rstrip("/")
    cut = re.match(r"https://[^/]+/[^/]+/[^/]+/_packaging/[^/]+/pypi/(?:upload|simple)", url)
    urls = dict.fromkeys([*([cut[0]] if cut else []), service, url, url + "/"])
    users = dict.fromkeys([username, world.environ.get("AZURE_DEVOPS_USERNAME"), DEFAULT_USERNAME])
    return [(address, user) for address in urls for user in users if user]


def sign_in(challenge: Challenge, settings: Settings, world: World) -> Session:
    """Return a session from the first source whose token the organization accepts; or raise."""
    failures: list[ArtifactsError] = []
    for source in SOURCES:
        try:
            bearer = source(world, challenge)
            if bearer is not None:
                log.debug("%s: a token for %s", bearer.source, "a person" if bearer.person else "an app")
                return exchange(challenge, bearer, settings, world)
        except (NetworkError, SignInEnded):
            raise
        except ArtifactsError as error:
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
    for kind in LADDER[LADDER.index(asked) :] if bearer.person else ():
        if kind != "entra":
            try:
                return replace(mint(kind, challenge, bearer, settings, world), asked=asked)
            except PolicyRefused as refusal:
                log.debug("%s refused: %s", kind, refusal)
    check = fetch(check_request(challenge.feed, bearer.token), world)
    refuse_stranger(challenge, bearer, check, {})
    return Session(
        bearer.token,
        "entra",
        checked=world.now(),
        expires=bearer.expires,
        asked=asked,
        account=bearer.account,
        tenant=challenge.tenant or "",
    )


def mint(kind: str, challenge: Challenge, bearer: Bearer, settings: Settings, world: World) -> Session:
    """Return a new PAT or session token; a lifetime that policy refuses is left to the service."""
    now = world.now()
    wanted = now + DAY * (settings.pat_days if kind == "pat" else SESSION_DAYS)
    for valid_to in (wanted, None):
        body = mint_body(kind, settings, pat_name(world), valid_to)
        response = fetch(mint_request(kind, challenge, bearer, body), world)
        try:
            minted = read_minted(kind, challenge, bearer, response)
        except LifetimeRefused:
            if valid_to is None:
                raise
        else:
            break
    token, pat_id = str(minted["token"]), minted.get("authorizationId")
    return Session(
        token,
        kind,
        checked=now,
        expires=expiry(token, minted.get("validTo"), now + DAY * SESSION_DAYS),
        scope=settings.scope,
        account=bearer.account,
        tenant=challenge.tenant or "",
        pat_id=str(pat_id) if kind == "pat" and _GUID.fullmatch(str(pat_id)) else "",
    )


def sign_out(feed: Feed, service: str, username: str | None, world: World) -> str | None:
    """Forget all that is kept for a feed's organization, and revoke the PAT that was minted for it.

    Returns a sentence for the person, or `None` where nothing was kept. Nobody is asked.
    """
    session = read_session(world.store.read(entry(feed)))
    challenge = Challenge(feed, (session and session.tenant) or None, default_token_service(feed))
    if session is None:  # then only the service knows whose refresh token it is
        with suppress(ArtifactsError):
            challenge = read_challenge(feed, fetch(headers_only(feed.url), world)) or challenge
    left = ""
    if session and session.pat_id and not revoke(challenge, session.pat_id, world):
        left = (
            f"Its PAT '{pat_name(world)}' could not be revoked: do so at "
            f"https://dev.azure.com/{quote(feed.organization)}/_usersSettings/tokens. "
        )
    names = inherited_names(feed, service, username, world)
    erased = [
        world.store.erase(entry(feed)),
        world.store.erase(refresh_entry(challenge, world)),
        bool(world.store.foreign(names, erase=True)),
    ]
    if not any(erased):
        return None
    return f"Signed out of organization '{feed.organization}'. {left}Nothing else is kept here."


def revoke(challenge: Challenge, pat_id: str, world: World) -> bool:
    """Revoke a PAT at the service, as whoever is signed in; whether that was possible."""
    for source in (refresh_token, azure_cli):
        with suppress(ArtifactsError):
            bearer = source(world, challenge._replace(feed=challenge.feed._replace(bare=True)))
            if bearer and fetch(revoke_request(challenge, bearer, pat_id), world).status < 300:
                return True
    return False


# --- store ------------------------------------------------------------------------------------

_HEAD = re.compile(r"(\d{1,2}):([0-9a-f]{12}):")

_memory: dict[str, str] = {}  # by name; shared, since pdm and poetry ask several instances
_broken: set[str] = set()  # places that failed in this process: told once, then left alone


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
    match = _HEAD.match(head)
    return [f"{name}/{match[2]}.{index}" for index in range(1, int(match[1]))] if match else []


def join_entry(head: str, rest: Sequence[str | None]) -> str | None:
    """Return the text that `split_entry` split, `None` where parts are missing or of another."""
    match = _HEAD.match(head)
    if match is None:
        return head
    text = head[match.end() :] + "".join(part or "" for part in rest)
    return text if hashlib.sha256(text.encode()).hexdigest()[:12] == match[2] else None


class Keyring:
    """Another keyring's backend as a place for short texts. It may raise anything."""

    def __init__(self, backend: KeyringBackend) -> None:
        self.backend = backend
        self.label = f"{type(backend).__module__}.{type(backend).__qualname__}"

    def get(self, name: str) -> str | None:
        return self.backend.get_password(f"keyrings.artifacts/{name}", "keyrings.artifacts")

    def set(self, name: str, text: str) -> None:
        self.backend.set_password(f"keyrings.artifacts/{name}", "keyrings.artifacts", text)

    def delete(self, name: str) -> None:
        self.backend.delete_password(f"keyrings.artifacts/{name}", "keyrings.artifacts")


class Files:
    """A folder as a place for texts, in files that their owner alone can read.

    Writing raises `OSError`. A file that is a link, another user's, or open to others is not read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.label = f"The folder {folder}"

    def path(self, name: str) -> Path:
        return self.folder / (name.replace("/", "-") + ".json")

    def get(self, name: str) -> str | None:
        with suppress(OSError):
            return read_file(self.path(name), private=True)
        return None

    def set(self, name: str, text: str) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.is_symlink():
            raise PermissionError
        self.folder.chmod(0o700)
        draft = self.folder / f".{os.getpid()}-{threading.get_ident()}"
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(text)
            draft.replace(self.path(name))  # one step: readers see the old text or the new one
        finally:
            draft.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        self.path(name).unlink()


def read_entry(place: Keyring | Files, name: str) -> str | None:
    """Return the text that a place has under a name, `None` where it has none, or half of one."""
    head = place.get(name)
    if head is None:
        return None
    return join_entry(head, [place.get(part) for part in part_names(name, head)])


def write_entry(place: Keyring | Files, name: str, text: str) -> bool:
    """Put a text of any length under a name, its first part last, and return True."""
    old = part_names(name, place.get(name) or "")
    head, *rest = split_entry(text)
    new = part_names(name, head)
    for part, value in zip(new, rest):
        place.set(part, value)
    place.set(name, head)
    for part in set(old) - set(new):
        place.delete(part)
    return True


def erase_entry(place: Keyring | Files, name: str) -> bool:
    """Delete what a place has under a name; whether it had anything."""
    head = place.get(name)
    for part in [] if head is None else [name, *part_names(name, head)]:
        place.delete(part)
    return head is not None


class Store:
    """Texts under names, kept for this process and, where there is a place, for the next.

    The place is the best other keyring; without one, files, for what may lie in a file. A place
    that fails costs one notice and nothing else: no method raises.
    """

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify

    def read(self, name: str, latest: bool = False) -> str | None:
        """Return the text kept under a name, or `None`; `latest` looks again where it is kept."""
        for place in self._places() if latest or name not in _memory else ():
            text = self._try(place, read_entry, place, name)
            if text is not None:
                _memory[name] = text
                break
        return _memory.get(name)

    def write(self, name: str, text: str, in_file: bool) -> bool:
        """Keep a text under a name, in a file only where told; whether a next process has it."""
        _memory[name] = text
        places = (place for place in self._places() if in_file or isinstance(place, Keyring))
        return any(self._try(place, write_entry, place, name, text) for place in places)

    def keeps(self) -> bool:
        """Whether a keyring really takes an entry, and gives it back."""
        return any(
            isinstance(place, Keyring)
            and self._try(place, write_entry, place, "probe", "probe")
            and self._try(place, read_entry, place, "probe") == "probe"
            and self._try(place, erase_entry, place, "probe")
            for place in self._places()
        )

    def erase(self, name: str) -> bool:
        """Forget a name everywhere; whether it was kept anywhere."""
        found = [self._try(place, erase_entry, place, name) for place in self._places()]
        return _memory.pop(name, None) is not None or any(found)

    def foreign(self, names: Sequence[tuple[str, str]], erase: bool = False) -> list[str]:
        """Return what other keyrings have under pairs of service and user name; also erase it."""
        found = []
        for keyring in (place for place in self._places() if isinstance(place, Keyring)):
            for pair in names:
                text = self._try(keyring, keyring.backend.get_password, *pair)
                if text is not None:
                    found.append(text)
                    if erase:
                        self._try(keyring, keyring.backend.delete_password, *pair)
        return found

    def _places(self) -> list[Keyring | Files]:
        """The other keyrings that are really there, the best first, and the folder for files."""
        places: list[Keyring | Files] = []
        backends = sorted(filter(is_store, get_all_keyring()), key=lambda each: -each.priority)
        places.extend(map(Keyring, backends))
        with suppress(RuntimeError):  # this user has no home
            places.append(Files(Path(platform_.data_root()) / "keyrings_artifacts"))
        return [place for place in places if place.label not in _broken]

    def _try(self, place: Keyring | Files, function: Callable[..., T], *arguments: Any) -> T | None:
        """Return what a place answers, or `None` where it fails."""
        try:
            return within(STORE_SECONDS, function, *arguments)
        except NotImplementedError:  # a provider of credentials like this one, which keeps nothing
            return None
        except Exception as error:  # a backend may raise anything
            _broken.add(place.label)
            self._notify(
                f"{place.label} could not be used ({type(error).__name__}): this sign-in may not "
                "be remembered. Unlock or repair it, or go on without."
            )
            return None


def is_store(backend: KeyringBackend) -> bool:
    """Whether a backend is another's and keeps secrets well: keyring's own rule is priority 1."""
    if isinstance(backend, (ArtifactsKeyringBackend, ChainerBackend)):
        return False
    try:
        return bool(backend.priority >= 1)
    except Exception:  # a priority is code, and may raise anything
        return False


# --- effects ----------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class World:
    """Every effect there is. `real_world` makes the real ones; tests make others."""

    environ: Mapping[str, str]
    host: str
    now: Callable[[], float]  # an epoch
    ticks: Callable[[], float]  # seconds that no change of the clock moves
    sleep: Callable[[float], None]  # seconds
    jitter: Callable[[], float]  # in [0, 1)
    send: Callable[[Request], Response]  # raises NetworkError
    which: Callable[[str], str | None]  # a program's full path
    run: Callable[[Sequence[str], float], Completed]  # seconds; raises TimeoutError, OSError
    read_text: Callable[[str], str]  # raises OSError, ValueError
    store: Store
    lock: Callable[[str, float], AbstractContextManager[Turn]]  # name, seconds
    notify: Callable[[str], None]  # to the person
    progress: Callable[[str], None]  # in place of the one before, on a terminal alone
    terminal: Callable[[], bool]  # whether a person can see one
    browser: Callable[[], Sequence[str] | None]  # see `browser_command`
    start: Callable[[Sequence[str]], bool]  # a program that goes on by itself
    listen: Callable[[str], AbstractContextManager[Listener]]  # state
    random: Callable[[], str]  # 64 characters that nobody can guess, fit for a URL


def real_world() -> World:
    """Return the effects on the machine this runs on; nothing is done until one is used."""
    import random
    import secrets
    import socket
    import time

    return World(
        environ=os.environ,
        host=socket.gethostname(),
        now=time.time,
        ticks=time.monotonic,
        sleep=time.sleep,
        jitter=random.random,
        send=send,
        which=which,
        run=run,
        read_text=read_file,
        store=Store(notify),
        lock=lock,
        notify=notify,
        progress=progress,
        terminal=lambda: terminal() is not None,
        browser=desktop_browser,
        start=start,
        listen=Listener,
        random=lambda: secrets.token_urlsafe(48),
    )


def within(seconds: float, function: Callable[..., T], *arguments: Any) -> T:
    """Return what a function returns, or raise what it raises, or `TimeoutError` after a while.

    No time-out of sockets bounds a look-up of names, or an answer that drips.
    """
    done: list[tuple[bool, Any]] = []

    def work() -> None:
        try:
            done.append((True, function(*arguments)))
        except BaseException as error:  # handed to the caller
            done.append((False, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise TimeoutError
    good, value = done[0]
    if good:
        return value  # type: ignore[no-any-return]  # what `function` returned
    raise value


def read_file(path: str | Path, private: bool = False) -> str:
    """Return the text of a small file; raises `OSError`, or `ValueError` where it is not text.

    A pipe nobody writes to is not waited for. With `private`, a file that is a link, another
    user's or open to others raises `PermissionError`.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    if private:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    with open(os.open(path, flags), "rb") as stream:
        if private and hasattr(os, "geteuid"):
            status = os.fstat(stream.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise PermissionError("open to others")
        return (stream.read(MAX_BODY) or b"").decode()


def terminal() -> TextIO | None:
    """Return the terminal on which a person can read, or `None`; never standard output or input.

    stderr where it is one, else the controlling terminal: pip 26 throws stderr away.
    """
    import sys

    if sys.stderr is not None and sys.stderr.isatty():
        return sys.stderr
    if "tty" not in _opened:
        path = "CONOUT$" if os.name == "nt" else "/dev/tty"
        try:
            _opened["tty"] = open(path, "w", encoding="utf-8", errors="replace")  # noqa: SIM115
        except OSError:
            _opened["tty"] = None
    return _opened["tty"]


_opened: dict[str, TextIO | None] = {}


def notify(text: str) -> None:
    """Tell the person: on a terminal, or on stderr, which may end in a log, without one."""
    import sys

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
            stream.write(f"\r{text[:78].ljust(78)}\r")
            stream.flush()


class Turn:
    """A turn at signing in to an organization, and what the one before left in the lock file."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream

    def ended_at(self) -> float:
        """Return the epoch at which a person last turned a sign-in down, 0 for never."""
        with suppress(OSError, ValueError):
            if self.stream is not None:
                self.stream.seek(0)
                return number(self.stream.read(40)) or 0
        return 0

    def end(self, now: float) -> None:
        """Note for those who wait that a sign-in came to nothing now, an epoch."""
        with suppress(OSError):
            if self.stream is not None:
                self.stream.seek(0)
                self.stream.write(f"{now:<30.3f}")
                self.stream.flush()


_turns: dict[str, threading.Lock] = {}


@contextmanager
def lock(name: str, seconds: float) -> Iterator[Turn]:
    """Let one thread of one process in at a time, under a name; after some seconds, anybody.

    The system frees the lock of a process that dies. Without a place for a file, threads alone.
    """
    turn = _turns.setdefault(name, threading.Lock())
    held = turn.acquire(timeout=seconds)
    stream = None
    try:
        with suppress(OSError, RuntimeError):
            folder = Path(platform_.data_root()) / "keyrings_artifacts"
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            stream = open(os.open(folder / f"{name}.lock", flags, 0o600), "r+")  # noqa: SIM115
            lock_file(stream, seconds)
        yield Turn(stream)
    finally:
        if stream is not None:
            stream.close()
        if held:
            turn.release()


def lock_file(stream: TextIO, seconds: float) -> None:
    """Wait for the lock of a file, which closing it gives up; no longer than some seconds."""
    import sys
    import time

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
        except (BlockingIOError, PermissionError):
            if time.monotonic() >= end:
                return
            time.sleep(0.05)
        else:
            return


def desktop_browser() -> list[str] | None:
    """Return `browser_command` for this machine."""
    import sys

    container = os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")
    return browser_command(os.environ, sys.platform, container, which)


def start(command: Sequence[str]) -> bool:
    """Start a program that goes on by itself; whether it started, and did not fail at once."""
    import subprocess

    null = subprocess.DEVNULL
    try:
        process = subprocess.Popen(  # noqa: S603  a full path, and an address of our own
            command, stdin=null, stdout=null, stderr=null, start_new_session=True
        )
        return process.wait(1.0) == 0
    except subprocess.TimeoutExpired:
        process.returncode = 0  # it is the system's now, and no warning is due
        return True
    except OSError:
        return False


class Listener:
    """A port of this machine to which a browser brings the answer of a sign-in."""

    def __init__(self, state: str) -> None:
        import http.server
        import queue

        self._answers: queue.Queue[dict[str, str]] = queue.Queue()
        self._empty = queue.Empty
        self._shown = threading.Event()
        listener = self

        class Door(http.server.BaseHTTPRequestHandler):
            timeout = 10  # seconds without a byte

            def do_GET(self) -> None:
                listener.serve(self, answer_browser(self.path, "", state))

            def do_POST(self) -> None:
                size = int(number(self.headers.get("Content-Length")) or 0)
                form = self.rfile.read(min(max(size, 0), MAX_TOKEN)).decode("ascii", "replace")
                listener.serve(self, answer_browser(self.path, form, state))

            def log_message(self, *_: object) -> None:
                """Nothing: the line would hold the code."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a browser left
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def serve(self, door: Any, page: Page) -> None:
        """Show a page, and pass on the answer that it is for."""
        body = f"<!doctype html><title>keyrings.artifacts</title><p>{page.text}</p>".encode()
        door.send_response(page.status)
        for name, value in {**PAGE_HEADERS, "Content-Length": str(len(body))}.items():
            door.send_header(name, value)
        if page.status == 303:
            self._shown.clear()
            door.send_header("Location", "/")
        door.end_headers()
        door.wfile.write(body)
        if page.answer:
            self._answers.put(dict(page.answer))
        if page.status == 200:
            self._shown.set()

    def wait(self, seconds: float) -> dict[str, str] | None:
        """Return the answer that a browser brought within some seconds, or `None`."""
        try:
            return self._answers.get(timeout=seconds) if seconds else self._answers.get_nowait()
        except self._empty:
            return None

    def finish(self) -> None:
        """Give the browser a moment to show the last page: the port is closed after."""
        self._shown.wait(2.0)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def which(program: str) -> str | None:
    """Return the full path of a program on PATH, or `None`; never one in the current folder."""
    import shutil

    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join(folder for folder in folders if os.path.isabs(folder))
    names = (f"{program}.cmd", f"{program}.exe") if os.name == "nt" else (program,)
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    # Windows looks in the current folder first, whatever the path.
    own = found is None or not os.path.isabs(found) or os.path.dirname(found) == os.getcwd()
    return None if own else found


def run(command: Sequence[str], seconds: float) -> Completed:
    """Run a program to its end: no shell, no standard input, nothing of ours on its output.

    Raises `TimeoutError` after it was ended with all its children, `OSError` where it can't start.
    """
    import signal
    import subprocess

    group: dict[str, Any] = {"start_new_session": True}
    if os.name == "nt":
        group = {"creationflags": 0x08000000}  # CREATE_NO_WINDOW
    process = subprocess.Popen(  # noqa: S603  a full path, and arguments of our own
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=os.environ.get("SYSTEMROOT") if os.name == "nt" else "/",
        env={**os.environ, "AZURE_CORE_NO_COLOR": "true", "NO_COLOR": "1"},
        **group,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    except BaseException as error:
        if os.name == "nt":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise TimeoutError from None
        raise
    return Completed(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))


def send(request: Request) -> Response:
    """Send a request: verified TLS, the proxy of the environment or the system, no redirects.

    Raises `NetworkError`, which tells proxy, TLS and the rest apart.
    """
    import urllib3.exceptions as errors

    host = urlsplit(request.url).netloc
    try:
        return within(TRY_SECONDS, _send, request)
    except errors.ProxyError:
        raise NetworkError(
            f"The proxy did not let us through to {host}: check HTTPS_PROXY, with user name and "
            "password where it wants them, and NO_PROXY."
        ) from None
    except errors.SSLError:
        raise NetworkError(
            f"The certificate of {host} is not trusted: if your company inspects traffic, name "
            "its CA file in SSL_CERT_FILE or REQUESTS_CA_BUNDLE, or install truststore.",
            passing=False,
        ) from None
    except (TimeoutError, errors.TimeoutError):
        raise NetworkError(
            f"{host} did not answer within {TRY_SECONDS:.0f} seconds: check the network and "
            "HTTPS_PROXY, then try again."
        ) from None
    except (errors.HTTPError, OSError) as error:
        raise NetworkError(
            f"{host} could not be reached ({type(error).__name__}): check the network and "
            "HTTPS_PROXY, then try again."
        ) from None


def _send(request: Request) -> Response:
    answer = _pool(urlsplit(request.url).netloc).request(
        request.method,
        request.url,
        body=request.body,
        headers=dict(request.headers),
        retries=False,
        redirect=False,
        preload_content=False,
        timeout=TRY_SECONDS,
    )
    try:
        body = b""
        while len(body) <= request.body_limit and request.body_limit:
            part = answer.read(request.body_limit, decode_content=False)
            if not part:
                break
            body += part
    finally:
        answer.close()
    if len(body) > request.body_limit:
        raise OSError("too long an answer")
    headers = tuple((name.lower(), value) for name, value in answer.headers.items())
    return Response(answer.status, headers, body)


def _pool(host: str) -> Any:
    """Return a pool of connections to a host, through the proxy that stands for it."""
    import urllib.request

    import urllib3

    proxies = urllib.request.getproxies()
    proxy = proxies.get("https") or proxies.get("all") or ""
    if not proxy or urllib.request.proxy_bypass(host):
        return urllib3.PoolManager(ssl_context=_trust())
    parts = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
    headers = None
    if parts.auth:
        pair = base64.b64encode(unquote(parts.auth).encode()).decode()
        headers = {"Proxy-Authorization": f"Basic {pair}"}
    try:
        return urllib3.ProxyManager(
            parts._replace(auth=None).url,
            proxy_headers=headers,
            ssl_context=_trust(),
            proxy_ssl_context=_trust(),
        )
    except urllib3.exceptions.ProxySchemeUnknown:
        raise NetworkError(
            f"The proxy for {host} is of a kind that does not work here "
            f"({shown(parts.scheme, 20)}): set HTTPS_PROXY to an http:// or https:// proxy.",
            passing=False,
        ) from None


def _trust() -> Any:
    """Return the TLS context: the system's store, and the files that the environment adds."""
    import ssl

    try:
        import truststore
    except ImportError:
        context = ssl.create_default_context()
    else:
        context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    named = (os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"))
    for path in dict.fromkeys(path for path in named if path):
        if path != os.environ.get("SSL_CERT_FILE"):
            place = {"capath" if os.path.isdir(path) else "cafile": path}
            try:
                context.load_verify_locations(**place)
            except (OSError, ssl.SSLError):
                raise NetworkError(
                    f"The CA file {shown(path)} cannot be used: mend REQUESTS_CA_BUNDLE, "
                    "CURL_CA_BUNDLE or PIP_CERT.",
                    passing=False,
                ) from None
    return context


# --- backend ----------------------------------------------------------------------------------


class ArtifactsKeyringBackend(KeyringBackend):
    """Answers keyring for Azure Artifacts feeds, and for nothing else."""

    # Above the 9.9 of its four peers, whose ties keyring breaks at random; below the chainer's 10,
    # at which every other keyring would go dead.
    priority = 9.95

    def get_password(self, service: str, username: str | None) -> str | None:
        """Return a feed's password for any user name; `None` for other services. Never raises."""
        credential = self.get_credential(service, username)
        return None if credential is None else credential.password

    def get_credential(self, service: str, username: str | None) -> SimpleCredential | None:
        """Return a feed's credential under the user name asked for, or the customary one.

        `None` for other services, for public feeds, and after a notice to the person where there
        is no credential to be had. Never raises.
        """
        feed = parse_feed(service)
        if feed is None:
            return None
        world = real_world()
        try:
            answer = credential_for(feed, service, username, world)
        except ArtifactsError as error:
            problem = str(error)
        except KeyboardInterrupt:
            raise SystemExit(130) from None  # as a shell says it, and no traceback
        except Exception as error:  # a caller of keyring must not fall with us
            problem = f"an error of its own ({type(error).__name__}): please report it."
            log.debug("unexpected", exc_info=True)
        else:
            if answer is None:
                return None
            name = username or answer.username or world.environ.get("AZURE_DEVOPS_USERNAME")
            return SimpleCredential(name or DEFAULT_USERNAME, answer.password)
        if not feed.bare:  # pip and uv have just asked by URL, and been told
            world.notify(problem)
        return None

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a PAT of the person's own for the organization of a feed, for every user name.

        Raises `PasswordSetError` where no keyring can keep it, `NotOurs` for other services.
        """
        feed = parse_feed(service)
        if feed is None:
            raise NotOurs("keyrings.artifacts keeps credentials of Azure Artifacts feeds only.")
        try:
            session = Session(clean_token(password, "The password"), "set", checked=0)
        except ArtifactsError as error:
            raise PasswordSetError(str(error)) from None
        if not keep(feed, session, real_world()):
            raise PasswordSetError(
                "There is no keyring here that can keep a personal access token: put it in a file "
                "of your own and name that in AZURE_DEVOPS_EXT_PAT_FILE."
            )

    def delete_password(self, service: str, username: str) -> None:
        """Forget everything kept for the organization of a feed, whatever the user name.

        Raises `PasswordDeleteError` where there was nothing, `NotOurs` for other services.
        """
        feed = parse_feed(service)
        if feed is None:
            raise NotOurs("keyrings.artifacts keeps credentials of Azure Artifacts feeds only.")
        world = real_world()
        try:
            told = sign_out(feed, service, username, world)
        except ArtifactsError as error:
            raise PasswordDeleteError(str(error)) from None
        if told is None:
            raise PasswordDeleteError(f"Nothing is kept for organization '{feed.organization}'.")
        world.notify(told)
