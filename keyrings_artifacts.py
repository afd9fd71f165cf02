# SPDX-FileCopyrightText: 2026 The keyrings.artifacts authors
# SPDX-License-Identifier: MIT
"""Keyring backend for Azure Artifacts: signs pip, uv, pixi and twine in to private feeds.

Tools ask `keyring` for a password; this backend answers for feeds at `pkgs.dev.azure.com` and
`NAME.pkgs.visualstudio.com`, and for nothing else. It needs Python 3.9, `keyring` 23 and `urllib3`
1.26 or newer. keyring finds it where it is installed; a copied file is used with its folder on
PYTHONPATH and PYTHON_KEYRING_BACKEND=keyrings_artifacts.ArtifactsKeyringBackend.

`credential_for` below is the whole flow. What it calls are functions over plain values, and every
effect (network, programs, files, clock, terminal) is a field of `World`. `None` means "not mine" or
"does not apply here"; an `ArtifactsError` means "mine, and broken", and tells the user what to do.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Callable, Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlencode, urlsplit

from keyring.backend import KeyringBackend
from keyring.credentials import SimpleCredential
from keyring.errors import PasswordDeleteError, PasswordSetError

__version__ = "2.1.0"
__all__ = ["ArtifactsKeyringBackend"]


# --- the flow --------------------------------------------------------------------------------
def credential_for(feed: Feed, world: World) -> SimpleCredential | None:
    """Return the credential for a feed, `None` where it is public. Raises where there is none."""
    given = given_credential(feed, world)
    if given is not None:
        return given
    session = kept_session(feed, world)
    if session is None:
        challenge = read_challenge(feed, fetch(feed_request(feed), world))
        try:
            # One process signs in; those who could only fail in the same way share its failure.
            place = silence(feed, world.environ) or world.has_terminal()
            client = first(world.environ, "AZURE_CLIENT_ID", "servicePrincipalId")
            with world.lock(f"{feed.organization} {challenge.public} {place} {client}"):
                session = kept_session(feed, world, again=True) or sign_in(challenge, world)
        except ArtifactsError:
            if challenge.public:
                return None
            raise
    return SimpleCredential("", session.token)


# --- values and constants --------------------------------------------------------------------
# Azure DevOps in Entra, and the client: https://github.com/microsoft/artifacts-credprovider
AZURE_DEVOPS: Final = "499b84ac-1321-427f-aa17-267ca6975798"
AZURE_DEVOPS_SCOPE: Final = f"{AZURE_DEVOPS}/.default"
CLIENT_ID: Final = "d5a56ea4-7369-46b8-a538-c370805301bf"
SIGN_IN_SCOPE: Final = f"{AZURE_DEVOPS_SCOPE} offline_access openid profile"
# https://learn.microsoft.com/azure/devops/integrate/get-started/authentication/oauth#scopes
SESSION_SCOPE: Final = "vso.packaging_write"
USERNAME: Final = "VssSessionToken"  # artifacts-credprovider's; Azure Artifacts ignores the name
# https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud, public cloud
SIGN_IN: Final = "https://login.microsoftonline.com"
SIGN_IN_HOSTS: Final = ("login.microsoftonline.com", "login.microsoft.com", "login.windows.net")
DEVICE_HOSTS: Final = ("microsoft.com", "www.microsoft.com", *SIGN_IN_HOSTS)
NO_TENANT: Final = "00000000-0000-0000-0000-000000000000"  # of personal accounts
GUID: Final = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

MARGIN: Final = 5 * 60.0  # seconds; a token with less left counts as expired, as in MSAL
CHECKED_SECONDS: Final = 3600.0  # how long an accepted session is used without asking the feed
SESSION_SECONDS: Final = 24 * 3600.0  # artifacts-credprovider's limit for a session token
SIGN_IN_SECONDS: Final = 180.0  # to wait for a user
PATIENT_SECONDS: Final = 30.0  # for programs, a locked keyring, a request not to be sent again
DROPPED: Final = "dropped"
REQUEST_SECONDS: Final = 10.0  # from connecting to the last byte
MAX_BODY: Final = 1 << 18  # bytes; an answer with a token has a few thousand
ISSUER_FIX: Final = "grant 'id-token: write' (GitHub) or map SYSTEM_ACCESSTOKEN (Azure Pipelines)"
NO_SUCH_FEED: Final = "There is no such feed (404): check organization, project and feed in {}."

HEADERS: Final = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": f"keyrings.artifacts/{__version__}",
    "X-TFS-FedAuthRedirect": "Suppress",  # 401 in place of a redirect to a sign-in page
}
DOCKER_SECRET: Final = "/run/secrets/azure_devops_ext_pat"  # noqa: S105  a path
EXTERNAL_ENDPOINTS: Final = (
    "ARTIFACTS_CREDENTIALPROVIDER_EXTERNAL_FEED_ENDPOINTS",
    "VSS_NUGET_EXTERNAL_FEED_ENDPOINTS",
)
ACCESS_TOKENS: Final = ("ARTIFACTS_CREDENTIALPROVIDER_ACCESSTOKEN", "VSS_NUGET_ACCESSTOKEN")
URI_PREFIXES: Final = ("ARTIFACTS_CREDENTIALPROVIDER_URI_PREFIXES", "VSS_NUGET_URI_PREFIXES")
CA_FILES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
# Not passed on to programs, in any case of letters; IDENTITY_HEADER is, as az may need it.
GIVEN: Final = (*EXTERNAL_ENDPOINTS, "AZURE_DEVOPS_EXT_PAT", *ACCESS_TOKENS, "SYSTEM_ACCESSTOKEN")
PROOFS: Final = ("SERVICEPRINCIPALKEY", "IDTOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
SECRET_VARIABLES: Final = (*GIVEN, *PROOFS, "AZURE_CLIENT_SECRET")


class Feed(NamedTuple):
    """A feed as a caller of keyring spelled it; `organization` is the key of everything kept."""

    organization: str
    url: str
    bare: bool = False  # asked by host name alone, the second question of pip and uv


class Challenge(NamedTuple):
    """What a feed answers to a stranger: who signs users in, and who issues session tokens."""

    feed: Feed
    tenant: str  # GUID of the Entra tenant, or "organizations"
    token_service: str  # URL without a closing slash
    public: bool = False  # anybody may read the feed


class Bearer(NamedTuple):
    """An Entra access token; `expires` is an epoch. `refresh` is of a sign-in here alone."""

    token: str
    expires: float
    source: str
    person: bool  # a user's, which is exchanged; not an application's
    account: str = ""  # for display
    refresh: str = ""

    def __repr__(self) -> str:  # a secret is in no repr, and so in no traceback or failing test
        return "Bearer()"


class Session(NamedTuple):
    """What is kept for an organization: its credential, and the refresh token that renews it."""

    token: str
    kind: str  # "session", "entra", "application", "set" (a user's PAT), "refresh" (no token)
    checked: float  # the epoch when the service accepted it last
    expires: float = 1e11  # an epoch, far away where it is unknown
    refresh: str = ""

    def __repr__(self) -> str:
        return "Session()"


class Request:
    """An HTTP request. At most `limit` bytes of the answer's body are read; 0 for headers alone."""

    body: bytes | None = None
    limit: int = MAX_BODY
    direct: bool = False  # past any proxy: an identity endpoint of this machine
    spends: bool = False  # not sent again: without an answer it may have worked

    def __init__(self, method: str, url: str, headers: Mapping[str, str], **others: Any) -> None:
        self.method, self.url, self.headers = method, url, headers
        vars(self).update(others)

    @property
    def host(self) -> str:
        return shown(re.split("[/?#]", self.url.partition("//")[2])[0].rpartition("@")[2], 80)


class Response:
    """Its answer. Header names are in lower case, repeated headers joined by ", "."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.status, self.headers, self.body = status, headers, body


class ArtifactsError(Exception):
    """Ours, and broken: the text tells the user what happened, and what fixes it."""

    def __init__(self, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.reason = reason  # for the caller: Entra's code, or what a program said on stderr


class NetworkError(ArtifactsError):
    """No usable answer from a host; its `reason` is DROPPED where another try may help."""


class NotOursError(PasswordSetError, PasswordDeleteError, NotImplementedError):
    """A write for another service: keyring's chainer passes on, and callers of keyring catch it."""


# --- parsing what others wrote ---------------------------------------------------------------
def shown(text: object, limit: int = 200) -> str:
    """Return outside text fit for a terminal: one line of printable characters, cut at a limit."""
    printable = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    return " ".join(printable.split())[:limit]


def first_name(environ: Mapping[str, str], *names: str) -> str:
    """Return the name of the first variable that is not blank, "" where all are."""
    return next((name for name in names if environ.get(name, "").strip()), "")


def first(environ: Mapping[str, str], *names: str) -> str:
    """Return the text of that variable without outer blanks, "" where all are blank."""
    return environ.get(first_name(environ, *names), "").strip()


def is_token(value: object) -> bool:
    """Whether a value can be a credential, and is no `$(Name)`, `%NAME%`, `<token>` or `"..."`."""
    return isinstance(value, str) and bool(re.fullmatch(r"[\w.~+/=-][!-~]{0,16383}", value, re.A))


def clean_token(value: str, name: str) -> str:
    """Return a credential given under a name, without outer blanks; raises where it can be none."""
    if is_token(value.strip()):
        return value.strip()
    text = f"{name} holds no token, but blanks, quotation marks or a placeholder such as $(Name)"
    raise ArtifactsError(f"{text}: put the token itself there, or remove it.")


def text_of(data: bytes) -> str:
    """Return bytes that a service, a program or a user wrote as text; a BOM tells UTF-16."""
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # of PowerShell's `>`
    return data.decode("utf-16" if utf16 else "utf-8-sig", errors="replace")


def number(value: object) -> float | None:
    """Return a positive number that a service wrote as a number or as text, else `None`."""
    with suppress(TypeError, ValueError, OverflowError):
        found = float(value)  # type: ignore[arg-type]  # whatever JSON holds
        return found if 0 < found < 1e12 and not isinstance(value, bool) else None
    return None


def parse_date(text: object) -> float | None:
    """Return the epoch of an HTTP date or an ISO 8601 time in UTC, else `None`."""
    from email.utils import parsedate_to_datetime

    iso = re.match(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)", str(text), re.A)
    with suppress(TypeError, ValueError, IndexError, OverflowError):
        if iso:
            return datetime.datetime.fromisoformat(f"{iso[1]}T{iso[2]}+00:00").timestamp()
        return parsedate_to_datetime(str(text)).timestamp()
    return None


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """Return the JSON object in a text or its bytes, else `{}`. Azure DevOps may send a BOM."""
    with suppress(ValueError, RecursionError):
        value = json.loads(text_of(raw) if isinstance(raw, bytes) else raw)
        return value if isinstance(value, dict) else {}
    return {}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def claims(token: str) -> dict[str, Any]:
    """Return the payload of a JWT, unverified, for display and expiry; `{}` for other tokens."""
    with suppress(IndexError, ValueError):
        payload = token.split(".")[1]
        return parse_object(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return {}


def read_bearer(source: str, body: Mapping[str, Any], now: float) -> Bearer:
    """Return the token in what a service or a program answered; raises where there is none."""
    token = next(filter(is_token, map(body.get, ("access_token", "accessToken", "token"))), None)
    if token is None:
        raise ArtifactsError(f"{source} gave no token ({error_code(body)}).")
    payload, lasts = claims(token), number(body.get("expires_in"))
    ends = number(payload.get("exp")) or number(body.get("expires_on")) or now + 3600
    expires = now + lasts if lasts else ends  # a lifetime first: the clock here may be wrong
    names = map(payload.get, ("upn", "unique_name", "preferred_username", "email"))
    account = shown(next(filter(None, names), ""), 100)
    # https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
    application = any(map(payload.get, ("roles", "appid", "azp")))
    delegated = payload.get("scp") or account or not application
    person = {"app": False, "user": True}.get(str(payload.get("idtyp")), bool(delegated))
    return Bearer(token, expires, source, person, account)


def find_token(printed: str) -> dict[str, Any]:
    """Return the JSON object with a token in what a program printed, else a bare token as one."""
    # az and PowerShell print notices, warnings and colours beside it.
    text = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\))", "", printed)
    for match in re.finditer(r"\{", text):
        with suppress(ValueError, RecursionError):
            found, _ = json.JSONDecoder().raw_decode(text, match.start())
            if any(is_token(found.get(key)) for key in ("accessToken", "access_token", "token")):
                return dict(found)
    bare = re.findall(r"\beyJ[\w-]+(?:\.[\w-]+){2,4}", text, re.A)  # a JWT, else a whole line
    bare = bare or [line for line in map(str.strip, text.splitlines()) if is_token(line)]
    return {"token": max(bare, key=len)} if len(max(bare, key=len, default="")) > 8 else {}


def error_code(body: Mapping[str, Any]) -> str:
    """Return Entra's code for an error, such as "invalid_grant, AADSTS50076", never its text."""
    code = re.search(r"AADSTS\d{4,9}", str(body.get("error_description")))
    word = re.fullmatch(r"[\w.-]{1,60}", str(body.get("error") or ""), re.A)
    return ", ".join(found[0] for found in (word, code) if found) or "no reason"


# --- feeds -----------------------------------------------------------------------------------
def parse_address(url: str) -> tuple[str, str] | None:
    """Return host and path of an https URL on the default port, percent-encoded, else `None`."""
    url = url.strip(" ")
    if any(c < " " or c in "\x7f\\" or "\ud800" <= c <= "\udfff" for c in url):
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    user, _, authority = parts.netloc.rpartition("@")
    match = re.fullmatch(r"([A-Za-z0-9.-]+)(:443)?", authority)
    dots = {".", ".."} & {unquote(segment) for segment in re.split("/|%2f", parts.path.lower())}
    if parts.scheme != "https" or "@" in user or match is None or dots:
        return None
    path = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", parts.path)
    return match[1].lower(), quote(path, safe="%/@:+,=~")


def parse_feed(service: str) -> Feed | None:
    """Return the feed that a caller of keyring means, `None` for every other service."""
    bare = "://" not in service
    host, path = parse_address("https://" + service if bare else service) or ("", "")
    if host == "pkgs.dev.azure.com":
        name = unquote(path.removeprefix("/").partition("/")[0]).lower()
    else:
        legacy = re.fullmatch(r"([a-z0-9-]+)\.pkgs\.visualstudio\.com", host)
        name = legacy[1] if legacy else ""
    if (bare and path) or not re.fullmatch(r"[^\W_][\w.-]*", name):
        return None
    return Feed(name, f"https://{host}{path or '/'}", bare)


def depth(endpoint: str, feed: Feed) -> int:
    """Return how closely an endpoint of a setting holds a feed; 0 where it does not."""
    prefix = "".join(parse_address(endpoint) or ()).rstrip("/").lower()
    url = f"{feed.url.partition('://')[2].rstrip('/')}/".lower()
    return len(prefix) if url.startswith(f"{prefix}/") else 0


# --- given: what the environment says outright -----------------------------------------------
def given_credential(feed: Feed, world: World) -> SimpleCredential | None:
    """Return the credential that the environment names for a feed, `None` without one. Raises."""
    for name, token, username in given_tokens(feed, world):
        if token.strip():
            world.trace(f"given by {name}")
            return SimpleCredential(username, clean_token(token, name))
    return None


def given_tokens(feed: Feed, world: World) -> Iterator[tuple[str, str, str]]:
    """Yield name, text (perhaps blank) and user name of the tokens that the environment has."""
    environ = world.environ
    entry = closest_endpoint(feed, environ)
    username, password = (str(entry.get(key) or "") for key in ("username", "password"))
    yield f"a password in {first_name(environ, *EXTERNAL_ENDPOINTS)}", password, username
    yield "AZURE_DEVOPS_EXT_PAT", environ.get("AZURE_DEVOPS_EXT_PAT", ""), ""
    for name in ("AZURE_DEVOPS_EXT_PAT_FILE", DOCKER_SECRET):
        yield name, read_secret(name, world), ""
    if any(depth(prefix, feed) for prefix in first(environ, *URI_PREFIXES).split(";")):
        yield first_name(environ, *ACCESS_TOKENS), first(environ, *ACCESS_TOKENS), ""
    if pipeline_organization(environ) in ("", feed.organization):
        yield "SYSTEM_ACCESSTOKEN", environ.get("SYSTEM_ACCESSTOKEN", ""), ""


def closest_endpoint(feed: Feed, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the entry in artifacts-credprovider's JSON closest to a feed, else {}. Raises."""
    name = first_name(environ, *EXTERNAL_ENDPOINTS)
    text = environ.get(name, '{"endpointCredentials": []}')
    try:
        value = json.loads(text, object_hook=lambda each: {k.lower(): each[k] for k in each})
        listed = reversed(value["endpointcredentials"])  # of two alike the first counts
        entries = {depth(str(entry["endpoint"]), feed): entry for entry in listed}
    except (ValueError, TypeError, KeyError, RecursionError):
        text = f'{name} is not JSON as {{"endpointCredentials": [...]}}: fix or unset it.'
        raise ArtifactsError(text) from None
    return dict(entries[max(entries)]) if max(entries, default=0) else {}


def read_secret(name: str, world: World) -> str:
    """Return the text of the file that a variable names, or of Docker's; "" for none. Raises."""
    path = name if name == DOCKER_SECRET else first(world.environ, name)
    try:
        return text_of(world.read(path)) if path else ""
    except (OSError, ValueError) as error:
        if name == DOCKER_SECRET and isinstance(error, FileNotFoundError):
            return ""
        why = getattr(error, "strerror", None) or "no file name"
        raise ArtifactsError(f"{name}: the file cannot be read ({why}).") from None


def pipeline_organization(environ: Mapping[str, str]) -> str:
    """Return the organization that this is a pipeline's job of, "" where nothing says so."""
    uri = first(environ, "SYSTEM_COLLECTIONURI", "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI")
    feed = parse_feed(re.sub(r"(?i)\b(dev\.azure|visualstudio)\.com", r"pkgs.\1.com", uri))
    return feed.organization if feed else uri and "a server of its own"


# --- discovery and exchange ------------------------------------------------------------------
def feed_request(feed: Feed, token: str = "") -> Request:
    pair = base64.b64encode(f"{USERNAME}:{token}".encode()).decode()
    headers = {**HEADERS, "Authorization": f"Basic {pair}"} if token else HEADERS
    return Request("GET", feed.url, headers, limit=0)


def is_sign_in(response: Response) -> bool:
    """Whether an answer means "who are you": 401, a sign-in page, or a redirect to one."""
    return response.status in (203, 301, 302, 307, 308, 401)  # 303 leads to a package's file


def read_challenge(feed: Feed, response: Response) -> Challenge:
    """Return the challenge in a feed's answer to an unauthenticated GET. Raises."""
    # WWW-Authenticate: Bearer authorization_uri=https://HOST/TENANT, trusted for Microsoft's hosts
    status, headers, host = response.status, response.headers, urlsplit(feed.url).netloc
    uploads = feed.url.rstrip("/").endswith("/upload")
    if status == 404 and "/_packaging/" in feed.url and not uploads:
        raise ArtifactsError(NO_SUCH_FEED.format(feed.url))
    if not is_sign_in(response) and status != 404 and "x-vss-e2eid" not in headers:
        text = f"{host} answered {status} without the marks of Azure DevOps"
        raise NetworkError(f"{text}: a proxy, firewall or sign-in page answered in its place.")
    if status == 403:
        code = refusal_code(response)
        raise ArtifactsError(f"{host} refuses requests from here ({code}): ask an administrator.")
    told = headers.get("www-authenticate", "")
    uris = re.findall(r"(?i)authorization_uri\s*=\s*\"?([^\",\s]+)", told)
    hosts = f"https://({'|'.join(map(re.escape, SIGN_IN_HOSTS))})(:443)?/"
    tenants = {re.sub(f"^{hosts}|(/oauth2/[\\w./]+)?/?$", "", uri.lower()) for uri in uris}
    tenants |= set(re.split(r"[,\s]+", headers.get("x-vss-resourcetenant", "").strip().lower()))
    tenants -= {"", NO_TENANT, "common", "organizations", "consumers"}
    if len(tenants) > 1 or not all(re.fullmatch(GUID, tenant) for tenant in tenants):
        text = f"{host} named several tenants, or a sign-in address that is not Microsoft's"
        raise ArtifactsError(f"{text}: nothing was sent there. Check what is in between.")
    service = token_service(feed, headers.get("x-vss-authorizationendpoint", ""))
    tenant = tenants.pop() if tenants else "organizations"
    return Challenge(feed, tenant, service, status in (200, 303) and not uploads)


def token_service(feed: Feed, told: str) -> str:
    """Return the URL that issues session tokens: the legacy one where the feed names it."""
    legacy = f"https://{quote(feed.organization)}.vssps.visualstudio.com"
    documented = f"https://vssps.dev.azure.com/{quote(feed.organization)}"
    return legacy if told.strip().rstrip("/").lower() == legacy else documented


def session_request(challenge: Challenge, bearer: Bearer, valid_to: float | None) -> Request:
    # https://github.com/microsoft/artifacts-credprovider, `VstsSessionTokenClient.cs`
    body = {"displayName": "keyrings.artifacts", "scope": SESSION_SCOPE}
    if valid_to is not None:
        moment = datetime.datetime.fromtimestamp(int(valid_to), datetime.timezone.utc)
        body["validTo"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    query = {"tokenType": "SelfDescribing", "api-version": "5.0-preview.1"}
    url = with_query(f"{challenge.token_service}/_apis/Token/SessionTokens", **query)
    text = json.dumps(body).encode()
    return Request("POST", url, bearer_headers(bearer.token), body=text, spends=True)


def read_session_token(response: Response, now: float) -> Session | None:
    """Return the session in the token service's answer, `None` where it issued none."""
    body = parse_object(response.body)
    token = body.get("token")
    if response.status != 200 or not isinstance(token, str) or not is_token(token):
        return None
    there = parse_date(response.headers.get("date")) or now  # the clock here may be wrong
    ends = filter(None, map(number, (parse_date(body.get("validTo")), claims(token).get("exp"))))
    return Session(token, "session", now, now + min(ends, default=there + SESSION_SECONDS) - there)


def exchange(challenge: Challenge, bearer: Bearer, world: World) -> Session:
    """Return the narrowest session that the organization gives for an Entra token. Raises."""
    # Where an account or a policy is refused (a code, or "sign in"), nothing wider is handed out.
    now = world.now()
    lifetimes = (now + SESSION_SECONDS, None) if bearer.person else ()  # applications get none
    for valid_to in lifetimes:
        response = fetch(session_request(challenge, bearer, valid_to), world)
        session = read_session_token(response, now)
        if session is not None:
            return session
        if response.status == 200:
            raise NetworkError(f"{challenge.token_service} answered without a token.")
        if response.status != 400:  # which answers a lifetime that a policy does not allow
            break
    if bearer.person and refusal_code(response) != "403":  # bare, it is for session tokens alone
        check_refusal(challenge, bearer, response)
    response = fetch(feed_request(challenge.feed, bearer.token), world)
    check_refusal(challenge, bearer, response)
    if response.status == 404 and bearer.person:
        raise ArtifactsError(NO_SUCH_FEED.format(challenge.feed.url))
    kind = "entra" if bearer.person else "application"
    return Session(bearer.token, kind, now, bearer.expires)


def refusal_code(response: Response) -> str:
    """Return the code in a refusal of Azure DevOps, such as TF400813, else the status."""
    told = f"{text_of(response.body)} {response.headers.get('x-tfs-serviceerror', '')}"
    code = re.search(r"\b(TF|VS)\d{5,7}\b", unquote_plus(told))
    return code[0] if code else str(response.status)


def check_refusal(challenge: Challenge, bearer: Bearer, response: Response) -> None:
    """Raise where an answer refuses an account: 401, a redirect, 403, or a code that says so."""
    code, name = refusal_code(response), challenge.feed.organization
    if not (is_sign_in(response) or response.status == 403 or code.startswith(("TF40", "VS403"))):
        return
    page, who = f"https://dev.azure.com/{quote(name)}", bearer.account or "the account"
    fix = f"ask an administrator of {page} for access, or use another account"
    if code == "TF401444":
        fix = f"open {page} once in a browser with that account"
    raise ArtifactsError(f"organization '{name}' refused {who} ({code}): {fix}.")


def az_login(tenant: str) -> str:
    """Return the command that signs az in; without the scope it asks for no MFA (AADSTS50076)."""
    option = "" if tenant == "organizations" else f" --tenant {tenant}"
    return f"az login{option} --scope {AZURE_DEVOPS_SCOPE}"


def fetch(request: Request, world: World) -> Response:
    """Return the answer; three tries (one if it spends) for drops, 429 and 5xx. Raises."""
    for pause in [0.0] if request.spends else [0.5, 1.5, 0.0]:  # 0: no further try
        try:
            response = world.send(request)
        except NetworkError as error:
            if error.reason != DROPPED or not pause:
                raise
        else:
            world.trace(f"{request.method} {request.host}: {response.status}")
            if response.status != 429 and response.status < 500:
                return response
            if not pause:
                break
            pause = min(number(response.headers.get("retry-after")) or pause, 5.0)
        world.sleep(pause)
    raise NetworkError(f"{request.host} answered {response.status}: try again in a few minutes.")


# --- sources of an Entra token ---------------------------------------------------------------
def entra_request(tenant: str, path: str, form: Mapping[str, str], spends: bool = False) -> Request:
    headers = {**HEADERS, "Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"client_id": CLIENT_ID, **form}).encode()
    url = f"{SIGN_IN}/{quote(tenant, safe='')}/oauth2/v2.0/{path}"
    return Request("POST", url, headers, body=body, spends=spends)


def application_of(environ: Mapping[str, str]) -> tuple[str, str, str] | None:
    """Return id, tenant and secret (perhaps "") of an application fully configured, else `None`."""
    client = first(environ, "AZURE_CLIENT_ID", "servicePrincipalId", "AZURESUBSCRIPTION_CLIENT_ID")
    tenant = first(environ, "AZURE_TENANT_ID", "tenantId", "AZURESUBSCRIPTION_TENANT_ID")
    secret = first(environ, "AZURE_CLIENT_SECRET", "servicePrincipalKey")
    proof = secret or first_name(environ, *ISSUERS)
    return (client, tenant, secret) if client and proof else None


def service_principal(challenge: Challenge, world: World) -> Bearer | None:
    """Return the token of the application that the environment configures, else `None`. Raises."""
    # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
    application = application_of(world.environ)
    if application is None:
        return None
    client, tenant, secret = application
    proof = "its secret"
    form = {"client_id": client, "grant_type": "client_credentials", "scope": AZURE_DEVOPS_SCOPE}
    if secret:
        form["client_secret"] = secret
    else:
        for proof in [name for name in ISSUERS if first(world.environ, name)]:
            token = form["client_assertion"] = clean_token(ISSUERS[proof](world), proof)
            if (number(claims(token).get("exp")) or world.now() + 1) > world.now():
                break  # else the next issuer may have a fresh one
        form["client_assertion_type"] = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    body = parse_object(fetch(entra_request(tenant or challenge.tenant, "token", form), world).body)
    if not is_token(body.get("access_token")):
        why = f"Entra refused application {shown(client, 40)} with {proof} ({error_code(body)})"
        fix = "renew that, or check client id, tenant, federated credential and clock"
        raise ArtifactsError(f"{why}: {fix}.")
    return read_bearer("service_principal", body, world.now())._replace(person=False)


def from_github(world: World) -> str:
    # https://docs.github.com/actions/concepts/security/openid-connect
    url = first(world.environ, "ACTIONS_ID_TOKEN_REQUEST_URL")
    bearer = first(world.environ, "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    url, headers = with_query(url, audience="api://AzureADTokenExchange"), bearer_headers(bearer)
    return str(ask_alone(Request("GET", url, headers), "value", ISSUER_FIX, world)["value"])


def from_azure_pipelines(world: World) -> str:
    # https://learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken/create
    connection = first(world.environ, "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID")
    query = {"api-version": "7.1", "serviceConnectionId": connection}
    url = with_query(first(world.environ, "SYSTEM_OIDCREQUESTURI"), **query)
    headers = bearer_headers(first(world.environ, "SYSTEM_ACCESSTOKEN"))
    asked = ask_alone(Request("POST", url, headers, body=b""), "oidcToken", ISSUER_FIX, world)
    return str(asked["oidcToken"])


# Who may vouch for this job (workload identity federation), by variable, in this order.
ISSUERS: Final[Mapping[str, Callable[[World], str]]] = {
    "AZURE_FEDERATED_TOKEN_FILE": lambda world: read_secret("AZURE_FEDERATED_TOKEN_FILE", world),
    "idToken": lambda world: first(world.environ, "idToken"),  # of AzureCLI@2
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": from_github,
    "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID": from_azure_pipelines,
}


def with_query(url: str, **query: str) -> str:
    """Return a URL with parameters added to those that it has: GitHub's has some."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"


def bearer_headers(token: str) -> dict[str, str]:
    return {**HEADERS, "Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def ask_alone(request: Request, key: str, fix: str, world: World) -> dict[str, Any]:
    """Return the answer, with a token, of a host that one source alone asks. Raises."""
    if not request.direct and not request.url.startswith("https://"):
        raise ArtifactsError(f"{request.host or 'The issuer'} is not asked without https: {fix}.")
    try:
        response = fetch(request, world)
    except NetworkError as error:  # without it the next source may do
        raise ArtifactsError(str(error)) from None
    body = parse_object(response.body)
    if not is_token(body.get(key)):
        code = f"{response.status}, {error_code(body)}"
        raise ArtifactsError(f"{request.host} gave no token ({code}): {fix}.")
    return body


def managed_identity(challenge: Challenge, world: World) -> Bearer | None:
    """Return the token of the identity that Azure gives this machine, else `None`. Raises."""
    # https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token,
    # https://learn.microsoft.com/azure/app-service/overview-managed-identity
    request = identity_request(world)
    if request is None:
        return None
    fix = "assign an identity to this machine, or correct AZURE_CLIENT_ID"
    body = ask_alone(request, "access_token", fix, world)
    return read_bearer("managed_identity", body, world.now())._replace(person=False)


def identity_request(world: World) -> Request | None:
    """Return the request for this platform's identity, `None` where there is no reason to ask."""
    environ, headers = world.environ, {"Metadata": "true"}
    client = first(environ, "AZURE_CLIENT_ID")
    host = first(environ, "AZURE_POD_IDENTITY_AUTHORITY_HOST")
    query = {"api-version": "2018-02-01", "resource": AZURE_DEVOPS}
    if first(environ, "IDENTITY_ENDPOINT") and first(environ, "IDENTITY_HEADER"):  # App Service
        url, query["api-version"] = first(environ, "IDENTITY_ENDPOINT"), "2019-08-01"
        headers["X-IDENTITY-HEADER"] = first(environ, "IDENTITY_HEADER")
    else:  # a VM, whose address leads nowhere elsewhere
        named = host or "managed_identity" in first(environ, "KEYRINGS_ARTIFACTS_SOURCES")
        if not named and (not client or application_of(environ)):
            return None
        url = f"{host.rstrip('/') or 'http://169.254.169.254'}/metadata/identity/oauth2/token"
    if client:
        query["client_id"] = client
    return Request("GET", with_query(url, **query), {**HEADERS, **headers}, direct=True)


def token_command(challenge: Challenge, world: World) -> Bearer | None:
    """Return the token that KEYRINGS_ARTIFACTS_TOKEN_COMMAND prints, `None` without one. Raises."""
    name = "KEYRINGS_ARTIFACTS_TOKEN_COMMAND"
    try:
        words = split_command(first(world.environ, name), os.name == "nt")
        if not words:
            return None
        program = world.which(words[0])
        if program is None:
            raise ArtifactsError("there is no such program on PATH.")
        found = find_token(world.run([program, *words[1:]], PATIENT_SECONDS))
        return read_bearer("token_command", found, world.now())
    except ArtifactsError as error:
        raise ArtifactsError(f"{name}: {error} Run it in a terminal to see why.") from None


def split_command(text: str, windows: bool) -> list[str]:
    """Return the words of a command line as a shell has them, paths of files here made absolute."""
    import shlex

    try:
        words = shlex.split(text.replace("\\", "\\\\") if windows else text)
    except ValueError:
        raise ArtifactsError("A quotation mark is missing.") from None
    words = [os.path.expanduser(word) for word in words]
    here = [bool(re.search(r"[/\\]", word)) and os.path.exists(word) for word in words]
    return [os.path.abspath(word) if path else word for word, path in zip(words, here)]


def azure_cli(challenge: Challenge, world: World) -> Bearer | None:
    """Return the token of the account that `az login` signed in, `None` without az. Raises."""
    az = world.which("az")
    if az is None:
        return None
    command = [az, "account", "get-access-token", "--output", "json", "--resource", AZURE_DEVOPS]
    tenant = [] if challenge.tenant == "organizations" else ["--tenant", challenge.tenant]
    for attempt in ([*command, *tenant], command):
        try:
            return read_bearer("az", find_token(world.run(attempt, PATIENT_SECONDS)), world.now())
        except ArtifactsError as error:
            failure = error
        if "managed identity" not in failure.reason.lower():  # it knows its own tenant alone
            break
    raise ArtifactsError(f"{failure} Run '{az_login(challenge.tenant)}'.")


def refusal(tenant: str, body: Mapping[str, Any]) -> ArtifactsError:
    # https://learn.microsoft.com/entra/identity-platform/reference-error-codes
    code, text = error_code(body), "Entra refused the sign-in"
    if re.search("access_denied|authorization_declined|AADSTS65004", code):
        text = "the sign-in was declined"
    elif re.search(r"AADSTS(53\d{3,4}|50097|50105|50131)", code):
        text = "a policy of your organization blocks this way"
    return ArtifactsError(f"{text} ({code}): try again, or run '{az_login(tenant)}'.", code)


def signed_in(source: str, tenant: str, form: Mapping[str, str], world: World) -> Bearer:
    """Return what Entra gives for a grant: an access token and a refresh token. Raises."""
    spends = form["grant_type"] != "refresh_token"  # Entra lets one be used more than once
    request = entra_request(tenant, "token", {"scope": SIGN_IN_SCOPE, **form}, spends)
    body = parse_object(fetch(request, world).body)
    if not is_token(body.get("access_token")):
        raise refusal(tenant, body)
    renewal = body.get("refresh_token") if is_token(body.get("refresh_token")) else ""
    return read_bearer(source, body, world.now())._replace(person=True, refresh=str(renewal))


def refresh_token(challenge: Challenge, world: World) -> Bearer | None:
    """Return a token by the refresh token of an earlier sign-in, `None` where there is none now."""
    session = read_session(world.store.read(challenge.feed.organization))
    if session is None or not session.refresh:
        return None
    form = {"grant_type": "refresh_token", "refresh_token": session.refresh}
    try:
        bearer = signed_in("refresh_token", challenge.tenant, form, world)
    except ArtifactsError as error:
        world.trace(str(error))
        if error.reason.startswith("invalid_grant"):  # over for good; others are of the moment
            world.store.erase(challenge.feed.organization)
        if isinstance(error, NetworkError):
            raise
        return None
    return bearer._replace(refresh=bearer.refresh or session.refresh)


def browser(challenge: Challenge, world: World) -> Bearer | None:
    """Return the token of a user who signs in in a browser, `None` without one. Raises."""
    # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow, PKCE (RFC 7636)
    state, verifier = world.random(), world.random()
    with world.listen(state) as server:
        redirect = f"http://localhost:{server.server_address[1]}"
        query = {
            "client_id": CLIENT_ID,
            "response_type": "code",
            "response_mode": "form_post",  # keeps the code out of the browser's history (RFC 9700)
            "redirect_uri": redirect,
            "scope": SIGN_IN_SCOPE,
            "state": state,
            "code_challenge": base64url(hashlib.sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
            "prompt": "select_account",
        }
        url = with_query(f"{SIGN_IN}/{challenge.tenant}/oauth2/v2.0/authorize", **query)
        if not world.open_browser(url):
            return None
        text = f"Sign in to organization '{challenge.feed.organization}' in your browser"
        world.notify(f"{text} within 3 minutes. If no window opens, open {url}")
        end = world.clock() + SIGN_IN_SECONDS
        while not server.answer and world.clock() < end:
            server.handle_request()
    answer: dict[str, str] = server.answer
    if not answer:
        raise ArtifactsError("nobody signed in within 3 minutes: run the command again.")
    if "code" not in answer:
        raise refusal(challenge.tenant, answer)
    form = {"grant_type": "authorization_code", "code": answer["code"], "redirect_uri": redirect}
    return signed_in("browser", challenge.tenant, {**form, "code_verifier": verifier}, world)


def device_code(challenge: Challenge, world: World) -> Bearer | None:
    """Return the token of a user who enters a code on a page, `None` without a terminal. Raises."""
    # https://learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code
    if not world.has_terminal():
        return None
    request = entra_request(challenge.tenant, "devicecode", {"scope": SIGN_IN_SCOPE})
    body = parse_object(fetch(request, world).body)
    code, page = body.get("device_code"), parse_address(str(body.get("verification_uri")))
    if not is_token(code) or page is None or page[0] not in DEVICE_HOSTS:
        raise refusal(challenge.tenant, body)
    seconds = min(SIGN_IN_SECONDS, number(body.get("expires_in")) or SIGN_IN_SECONDS)
    text = f"enter the code {shown(body.get('user_code'), 40)} within {seconds / 60:.0f} minutes"
    text = f"open https://{''.join(page)} and {text}"
    world.notify(f"To sign in to organization '{challenge.feed.organization}', {text}.")
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": str(code)}
    pause, heard = number(body.get("interval")) or 5.0, world.clock()
    end = heard + seconds
    while world.clock() < end:
        world.sleep(min(pause, 30.0))
        try:
            return signed_in("device_code", challenge.tenant, form, world)
        except NetworkError:  # RFC 8628 §3.5: keep polling, here while there is some hope
            if world.clock() - heard > 30:
                raise
        except ArtifactsError as error:
            heard = world.clock()
            if "slow_down" in error.reason:
                pause += 5
            elif not re.match("authorization_pending|temporarily|server_error", error.reason):
                raise
    raise ArtifactsError("nobody entered the code in time: run the command again.")


QUIET: Final = (service_principal, managed_identity, token_command, azure_cli, refresh_token)
ASKING: Final = (browser, device_code)  # a user, so never in CI


# --- composition -----------------------------------------------------------------------------
def kept_session(
    feed: Feed, world: World, again: bool = False, users: bool = False
) -> Session | None:
    """Return the session kept for a feed that may be used, else `None`; `again` asks the store."""
    # The store has users' sessions: a configured application takes one only if it failed (`users`).
    wanted = first(world.environ, "KEYRINGS_ARTIFACTS_SOURCES") or "service_principal"
    if users or application_of(world.environ) is None or "service_principal" not in wanted:
        world.store.read(feed.organization, again or users)
    session, now = read_session(world.store.memory.get(feed.organization, "")), world.now()
    if session is None or not session.token or session.expires - now <= MARGIN:
        return None
    if not 0 <= now - session.checked < CHECKED_SECONDS:
        try:
            response = fetch(feed_request(feed, session.token), world)
        except NetworkError:
            return session
        if is_sign_in(response) or (response.status == 403 and refusal_code(response) != "403"):
            world.store.erase(feed.organization, session.kind not in ("application", "set"))
            if session.refresh:
                keep(feed, session._replace(token="", kind="refresh"), world)
            return None
        session = session._replace(checked=now)
        keep(feed, session, world)
    world.trace(f"stored: {session.kind} token of an earlier sign-in")
    return session


def read_session(text: str) -> Session | None:
    """Return the session that an entry of the store holds, `None` for any other text."""
    try:
        session = Session(**parse_object(text))
    except TypeError:
        return None
    tokens = all(is_token(each) or each == "" for each in (session.token, session.refresh))
    times = all(number(each) == each for each in (session.checked, session.expires))
    return session if tokens and times and isinstance(session.kind, str) else None


def keep(feed: Feed, session: Session, world: World) -> bool:
    """Keep a session in a keyring, or a session token alone in a file; whether it was kept."""
    text, in_file = json.dumps(session._asdict()), ""
    if session.kind == "session":
        in_file = json.dumps(session._replace(refresh="")._asdict())
    world.store.memory[feed.organization] = text  # an application's here alone, so in no image
    return session.kind != "application" and world.store.write(feed.organization, text, in_file)


def sign_in(challenge: Challenge, world: World) -> Session:
    """Return a session by the first source whose token the organization accepts. Raises."""
    # A user who declines and a host that cannot be reached end the search.
    feed, failures, known = challenge.feed, [], {each.__name__: each for each in (*QUIET, *ASKING)}
    wanted = re.findall(r"[^\s,;]+", world.environ.get("KEYRINGS_ARTIFACTS_SOURCES", ""))
    if not known.keys() >= set(wanted):
        raise ArtifactsError(f"KEYRINGS_ARTIFACTS_SOURCES can only name {', '.join(known)}.")
    quiet = "the feed is public" if challenge.public else silence(feed, world.environ)
    for source in [known[name] for name in wanted or known]:
        if source in ASKING and quiet:
            continue
        try:
            bearer = source(challenge, world)
            if bearer is None:
                continue
            if bearer.refresh:  # an exchange that fails must not cost another sign-in
                keep(feed, Session("", "refresh", world.now(), refresh=bearer.refresh), world)
            session = exchange(challenge, bearer, world)._replace(refresh=bearer.refresh)
            world.trace(f"{bearer.source}: {session.kind} token")
            keep(feed, session, world)
            return session
        except ArtifactsError as error:
            failures.append(f"{source.__name__}: {error}")
            world.trace(f"failed: {failures[-1]}")
            if source in ASKING or isinstance(error, NetworkError):
                raise ArtifactsError("\n  ".join(failures)) from None
            if source is service_principal:  # for whose failure a user may have signed in
                kept = kept_session(feed, world, users=True)
                if kept is not None:
                    return kept
    failures.append(advice(challenge, quiet, world.environ))
    raise ArtifactsError("\n  ".join(failures))


def silence(feed: Feed, environ: Mapping[str, str]) -> str:
    """Return why nobody may be asked to sign in, "" where a user may be."""
    names = ("TF_BUILD", "GITHUB_ACTIONS", "CI", "PIP_NO_INPUT")
    for name in (*names, "ARTIFACTS_KEYRING_NONINTERACTIVE_MODE"):
        if first(environ, name).lower() not in ("", "0", "false", "no", "off"):
            return f"{name} is set"
    return "only a host name was asked for" if feed.bare else ""


def advice(challenge: Challenge, quiet: str, environ: Mapping[str, str]) -> str:
    """Return what to do where no source had a token; the sources that failed have said more."""
    name, owner = challenge.feed.organization, pipeline_organization(environ)
    fix = f"run 'keyring get {challenge.feed.url} {USERNAME}' in a terminal"
    if quiet.startswith("TF_BUILD"):
        fix = "map 'SYSTEM_ACCESSTOKEN: $(System.AccessToken)' in the step's env"
        if owner not in ("", name):
            fix += f", which is organization '{owner}' alone; for '{name}' use AzureCLI@2"
    elif quiet.startswith("GITHUB_ACTIONS"):
        fix = "grant 'permissions: id-token: write', and set AZURE_CLIENT_ID and AZURE_TENANT_ID"
    elif quiet.startswith("CI"):
        fix = "set AZURE_DEVOPS_EXT_PAT, or configure a service principal"
    why = f"nobody was asked ({quiet or 'there is no browser and no terminal'})"
    return f"Not signed in to organization '{name}', and {why}: {fix}."


# --- store -----------------------------------------------------------------------------------
class Files:
    """Private files in our data folder as a keyring, encrypted if there is a cipher. Raises."""

    def __init__(self, cipher: Any = None) -> None:
        self.cipher, self.end = cipher, "encrypted" if cipher else "json"

    def path(self, service: str, user: str) -> Path:
        return data_folder() / f"{quote(f'{service} {user}', safe='')}.{self.end}"

    def get_password(self, service: str, user: str) -> str | None:
        text = read_private(self.path(service, user))
        with suppress(ValueError, AssertionError):  # of another key: it will be replaced
            return self.cipher.decrypt(text.encode()).decode() if self.cipher and text else text
        return None

    def set_password(self, service: str, user: str, text: str) -> None:
        text = self.cipher.encrypt(text.encode()).decode() if self.cipher else text
        write_private(self.path(service, user), text)

    def delete_password(self, service: str, user: str) -> None:
        self.path(service, user).unlink()


class Place:
    """A keyring as a place for texts: in one entry, on Windows in as many as it takes. Raises."""

    def __init__(self, ring: Any) -> None:
        self.ring, self.label = ring, f"{type(ring).__module__}.{type(ring).__name__}"

    def read(self, name: str) -> str | None:
        service = f"keyrings.artifacts/{name}"
        count, _, text = (self.ring.get_password(service, "1") or "").partition(":")
        users = range(2, int(count) + 1) if re.fullmatch(r"\d\d?", count, re.A) else ()
        rest = [self.ring.get_password(service, str(user)) for user in users]
        return None if None in rest else "".join([text, *filter(None, rest)])

    def write(self, name: str, text: str, plain: str) -> bool:
        text = plain if isinstance(self.ring, Files) and not self.ring.cipher else text
        size = 1200 if os.name == "nt" else MAX_BODY  # Windows takes 2,560 bytes of UTF-16
        parts = [text[at : at + size] for at in range(0, len(text), size)]
        for user in range(len(parts), 0, -1):  # the head last: half a text is none
            part = f"{len(parts)}:{parts[0]}" if user == 1 else parts[user - 1]
            self.ring.set_password(f"keyrings.artifacts/{name}", str(user), part)
        return bool(parts) and self.read(name) == text  # some keyrings keep nothing, silently

    def erase(self, name: str) -> bool:
        for user in range(1, 100):
            try:
                self.ring.delete_password(f"keyrings.artifacts/{name}", str(user))
            except (PasswordDeleteError, FileNotFoundError):
                return user > 1
        return True


class Store:
    """Texts by name: in the best other keyring, else in files; in memory once they are known."""

    def __init__(self, keeps: bool = True) -> None:
        self._keeps = keeps  # False for the doctor, which only reads
        self.memory: dict[str, str] = {}
        self._left_alone: set[str] = set()  # places that failed or hung, told once

    def read(self, name: str, again: bool = False) -> str:
        """Return the text kept under a name, "" without one; from memory unless `again`."""
        text = self.memory.get(name)
        if again or text is None:
            text = self.memory[name] = next(filter(None, self._each("read", name)), text or "")
        return text

    def write(self, name: str, text: str, plain: str) -> bool:
        """Keep a text in a keyring, else what of it may lie in a plain file; whether it lasts."""
        return self._keeps and any(self._each("write", name, text, plain))

    def erase(self, name: str, everywhere: bool = True) -> bool:
        """Forget a name, or what is in memory of it; whether it was known."""
        found = list(self._each("erase", name)) if self._keeps and everywhere else []
        return bool(self.memory.pop(name, "")) or any(found)

    def _each(self, method: str, *arguments: str) -> Iterator[Any]:
        for place in store_places():
            if place.label not in self._left_alone:
                try:
                    yield within(PATIENT_SECONDS, getattr(place, method), *arguments)
                except (PasswordSetError, NotImplementedError):  # it keeps nothing: the next place
                    continue
                except Exception as error:  # a keyring may raise anything
                    self._left_alone.add(place.label)
                    why = f"{place.label} failed ({type(error).__name__})"
                    notify(f"{why} and is left as it is: unlock or repair it.")


def store_places() -> list[Place]:
    """Return the keyrings that are really there, the best first, then files: encrypted, plain."""
    from keyring.backend import get_all_keyring

    # keyring recommends none below 1; from 9 on are the chainer, this backend and its peers.
    rings: list[Any] = []
    with suppress(Exception):  # it starts every keyring, one of which may raise or hang
        rings += sorted(within(REQUEST_SECONDS, get_all_keyring), key=lambda ring: -ring.priority)
    places = [Place(ring) for ring in rings if 1 <= ring.priority < 9]
    with suppress(OSError):  # no folder
        kind = "keyrings.alt.file.EncryptedKeyring"
        places += [Place(Files(cipher_of(ring))) for ring in rings if Place(ring).label == kind]
    return [*places, Place(Files())]


def cipher_of(ring: Any) -> Any:
    """Return a keyring of keyrings.alt for its cipher, under a random key of ours. Raises."""
    cipher, key = type(ring)(), data_folder(make=True) / "key"
    if not read_private(key):
        write_private(key, base64url(os.urandom(48)))
    cipher.keyring_key = read_private(key)
    return cipher


def data_folder(make: bool = False) -> Path:
    """Return our folder; `make` sees that it is there, this user's alone. Raises `OSError`."""
    folder = Path(os.devnull, "no folder")
    with suppress(ImportError, AttributeError, RuntimeError, KeyError):  # keyring lacks it; no home
        from keyring.util import platform_

        folder = Path(os.devnull, platform_.data_root(), "keyrings_artifacts")  # none if relative
    if make:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # fails where it is another user's
    return folder


def read_private(path: Path) -> str | None:
    """Return the text of a file that is this user's alone and no link, `None` for any other."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with suppress(OSError, ValueError), open(os.open(path, flags), encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        if os.name == "nt" or (status.st_uid == os.geteuid() and not status.st_mode & 0o077):
            return stream.read(MAX_BODY)
    return None


def write_private(path: Path, text: str) -> None:
    """Write a file that is this user's alone, in one step for readers. Raises `OSError`."""
    draft = data_folder(make=True) / f".{os.getpid()}-{threading.get_ident()}"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "w", encoding="utf-8") as stream:
            stream.write(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def sign_in_lock(case: str) -> Iterator[None]:
    """Hold the lock of this user; raises what its holder failed with while this one waited."""
    began, end, failures = time.time(), time.monotonic() + SIGN_IN_SECONDS + 100, dict[str, Any]()
    with ExitStack() as held:
        with suppress(OSError):  # without a folder, nobody waits
            file = held.enter_context(open(data_folder(make=True) / "sign-in.lock", "ab"))
            while not try_lock(file.fileno()) and time.monotonic() < end:
                time.sleep(0.05)  # in the end it goes on, whoever holds the lock
            failures = parse_object(read_private(data_folder() / "failures") or "")
        at, _, sentence = str(failures.get(case)).partition(" ")  # of the last one
        if began <= (number(at) or 0) <= time.time():  # it failed while we waited
            raise ArtifactsError(sentence)
        try:
            yield
        except ArtifactsError as error:
            failures[case] = f"{time.time()} {error}"
            with suppress(OSError):
                write_private(data_folder() / "failures", json.dumps(failures))
            raise


def try_lock(fd: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # another process has it
        return False
    return True


# --- effects ---------------------------------------------------------------------------------
def within(seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, raise what it raises; `TimeoutError` after some seconds."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(function(*arguments))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)  # left behind after a timeout
    thread.start()
    thread.join(seconds)
    result = outcome[0] if outcome else TimeoutError()
    if isinstance(result, BaseException):  # a keyring's SystemExit would end the program
        raise result if isinstance(result, Exception) else RuntimeError(type(result).__name__)
    return result


class Network:
    """Sends requests: verified TLS, the proxy of the environment or the system, no redirects."""

    def __init__(self) -> None:
        self._trust: Any = None  # made once: reading a system's store takes longer than all else

    def __call__(self, request: Request) -> Response:
        """Return the answer, by a deadline that no dripping body stretches. Raises."""
        from urllib3.exceptions import HTTPError

        seconds = PATIENT_SECONDS if request.spends else REQUEST_SECONDS
        try:
            return Response(*within(seconds, self._send, request, seconds))
        except (HTTPError, OSError, ValueError) as error:
            raise network_error(request, error, os.environ) from None

    def _send(self, request: Request, seconds: float) -> tuple[int, Mapping[str, str], bytes]:
        import urllib3

        pool = self._pool(request)
        # For each address, so that after a broken IPv6 one there is time; a proxy may take longer.
        patience = seconds if pool.proxy else seconds / 2
        sent = pool.request(
            request.method,
            request.url,
            body=request.body,
            headers=dict(request.headers),
            retries=False,
            preload_content=False,
            enforce_content_length=True,  # urllib3 1.26 does not by itself
            timeout=urllib3.Timeout(connect=1.0 if request.direct else patience, read=seconds),
        )
        with closing(sent) as answer:
            limit = request.limit or (MAX_BODY if answer.status in (400, 403) else 0)  # says why
            body = answer.read(limit, decode_content=False) if limit else b""
            if limit and len(body) < limit:  # only one more read reports a body that was cut
                answer.read(1, decode_content=False)
        headers = {name.lower(): answer.headers[name] for name in answer.headers}
        return answer.status, headers, body

    def _pool(self, request: Request) -> Any:
        from urllib.request import getproxies, proxy_bypass

        import urllib3

        if self._trust is None and request.url.startswith("https:"):
            self._trust = trust(os.environ)
        proxies = {} if request.direct else getproxies()
        proxy = (proxies.get("https") or proxies.get("all") or "").strip()
        if not proxy or proxy_bypass(urlsplit(request.url).netloc):
            return urllib3.PoolManager(ssl_context=self._trust)
        parts = urllib3.util.parse_url(proxy if "://" in proxy else f"http://{proxy}")
        login = base64.b64encode(unquote(parts.auth or "").encode()).decode()
        return urllib3.ProxyManager(
            parts._replace(auth=None).url,
            proxy_headers={"Proxy-Authorization": f"Basic {login}"} if login else None,
            ssl_context=self._trust,
            proxy_ssl_context=self._trust,
            # Else urllib3 leaves Nagle's algorithm on: a body waits 40 ms for its headers' ACK.
            socket_options=urllib3.connection.HTTPConnection.default_socket_options,
        )


def network_error(request: Request, error: Exception, environ: Mapping[str, str]) -> NetworkError:
    """Return the error for a request without an answer: certificate, proxy, or the rest."""
    import ssl

    from urllib3 import exceptions

    root, host, reason = error, request.host, DROPPED
    while root.args and isinstance(root.args[-1], Exception):
        root = root.args[-1]
    absent = isinstance(root, (exceptions.NewConnectionError, exceptions.ConnectTimeoutError))
    why, fix = f"could not be reached ({type(root).__name__})", "check network and HTTPS_PROXY"
    if isinstance(root, ssl.SSLCertVerificationError):
        name = first_name(environ, *CA_FILES, "SSL_CERT_FILE", "SSL_CERT_DIR")
        reason = "certificate"
        why = f"has no trusted certificate ({shown(root.verify_message, 80)})"
        fix = f"check the clock, or let {name or 'REQUESTS_CA_BUNDLE'} name your company's CA file"
        fix += ", for it names another" if name else ", or install truststore"
    elif "Tunnel" in str(root) or (absent and isinstance(error, exceptions.ProxyError)):
        why, fix = "is not reached by the proxy", "check HTTPS_PROXY, its password, and NO_PROXY"
        if re.search(r"failed: 4(?!29)\d\d", str(root)):  # another try might lock the account
            reason = "refused"
    elif absent and request.direct:  # no such platform here
        reason = "absent"
    return NetworkError(f"{host} {why}: {fix}.", reason)


def trust(environ: Mapping[str, str]) -> Any:
    """Return the TLS context: truststore's or OpenSSL's, and the CA files of pip and others."""
    import ssl

    try:
        import truststore

        context: Any = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    except ImportError:
        context = ssl.create_default_context()  # which reads SSL_CERT_FILE and SSL_CERT_DIR
    # Strict since Python 3.13; the CAs of many inspecting proxies, which pip takes, are not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    for name in filter(environ.get, CA_FILES):
        place = "capath" if os.path.isdir(environ[name]) else "cafile"
        try:
            context.load_verify_locations(**{place: environ[name]})
        except OSError:
            raise NetworkError(f"{name} names no file with CA certificates: fix it.") from None
    return context


def programs(name: str) -> Iterator[str]:
    """Yield the full paths of all programs of a name on PATH, none from the current folder."""
    names = [f"{name}{end}" for end in ((".exe", ".cmd", "") if os.name == "nt" else ("",))]
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        with suppress(OSError):  # no such folder
            if os.path.isabs(folder) and not os.path.samefile(folder, os.curdir):
                paths = [os.path.join(folder, each) for each in names]
                yield from (p for p in paths if os.path.isfile(p) and os.access(p, os.X_OK))


def which(name: str) -> str | None:
    return name if os.path.isabs(name) else next(programs(name), None)


def child_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a program: without our secrets, paths of files absolute."""
    child = {"AZURE_CORE_NO_COLOR": "true", "NO_COLOR": "1"}
    for name, value in environ.items():
        if name.upper() not in SECRET_VARIABLES and "PASSWORD" not in name.upper():
            path = value and name.upper().endswith(("_DIR", "_FILE", "_BUNDLE", "_HOME"))
            child[name] = os.path.abspath(value) if path else value
    return child


def run(command: Sequence[str], seconds: float, silent: bool = False, **given: str) -> str:
    """Return what a program prints, with variables `given`. Raises; the reason is its stderr."""
    import subprocess

    output = subprocess.DEVNULL if silent else subprocess.PIPE
    name, environ = shown(os.path.basename(command[0]), 40), child_environ(os.environ)

    def work() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(  # noqa: S603  a full path, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            timeout=seconds,
            cwd=os.path.abspath(os.sep),  # Python imports from where it is started
            env={**environ, **given},
            start_new_session=True,  # without effect on Windows
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    try:
        done = within(seconds + 5, work)  # a child of its own may hold the output open
    except (TimeoutError, subprocess.TimeoutExpired):
        raise ArtifactsError(f"{name} did not end within {seconds:.0f} seconds.") from None
    except OSError as error:
        raise ArtifactsError(f"{name} could not be started ({error.strerror}).") from None
    out, err = (text_of((part or b"")[:MAX_BODY]) for part in (done.stdout, done.stderr))
    if done.returncode:
        code = re.search(r"AADSTS\d+", err + out)
        why = code[0] if code else f"exit status {done.returncode}"
        raise ArtifactsError(f"{name} failed ({why}).", err)
    return out


def open_browser(url: str) -> bool:
    """Open a page on this desktop; whether there is a browser, as far as one second tells."""
    remote = any(map(os.environ.get, ("SSH_CONNECTION", "SSH_TTY", "CODESPACES", "container")))
    desktop = any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME")))
    here = (desktop or sys.platform in ("darwin", "win32")) and not remote
    if not here and not os.environ.get("BROWSER"):  # whoever sets it says so, over SSH too
        return False
    # A process of its own, for what it starts would write on our output, the secret's place.
    code = "import sys, webbrowser; sys.exit(not webbrowser.open(sys.argv[1]))"
    try:
        within(1.0, run, [sys.executable, "-c", code, url], SIGN_IN_SECONDS, True)
    except (ArtifactsError, TimeoutError) as error:
        return isinstance(error, TimeoutError)  # it goes on
    return True


def listen(state: str) -> Any:
    """Return a server at 127.0.0.1 whose `answer` a browser brings with the right `state`."""
    import hmac
    import http.server
    import socketserver

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10  # seconds without a byte

        def do_GET(self, form: str = "") -> None:
            path, _, query = self.path.partition("?")
            answer = dict(parse_qsl(form or query))
            # Any program on this machine may ask: without our `state` it ends nothing.
            ours = hmac.compare_digest(answer.get("state", "").encode(), state.encode())
            clear = "<script>history.replaceState(null, '', '/')</script>"  # no code in the URL
            text = "Close this page; your terminal goes on." if ours else "Nothing is here."
            with suppress(OSError):  # a browser may leave without its page
                self.send_response(200 if ours else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(f"<!doctype html>{clear}<p>{text}</p>".encode())
            if ours and path == "/":
                server.answer = answer

        def do_POST(self) -> None:
            size = min(int(number(self.headers.get("Content-Length")) or 0), 1 << 14)
            self.do_GET(self.rfile.read(size).decode("ascii", "replace"))

        def log_message(self, *_: object) -> None:
            """Log nothing: the line would hold the code."""

    # No HTTPServer: that asks the DNS for a name, and on Windows shares its port with others.
    server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.timeout, server.answer = True, 0.5, {}
    server.handle_error = lambda *_: None  # a browser left
    return server


def terminal() -> Any:
    """Return the terminal, for a `with`: stderr, or the one behind a hidden stderr. Raises."""
    with suppress(ValueError, AttributeError):  # stderr is closed, or none
        if sys.stderr.isatty():
            return nullcontext(sys.stderr)
    return open("CONOUT$" if os.name == "nt" else "/dev/tty", "w", errors="replace")


def has_terminal() -> bool:
    with suppress(OSError), terminal():
        return True
    return False


def notify(text: str) -> None:
    """Tell the user: on the terminal, which pip 26 hides by taking stderr away, else on stderr."""
    line = "".join(c for c in f"keyrings.artifacts: {text}\n" if c.isprintable() or c == "\n")
    place = terminal if has_terminal() else lambda: nullcontext(sys.stderr)
    with suppress(OSError, ValueError, AttributeError), place() as stream:  # it may be closed
        stream.write(line)


def trace(text: str) -> None:
    """Show a step on stderr where KEYRINGS_ARTIFACTS_LOGLEVEL=DEBUG asks for it."""
    if first(os.environ, "KEYRINGS_ARTIFACTS_LOGLEVEL").upper() == "DEBUG":
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"keyrings.artifacts: {text}\n")


class World:
    """Every effect there is, by default the real one; tests put others in their place."""

    # No NamedTuple: its repr would show the environment, and fields make the import slower.
    store: Store
    lock: Callable[[str], Any]
    send: Callable[[Request], Response]  # a Network
    environ: Mapping[str, str] = os.environ
    now = staticmethod(time.time)  # an epoch
    clock = staticmethod(time.monotonic)  # seconds, for waiting: nobody sets this clock
    sleep = staticmethod(time.sleep)
    random = staticmethod(lambda: base64url(os.urandom(48)))
    read = staticmethod(lambda path: Path(path).read_bytes())
    run = staticmethod(run)
    which = staticmethod(which)
    has_terminal = staticmethod(has_terminal)
    open_browser = staticmethod(open_browser)
    listen = staticmethod(listen)
    notify = staticmethod(notify)
    trace = staticmethod(trace)

    def __init__(self, **effects: Any) -> None:
        vars(self).update(effects)


# --- doctor ----------------------------------------------------------------------------------
def main(argv: Sequence[str] | None = None) -> int:
    """Say why a feed does not open: exit status 0 where it does. Asks nobody, keeps nothing."""
    import argparse

    parser = argparse.ArgumentParser("keyrings-artifacts", description=main.__doc__)
    parser.add_argument("url", metavar="URL", help="the feed's URL, as pip or uv has it")
    url = parser.parse_args(argv).url
    print(f"keyrings.artifacts {__version__}, Python {sys.version.split()[0]}, {sys.executable}")
    feed = parse_feed(url)
    world = World(store=Store(keeps=False), lock=lambda _: nullcontext(), send=Network())
    problems = ["give a URL as https://pkgs.dev.azure.com/ORG/_packaging/FEED/pypi/simple/"]
    if feed:
        problems = [*look_up_problems(feed, world), *keyring_problems(feed, world)]
        problems += client_problems(url, feed, world)
    for problem in problems[1:]:
        print(f"ERROR: {problem}")
    # The first line of the first problem is the cause of the others: it is read last.
    cause, *others = problems[0].splitlines() if problems else ["the feed lets you in."]
    print(*others, f"{'ERROR' if problems else 'Nothing to do'}: {cause}", sep="\n")
    return 1 if problems else 0


def look_up_problems(feed: Feed, world: World) -> Iterator[str]:
    """Yield what is wrong with the clock, and with a look-up that asks nobody and keeps nothing."""
    steps, off, problem = [""], 0.0, ""

    def trace(step: str) -> None:
        steps.append(step)
        print(f"  {step}")

    mode = "ARTIFACTS_KEYRING_NONINTERACTIVE_MODE"
    quiet = World(**dict(vars(world), environ={**world.environ, mode: "true"}, trace=trace))
    try:
        date = parse_date(fetch(feed_request(feed), quiet).headers.get("date"))
        off = world.now() - (date or world.now())
        credential = credential_for(feed, quiet)
        origin = steps[-1]
        response = fetch(feed_request(feed, credential.password if credential else ""), quiet)
        if is_sign_in(response) or response.status == 403:
            code = refusal_code(response)
            problem = f"The feed refuses the credential ({code}; {origin}): replace or unset it."
        elif response.status == 404 and not feed.url.rstrip("/").endswith("/upload"):
            problem = NO_SUCH_FEED.format(feed.url)
    except ArtifactsError as error:
        problem = str(error).replace(f"{mode} is set", "the doctor asks nobody")
    if abs(off) > MARGIN:
        yield f"The clock of this machine is {off / 3600:+.1f} hours off: set it, tokens expire."
    if problem:
        yield problem
    for step in steps:
        if re.match("failed: (service_principal|token_command)", step) and not problem:
            yield step.removeprefix("failed: ")


def keyring_problems(feed: Feed, world: World) -> Iterator[str]:
    """Yield what is wrong with the first keyring on PATH, which pip and uv start."""
    # Given a made-up token, this backend alone answers with it. (1.x: keyrings_artifacts.artifacts)
    paths, has = list(dict.fromkeys(programs("keyring"))), False
    for path in reversed(paths):
        has = False
        with suppress(ArtifactsError):
            has = "keyrings_artifacts.A" in world.run([path, "--list-backends"], PATIENT_SECONDS)
            print(f"keyring on PATH: {path} ({'has' if has else 'lacks'} this backend)")
    if not paths:
        yield f"No keyring is on PATH: run {install_command('/uv/tools/keyring')}."
        return
    pin, answer = world.environ.get("PYTHON_KEYRING_BACKEND"), ""
    token = f"made-up-{world.random()}"
    get = [paths[0], "get", feed.url, USERNAME]
    with suppress(ArtifactsError):
        answer = world.run(get, PATIENT_SECONDS, AZURE_DEVOPS_EXT_PAT=token, CI="true")
    if answer.strip() != token and pin is not None and not pin.startswith("keyrings_artifacts."):
        yield f"PYTHON_KEYRING_BACKEND pins keyring to '{shown(pin)}': unset it."
    elif answer.strip() != token:
        fix = f"run {install_command(paths[0])}"
        fix = f"remove what '{paths[0]} --list-backends' or keyringrc.cfg has first" if has else fix
        yield f"{paths[0]}, the first keyring on PATH, does not use this backend: {fix}."


def install_command(keyring: str) -> str:
    """Return the command that installs this backend beside a keyring, quoted."""
    real = os.path.realpath(keyring).replace("\\", "/")
    if "/pipx/" in real:
        return 'pipx inject keyring "keyrings.artifacts>=2"'  # 1.x is another author's
    if "/uv/tools/" in real:
        return 'uv tool install keyring --with "keyrings.artifacts>=2"'
    return f'"{os.path.dirname(real)}/python" -m pip install "keyrings.artifacts>=2"'


def client_problems(url: str, feed: Feed, world: World) -> Iterator[str]:
    """Yield why pip or uv would not ask keyring at all: their settings, the URL, a netrc file."""
    import netrc

    environ, host, user = world.environ, urlsplit(feed.url).netloc, urlsplit(url).username
    pip, version, config = world.which("pip"), "", ""
    with suppress(ArtifactsError):
        if pip is not None:
            version = world.run([pip, "--version"], PATIENT_SECONDS).partition(" from")[0]
            config = world.run([pip, "config", "list"], PATIENT_SECONDS)
            print(f"pip on PATH: {pip} ({version})")
    settings = [f"{name}={value}" for name, value in environ.items() if name[:3] in ("PIP", "UV_")]
    for setting in [f"the URL={url}", *settings, *config.splitlines()]:
        name, _, value = setting.partition("=")
        if re.search(rf"(?i)://[^/\s@:]*:[^/\s@]*@{re.escape(host)}\b", value):
            yield f"{name} has a password, so pip and uv never ask keyring: remove the password."
        if re.fullmatch("UV_INDEX_.+_PASSWORD", name):
            yield f"{name} is set, so uv does not ask keyring for that index: unset it."
        if re.search("(?i)keyring.provider$", name) and "disabled" in value:
            yield f"{name} is disabled, so no keyring is asked: set it to subprocess."
    path = environ.get("NETRC") or os.path.expanduser("~/.netrc")
    with suppress(OSError, ValueError, netrc.NetrcParseError):
        if netrc.netrc(path).authenticators(host):  # by its name, or by "default"
            yield f"{path} has a line for {host}, so pip and uv never ask keyring: remove it."
    found, write = re.match(r"pip (\d+)\.(\d+)", version), f"write https://{USERNAME}@{host}/..."
    served = user or "='import'" in config  # a provider that serves every URL
    if found and (int(found[1]), int(found[2])) < (26, 2) and not served:
        yield f"{version} asks keyring only for a URL with a user name: {write}, or upgrade pip."
    if ".no-input=" in config and ".keyring-provider=" not in config:
        yield "pip asks no keyring where no-input is set: set PIP_KEYRING_PROVIDER=subprocess."
    if world.which("uv"):
        if first(environ, "UV_KEYRING_PROVIDER") != "subprocess":
            yield "uv asks no keyring: set UV_KEYRING_PROVIDER=subprocess."
        if not user and not any(re.fullmatch("UV_INDEX_.+_USERNAME", name) for name in environ):
            yield f"uv asks keyring only for a URL with a user name: {write}"


# --- backend ---------------------------------------------------------------------------------
class ArtifactsKeyringBackend(KeyringBackend):
    """Answers keyring for Azure Artifacts feeds, and for nothing else."""

    # Above four peers' 9.9, whose ties keyring breaks at random; from 10 on other keyrings go dead.
    priority = 9.95
    world = World(store=Store(), lock=sign_in_lock, send=Network())  # all instances have this one

    def get_password(self, service: str, username: str | None) -> str | None:
        """Return a feed's password for any user name, `None` for none. Never raises."""
        credential = self.get_credential(service, username)
        return credential.password if credential else None

    def get_credential(self, service: str, username: str | None) -> SimpleCredential | None:
        """Return a feed's credential under the user name asked for, else `None`. Never raises."""
        feed = parse_feed(str(service))
        if feed is None:
            return None
        try:
            found = credential_for(feed, self.world)
            name = username or (found.username if found else "") or USERNAME
            return SimpleCredential(name, found.password) if found else None
        except ArtifactsError as error:
            problem = str(error)
        except KeyboardInterrupt:
            if "keyring" in sys.argv[0]:
                raise SystemExit(130) from None  # as a shell says it, without a traceback
            raise
        except Exception as error:  # a caller of keyring must not fail because of us
            at = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"internal error ({type(error).__name__}, {at.name} {at.lineno}): report it."
        if not feed.bare:  # pip and uv have just asked by URL, and been told
            self.world.notify(problem)
        return None

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a personal access token for a feed's organization; raises `PasswordSetError`."""
        feed = parse_feed(str(service))
        if feed is None:
            raise NotOursError(f"{__name__} keeps credentials of Azure Artifacts feeds only.")
        if not is_token(password):
            raise PasswordSetError("This is no token: it is empty, or has blanks in it.")
        if not keep(feed, Session(password, "set", checked=1.0), self.world):
            self.world.store.erase(feed.organization, everywhere=False)
            raise PasswordSetError("No keyring here keeps it: use AZURE_DEVOPS_EXT_PAT_FILE.")

    def delete_password(self, service: str, username: str) -> None:
        """Forget what is kept for a feed's organization; raises `PasswordDeleteError`."""
        feed = parse_feed(str(service))
        if feed is None:
            raise NotOursError(f"{__name__} keeps credentials of Azure Artifacts feeds only.")
        if not self.world.store.erase(feed.organization):
            raise PasswordDeleteError(f"Nothing deleted for organization '{feed.organization}'.")


if __name__ == "__main__":
    raise SystemExit(main())
