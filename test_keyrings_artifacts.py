"""Tests of keyrings_artifacts, and the stand-in services they run against.

The stand-in imitates, on loopback and over real TLS, the hosts that Azure Artifacts is made of:
feeds, the token service, the sign-in service and the blob store.  A child process reaches them
through an ordinary HTTPS proxy, so that pip, uv, twine and keyring run unchanged and nothing they
ask for can leave the machine.

    python -m pytest test_keyrings_artifacts.py       the tests
    python test_keyrings_artifacts.py                 a demonstration: pip and a private feed
    python test_keyrings_artifacts.py -- COMMAND ...  COMMAND, run among the stand-in services
"""

from __future__ import annotations

import ast
import base64
import binascii
import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import email.utils
import functools
import hashlib
import html
import http.server
import importlib.metadata
import io
import itertools
import json
import logging
import os
import random
import re
import secrets
import shutil
import socket
import socketserver
import ssl
import statistics
import string
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, TypeVar
from unittest import mock
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pytest
import trustme
import urllib3
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import keyrings_artifacts as module

hypothesis_settings.register_profile("any machine", deadline=None)  # be it as slow as it may
hypothesis_settings.load_profile("any machine")

# ----------------------------------------------------------------------------------------------
# Stand-in services
# ----------------------------------------------------------------------------------------------

RESOURCE = "499b84ac-1321-427f-aa17-267ca6975798"
DEFAULT_SCOPE = RESOURCE + "/.default"
ARTIFACTS_CLIENT = "d5a56ea4-7369-46b8-a538-c370805301bf"
CONTOSO_TENANT = "11111111-1111-4111-8111-111111111111"
FABRIKAM_TENANT = "22222222-2222-4222-8222-222222222222"
# What the services send for an organization of personal accounts, and the tenant of those.
NO_TENANT = "00000000-0000-0000-0000-000000000000"
PERSONAL_TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"
ANONYMOUS = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa"

HOUR = 3600.0
DAY = 24 * HOUR
ENTRA_LIFETIME = 65 * 60.0
CODE_LIFETIME = 600.0
REFRESH_IDLE = 90 * DAY
SESSION_CAP = 24 * HOUR
CLOCK_SKEW = 300.0
BODY_CAP = 32 * 1024 * 1024

PACKAGING_SCOPES = ("vso.packaging", "vso.packaging_write", "vso.packaging_manage")
WRITE_SCOPES = ("vso.packaging_write", "vso.packaging_manage")
GRANTABLE_SCOPES = (*PACKAGING_SCOPES, "vso.drop_write")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """One request as a service saw it; `status` is its answer, 0 while it is being served."""

    scheme: str
    host: str
    method: str
    path: str
    query: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    headers: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    body: bytes = dataclasses.field(default=b"", repr=False)
    status: int = 0

    @property
    def form(self) -> dict[str, str]:
        """The body as an URL-encoded form."""
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; whatever is not one counts as an empty object."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


class Reply(NamedTuple):
    """What a handler or a fault answers."""

    status: int  # 0 hangs up without an answer
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    reason: str = ""
    drip: float = 0.0  # seconds between two bytes of the body
    drips_head: bool = False  # and of the headers too
    wait: float = 0.0  # seconds before the answer
    repeat: int = 1  # how often the body is sent
    chunked: bool = False  # in chunks, and without its length


class Tunnel(NamedTuple):
    """One CONNECT that the proxy was asked for."""

    target: str
    authorization: str | None
    status: int


T = TypeVar("T")
Handler = Callable[["Services", Recorded], Reply]
Fault = Callable[[Recorded], Optional[Reply]]


# --- Secrets ----------------------------------------------------------------------------------

# By these a person, a pipeline or a platform gives a secret.
GIVEN_SECRETS = re.compile(
    r"AZURE_DEVOPS_EXT_PAT|AZURE_CLIENT_SECRET|AZURE_CLIENT_CERTIFICATE_PASSWORD|servicePrincipalKey|idToken|"
    r"SYSTEM_ACCESSTOKEN|\w+_ACCESSTOKEN|\w*_ENDPOINTS"
)
# The same, for what `az` may need itself.
NEEDED_SECRETS = ("IDENTITY_HEADER", "MSI_SECRET", "ACTIONS_ID_TOKEN_REQUEST_TOKEN")
SENT_SECRETS = ("code", "code_verifier", "device_code", "refresh_token", "client_secret", "client_assertion")
SENT_HEADERS = ("authorization", "x-identity-header", "secret")


class Secrets:
    """All that is secret, and of which kind it is; a search for it tells kinds and no values."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}  # by what no text may hold of a secret

    def add(self, kind: str, value: str) -> str:
        """Note a secret, and return it.  Of a few characters, it would be found everywhere.

        Its beginning counts for all of it, as a text may be cut.  That of a JWT is no secret.
        """
        parts = value.split(".")
        telling = parts[1:] if len(parts) == 3 and value.startswith("eyJ") else [value]
        for part in telling if len(value) >= 12 else ():
            if kind == "needed" or part[:40] not in self.kinds:
                self.kinds[part[:40]] = kind
        return value

    def given(self, environ: Mapping[str, str]) -> None:
        """Note what an environment gives outright."""
        for name, value in environ.items():
            if name in NEEDED_SECRETS:
                self.add("needed", value)
            elif GIVEN_SECRETS.fullmatch(name):
                inside = (
                    re.findall(r'"password": "([^"]*)"', value) if name.endswith("_ENDPOINTS") else [value]
                )
                for each in inside:
                    self.add("given", each)

    def sent(self, request: Recorded) -> None:
        """Note what a service was told."""
        form = request.form if b"=" in request.body[:4096] else {}
        for name in SENT_SECRETS:
            self.add(name, form.get(name, ""))
        for name in SENT_HEADERS:
            self.add(name, request.headers.get(name, "").rpartition(" ")[2])
        self.add("password", presented(request)[1])

    def found(self, text: str, *passed_over: str) -> list[str]:
        """The kinds of the secrets in a text."""
        kinds = {kind for part, kind in list(self.kinds.items()) if part in text}
        return sorted(kinds - set(passed_over))


MADE = Secrets()  # in this process, for whatever test


# --- People, organizations, feeds -------------------------------------------------------------


@dataclasses.dataclass(eq=False)
class Account:
    """A person, or an application (service principal, managed identity)."""

    upn: str
    tenant: str
    kind: str = "person"
    guest_of: set[str] = dataclasses.field(default_factory=set)
    secret: str = dataclasses.field(default="", repr=False)
    client_id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    object_id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    # How an application may show who it is, besides by its secret.
    secret_expired: bool = False
    certificates: list[x509.Certificate] = dataclasses.field(default_factory=list, repr=False)
    named: Certificate | None = None  # any certificate of this subject by this issuer
    trusts: set[tuple[str, str]] = dataclasses.field(default_factory=set)  # issuer, subject
    # Refresh token -> time of its last use.  To revoke one, remove it.
    refresh_tokens: dict[str, float] = dataclasses.field(default_factory=dict, repr=False)

    def belongs_to(self, tenant: str) -> bool:
        return tenant == self.tenant or tenant in self.guest_of


@dataclasses.dataclass(eq=False)
class Token:
    """A secret that the services gave out and would know again."""

    value: str = dataclasses.field(repr=False)
    kind: str  # "entra", "pat" or "session"
    account: Account
    expires: float
    scope: str = ""
    organization: str | None = None  # None: all organizations of the account
    tenant: str = ""
    audience: str = ""
    name: str = ""
    issued: float = 0.0
    authorization_id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    revoked: bool = False

    def allows(self, scopes: Iterable[str]) -> bool:
        """An Entra token of Azure DevOps may do what its owner may do; the others are narrowed."""
        return self.kind == "entra" or not set(scopes).isdisjoint(self.scope.split())


@dataclasses.dataclass(eq=False)
class Feed:
    """A feed and its files: normalised project name -> file name -> content."""

    name: str
    project: str | None = None
    public: bool = False
    guid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    project_guid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    packages: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict, repr=False)

    def has(self, filename: str) -> bool:
        return any(filename in files for files in self.packages.values())

    def answers_to(self, feed: str, project: str | None) -> bool:
        """Names and GUIDs are equal; a project's feed is not found without its project."""
        if feed.lower() not in (self.name.lower(), self.guid):
            return False
        if self.project is None:
            return True
        return project is not None and project.lower() in (self.project.lower(), self.project_guid)


@dataclasses.dataclass(eq=False)
class Organization:
    """An organization with its members, feeds and policies; tests change the attributes at will."""

    name: str
    tenant: str | None
    public: bool = False
    feeds: list[Feed] = dataclasses.field(default_factory=list)
    members: set[str] = dataclasses.field(default_factory=set)
    never_signed_in: set[str] = dataclasses.field(default_factory=set)
    # Discovery headers; empty means the usual value.
    authorization_endpoint: str = ""
    authorization_uri: str = ""
    challenge_in_lines: bool = False
    # Policies.
    forbid_pats: bool = False
    max_pat_days: float | None = None
    forbid_sessions: bool = False
    max_session_hours: float | None = None
    policy_status: int = 200

    def add_feed(self, name: str, project: str | None = None, public: bool | None = None) -> Feed:
        feed = Feed(name, project, self.public if public is None else public)
        self.feeds.append(feed)
        return feed

    def feed(self, name: str, project: str | None = None) -> Feed | None:
        """The feed of that name or GUID, with or without a view (`feed@Release`)."""
        base, _, view = name.partition("@")
        if view.lower() not in ("", "local", "prerelease", "release"):
            return None
        return next((feed for feed in self.feeds if feed.answers_to(base, project)), None)

    def add_package(self, feed: str, name: str, version: str) -> str:
        """Publish a tiny wheel whose module has `hello()`; return its file name."""
        shelf = next(each for each in self.feeds if each.name == feed)
        filename, content = build_wheel(name, version)
        shelf.packages.setdefault(normalised(name), {})[filename] = content
        return filename

    def admits(self, token: Token) -> bool:
        """Whether that token, found genuine and live, opens this organization."""
        if token.account.upn not in self.members:
            return False
        if token.kind != "entra":
            return token.organization in (None, self.name)
        return token.audience == RESOURCE and token.tenant == (self.tenant or PERSONAL_TENANT)


# --- The services -----------------------------------------------------------------------------


@dataclasses.dataclass(eq=False)
class Code:
    """An authorization code, waiting to be redeemed once."""

    account: Account
    tenant: str
    client: str
    redirect: str
    challenge: str
    scope: str
    expires: float
    used: bool = False


@dataclasses.dataclass(eq=False)
class Device:
    """A device sign-in under way."""

    user_code: str
    client: str
    tenant: str
    scope: str
    expires: float
    interval: float
    account: Account | None = None
    declined: bool = False
    polls: int = 0
    last_poll: float = float("-inf")


class Services:
    """All of the stand-in: `with Services(folder) as services:`.

    `handlers` is a table of (pattern of "scheme://host", function), searched from the top: put new
    services in front.  Handlers run one at a time; `faults` are asked first, and may take their
    time.  Requests sent straight to `local_url` (to a managed identity endpoint, say) go through
    the same table.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = 0.0
        self.lock = threading.RLock()
        self.secrets = Secrets()
        self.sent = 0  # bytes of bodies that clients took
        self.closing = threading.Event()
        self.requests: list[Recorded] = []
        self.tunnels: list[Tunnel] = []
        self.mishaps: list[str] = []  # errors in the stand-in itself
        self.faults: list[Fault] = []
        self.handlers: list[tuple[str, Handler]] = list(HANDLERS)
        self.proxy_login: str | None = None
        self.latency = 0.0  # seconds before every answer, and before every tunnel
        self.organizations: dict[str, Organization] = {}
        self.accounts: dict[str, Account] = {}
        self.tokens: dict[str, Token] = {}
        self.signature = secrets.token_hex(16)  # of links into the blob store
        # Sign-in.
        self.public_clients: set[str] = {ARTIFACTS_CLIENT}
        self.codes: dict[str, Code] = {}
        self.devices: dict[str, Device] = {}
        self.assertions: set[str] = set()  # federated tokens that their issuers would know again
        self.pipeline = Pipeline()
        self.identities = Identities()
        self.more: list[Server] = []  # that tests have opened
        self.browser_account: Account | None = None
        self.sign_in_outcome = ""  # an error such as "access_denied"
        self.device_interval = 5.0
        self.device_lifetime = 900.0
        self.device_auto_approve_after_polls: int | None = None
        self.authority = Authority(folder / "ca.pem")
        self.secure = SecureServer(self, Door)
        self.proxy = Server(self, ProxyDoor)
        self._set_up()

    def _set_up(self) -> None:
        """The world as most tests want it."""
        for name, tenant in (("contoso", CONTOSO_TENANT), ("fabrikam", FABRIKAM_TENANT)):
            self.organization(name, tenant).add_feed("pyfeed")
        self.organization("publica", CONTOSO_TENANT, public=True).add_feed("pyfeed")
        self.organization("personal", None).add_feed("pyfeed")
        self.organizations["contoso"].add_feed("projfeed", project="My Project")
        for name in self.organizations:
            self.organizations[name].add_package("pyfeed", name + "-greeting", "1.0")
        ada = self.add_account("ada@contoso.example", CONTOSO_TENANT, "contoso", "publica")
        self.add_account("frank@fabrikam.example", FABRIKAM_TENANT, "fabrikam")
        self.add_account("pia@outlook.example", PERSONAL_TENANT, "personal")
        self.add_account("robot", CONTOSO_TENANT, "contoso", kind="app")
        self.browser_account = ada

    def __enter__(self) -> Services:
        for server in (self.secure, self.proxy):
            server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.closing.set()
        servers = (self.proxy, self.secure, *self.more)
        for server in servers:
            server.stop()
        for thread in [thread for server in servers for thread in server.hang_up()]:
            thread.join(5)
        if kind is None and self.mishaps:
            raise AssertionError("the stand-in services failed:\n" + "\n".join(self.mishaps))

    # What tests ask.

    @property
    def ca(self) -> Path:
        return self.authority.pem

    @property
    def tls_port(self) -> int:
        return self.secure.port

    @property
    def proxy_url(self) -> str:
        login = f"{quote(self.proxy_login, safe=':')}@" if self.proxy_login else ""
        return f"http://{login}127.0.0.1:{self.proxy.port}"

    @property
    def local_url(self) -> str:
        """Where plain-http services are reached without the proxy."""
        return f"http://127.0.0.1:{self.proxy.port}"

    def now(self) -> float:
        return time.time() + self.clock

    def seen(
        self,
        host: str | None = None,
        path_contains: str = "",
        method: str | None = None,
        status: int | None = None,
    ) -> list[Recorded]:
        with self.lock:
            requests = list(self.requests)
        return [
            request
            for request in requests
            if host in (None, request.host)
            and path_contains in request.path
            and method in (None, request.method)
            and status in (None, request.status)
        ]

    def forget(self) -> None:
        """Clear the record of requests and tunnels."""
        with self.lock:
            self.requests.clear()
            self.tunnels.clear()

    def environ(self, home: Path) -> dict[str, str]:
        """A complete environment for a child process, from which nothing gets out or in."""
        ca = str(self.ca)
        environ = {
            "HOME": str(home),
            "USERPROFILE": str(home),
            "XDG_DATA_HOME": str(home / ".local" / "share"),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "XDG_CACHE_HOME": str(home / ".cache"),
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), self.proxy_url),
            **dict.fromkeys(("HTTP_PROXY", "http_proxy"), self.proxy_url),
            "NO_PROXY": "127.0.0.1,localhost",
            **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"), ca),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_NO_CONFIG": "1",
        }
        if "SYSTEMROOT" in os.environ:  # without it, Windows has no sockets
            environ["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
        return environ

    # What tests arrange.

    def organization(
        self, name: str, tenant: str | None, public: bool = False, **attributes: Any
    ) -> Organization:
        self.organizations[name.lower()] = made = Organization(name, tenant, public, **attributes)
        return made

    def add_account(
        self, upn: str, tenant: str, *member_of: str, kind: str = "person", **attributes: Any
    ) -> Account:
        account = Account(upn, tenant, kind, **attributes)
        if kind == "app" and not account.secret:
            account.secret = secrets.token_urlsafe(30)
        self.secrets.add("client secret", account.secret)
        self.accounts[upn] = account
        for name in member_of:
            self.organizations[name].members.add(upn)
        return account

    def mint_entra(
        self,
        account: Account,
        tenant: str | None = None,
        lifetime: float = ENTRA_LIFETIME,
        audience: str = RESOURCE,
    ) -> str:
        """An Entra access token, as `az` would have it."""
        tenant = tenant or account.tenant
        expires = int(self.now() + lifetime)
        value = jwt(entra_claims(account, tenant, audience, expires - int(lifetime), expires))
        token = Token(value, "entra", account, expires, tenant=tenant, audience=audience)
        return self._keep(token)

    def mint_devops(
        self,
        account: Account,
        organization: str | None,
        kind: str = "pat",
        scope: str = "vso.packaging_write",
        lifetime: float = SESSION_CAP,
        name: str = "",
    ) -> str:
        """A PAT (`pat`) or a self-describing session token (`session`) of one organization."""
        now = self.now()
        claims = {"aui": str(uuid.uuid4()), "scp": scope, "nbf": int(now), "iat": int(now)}
        value = pat() if kind == "pat" else jwt({**claims, "exp": int(now + lifetime)})
        token = Token(value, kind, account, now + lifetime, scope, organization, issued=now)
        token.name = name
        return self._keep(token)

    def _keep(self, token: Token) -> str:
        with self.lock:
            self.tokens[token.value] = token
        return self.secrets.add(token.kind, token.value)

    def live(self, value: str) -> Token | None:
        """The token of that value, unless unknown, revoked or expired."""
        token = self.tokens.get(value)
        if token is None or token.revoked or token.expires <= self.now():
            return None
        return token

    def revoke(self, value: str) -> None:
        self.tokens[value].revoked = True

    def approve_device(self, user_code: str, account: Account) -> None:
        self._device(user_code).account = account

    def open_fabric(self) -> FabricServer:
        server = FabricServer(self)
        server.start()
        self.more.append(server)
        return server

    def decline_device(self, user_code: str) -> None:
        self._device(user_code).declined = True

    def _device(self, user_code: str) -> Device:
        return next(each for each in self.devices.values() if each.user_code == user_code)

    # What the servers call.

    def answer(self, request: Recorded) -> Reply:
        """Serve one request and record it, before the client can see the answer."""
        time.sleep(self.latency)
        reply = self._reply(request)
        self.record(request, reply.status)
        return reply

    def record(self, request: Recorded, status: int) -> None:
        self.secrets.sent(request)
        with self.lock:
            self.requests.append(dataclasses.replace(request, status=status))

    def _reply(self, request: Recorded) -> Reply:
        origin = f"{request.scheme}://{request.host}"
        try:
            for fault in list(self.faults):
                reply = fault(request)
                if reply is not None:
                    return reply
            with self.lock:
                for pattern, handler in self.handlers:
                    if re.fullmatch(pattern, origin):
                        return handler(self, request)
        except Exception:  # a thread has nobody to raise to: told when the services stop
            self.mishaps.append(f"{request!r}\n{traceback.format_exc()}")
            return Reply(500)
        return Reply(404, body=b"nobody serves this host")


def fault(reply: Reply, times: int = 1, host: str | None = None, path_contains: str = "") -> Fault:
    """A fault that answers `reply` to the first `times` requests that match."""
    left = [reply] * times

    def strike(request: Recorded) -> Reply | None:
        if host not in (None, request.host) or path_contains not in request.path:
            return None
        try:
            return left.pop()  # in one step, as several threads may come here
        except IndexError:
            return None

    return strike


# --- Tokens, dates, wheels --------------------------------------------------------------------


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwt(claims: Mapping[str, Any]) -> str:
    """A token with the right shape; its signature is noise, as nobody may rely on it."""
    header = {"typ": "JWT", "alg": "RS256", "kid": "stand-in"}
    unlike = {"jti": secrets.token_hex(16), **claims}  # from its first characters on
    parts = [json.dumps(part).encode() for part in (header, unlike)]
    return MADE.add("JWT", ".".join(base64url(part) for part in (*parts, secrets.token_bytes(64))))


def pat() -> str:
    """84 characters, with the marker by which secret scanners know it."""
    letters = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(80))
    return MADE.add("PAT", letters[:76] + "AZDO" + letters[76:])


def entra_claims(account: Account, tenant: str, audience: str, issued: int, expires: int) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "aud": audience,
        "iss": f"https://sts.windows.net/{tenant}/",
        "iat": issued,
        "nbf": issued,
        "exp": expires,
        "tid": tenant,
        "oid": account.object_id,
    }
    if account.kind == "app":
        own = {"idtyp": "app", "roles": ["Feeds"], "sub": account.object_id}
        return {**claims, **own, "appid": account.client_id}
    own = {"scp": "user_impersonation", "upn": account.upn, "sub": secrets.token_urlsafe(16)}
    return {**claims, **own, "appid": ARTIFACTS_CLIENT}


def devops_time(moment: float) -> str:
    """The way Azure DevOps writes a time: seven fractional digits."""
    utc = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return utc.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def read_time(text: str) -> float | None:
    """A time in UTC as clients write it, or None."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,7})?(Z|\+00:00)", text)
    if not match:
        return None
    with contextlib.suppress(ValueError):
        whole = datetime.datetime.fromisoformat(match[1] + "+00:00").timestamp()
        return whole + float(match[2] or 0)
    return None


def normalised(name: str) -> str:
    """A project name in the form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def build_wheel(name: str, version: str) -> tuple[str, bytes]:
    """File name and content of a wheel with one module, whose `hello()` says name and version."""
    module = normalised(name).replace("-", "_")
    info = f"{module}-{version}.dist-info"
    wheel = "Wheel-Version: 1.0\nGenerator: stand-in\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = {
        f"{module}.py": f'def hello():\n    return "Hello from {name} {version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": wheel,
    }
    lines = []
    for path, text in files.items():
        digest = base64url(hashlib.sha256(text.encode()).digest())
        lines.append(f"{path},sha256={digest},{len(text.encode())}\n")
    files[f"{info}/RECORD"] = "".join(lines) + f"{info}/RECORD,,\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return f"{module}-{version}-py3-none-any.whl", content.getvalue()


# --- Replies ----------------------------------------------------------------------------------

JSON_TYPE = ("Content-Type", "application/json; charset=utf-8")
HTML_TYPE = ("Content-Type", "text/html; charset=utf-8")


def json_reply(value: object, status: int = 200) -> Reply:
    return Reply(status, [JSON_TYPE], json.dumps(value).encode())


def html_reply(text: str, status: int = 200) -> Reply:
    return Reply(status, [HTML_TYPE], text.encode())


def devops_error(status: int, message: str, key: str, reason: str = "") -> Reply:
    """An error of Azure DevOps.  The body begins with a byte order mark, as the real one does."""
    value = {
        "$id": "1",
        "innerException": None,
        "message": message,
        "typeName": f"Microsoft.{key}, Microsoft",
        "typeKey": key,
        "errorCode": 0,
        "eventId": 3000,
    }
    return Reply(status, [JSON_TYPE], json.dumps(value).encode("utf-8-sig"), reason)


def not_found(message: str, key: str) -> Reply:
    """A 404 of Azure DevOps, whose reason phrase carries the text."""
    return devops_error(404, message, key, f"Not Found - {message} (DevOps Activity ID: {key})")


def entra_error(error: str, code: int, text: str, status: int = 400, **more: str) -> Reply:
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    trace, correlation = str(uuid.uuid4()), str(uuid.uuid4())
    description = (
        f"AADSTS{code}: {text}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {stamp}"
    )
    value = {
        "error": error,
        "error_description": description,
        "error_codes": [code],
        "timestamp": stamp,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": f"https://login.microsoftonline.com/error?code={code}",
        **more,
    }
    return json_reply(value, status)


# --- Feeds ------------------------------------------------------------------------------------


def presented(request: Recorded) -> tuple[str, str]:
    """Scheme and secret of the Authorization header; two empty strings when there is none."""
    scheme, _, rest = request.headers.get("authorization", "").partition(" ")
    scheme = scheme.lower()
    if scheme != "basic":
        return scheme, rest.strip()
    try:
        pair = base64.b64decode(rest, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return scheme, ""
    return scheme, pair.partition(":")[2]  # the service ignores the user name


def feed_token(services: Services, organization: Organization, request: Recorded) -> Token | None:
    """The token that opens the organization's feeds; None for a bad one as for none."""
    scheme, secret = presented(request)
    token = services.live(secret)
    if token is None or not organization.admits(token) or not token.allows(PACKAGING_SCOPES):
        return None
    if scheme == "basic" or (scheme == "bearer" and token.kind != "pat"):
        return token
    return None


def discovery_headers(organization: Organization, lines: Sequence[str]) -> list[tuple[str, str]]:
    """The headers that say whose the organization is; `lines` are of WWW-Authenticate."""
    endpoint = f"https://vssps.dev.azure.com/{organization.name}/"
    return [
        *(("WWW-Authenticate", line) for line in lines),
        ("X-VSS-ResourceTenant", organization.tenant or NO_TENANT),
        ("X-VSS-AuthorizationEndpoint", organization.authorization_endpoint or endpoint),
        ("X-VSS-E2EID", str(uuid.uuid4())),
        ("ActivityId", str(uuid.uuid4())),
    ]


def challenge(organization: Organization) -> Reply:
    """The answer to an anonymous request."""
    basic = 'Basic realm="https://pkgsprodsu3weu.pkgs.visualstudio.com/"'
    uri = f"https://login.microsoftonline.com/{organization.tenant}"
    bearer = f"Bearer authorization_uri={organization.authorization_uri or uri}"
    lines = [bearer, basic, "TFS-Federated"]
    if organization.tenant is None:
        lines = [basic, "Bearer", "TFS-Federated"]
    if not organization.challenge_in_lines:
        lines = [", ".join(lines)]
    text = f"TF400813: The user '{ANONYMOUS}' is not authorized to access this resource."
    reply = devops_error(401, text, "UnauthorizedRequestException")
    return reply._replace(headers=[*reply.headers, *discovery_headers(organization, lines)])


def refusal(organization: Organization, request: Recorded) -> Reply:
    """The answer to a request that no good token came with."""
    scheme = presented(request)[0]
    if scheme == "basic":  # expired, revoked and unknown look the same
        realm = 'Basic realm="https://pkgsprodsu3weu.pkgs.visualstudio.com/"'
        return Reply(401, discovery_headers(organization, [realm]))
    if scheme == "bearer":
        return bearer_refusal("TF400813: The user is not authorized to access this resource.")
    browser = "mozilla/" in request.headers.get("user-agent", "").lower()
    suppress = request.headers.get("x-tfs-fedauthredirect", "").lower() == "suppress"
    if browser and not suppress and "text/html" in request.headers.get("accept", ""):
        query = urlencode({"realm": request.host, "reply_to": f"https://{request.host}/"})
        to = f"https://spsprodweu1.vssps.visualstudio.com/_signin?{query}"
        return Reply(302, [("Location", to), HTML_TYPE])
    return challenge(organization)


def bearer_refusal(text: str) -> Reply:
    reply = devops_error(401, text, "UnauthorizedRequestException")
    extra = [("WWW-Authenticate", "Bearer"), ("X-TFS-ServiceError", quote(text, safe=""))]
    return reply._replace(headers=[*reply.headers, *extra])


class FeedPath(NamedTuple):
    """The parts of a request for a feed; `tail` is what follows `/pypi/`."""

    organization: str
    project: str | None
    feed: str | None
    tail: Sequence[str]


def read_feed_path(host: str, path: str) -> FeedPath:
    """Take both forms of the host apart; a path that leads to no feed has `feed` None."""
    parts = [unquote(part) for part in path.split("/")[1:]]
    if host == "pkgs.dev.azure.com":
        organization = parts.pop(0)
    else:
        organization = host.partition(".")[0]
        if parts[0].lower() == "defaultcollection":
            del parts[0]
    project = None if parts[:1] in ([], ["_packaging"]) else parts.pop(0)
    if len(parts) < 3 or parts[0] != "_packaging" or parts[2] != "pypi":
        return FeedPath(organization.lower(), project, None, ())
    return FeedPath(organization.lower(), project, parts[1], parts[3:])


def feed_service(services: Services, request: Recorded) -> Reply:
    where = read_feed_path(request.host, request.path)
    organization = services.organizations.get(where.organization)
    if organization is None:
        text = f"The organization '{where.organization}' doesn't exist."
        return not_found(text, "ServiceHostDoesNotExistException")
    feed = organization.feed(where.feed, where.project) if where.feed else None
    action = where.tail[0] if where.tail else ""
    token = feed_token(services, organization, request)
    anonymous = presented(request) == ("", "")
    readable = anonymous and organization.public and (feed is None or feed.public)
    if token is None and not (readable and action != "upload"):
        return refusal(organization, request)
    if feed is None:
        text = f"The feed with ID '{where.feed}' doesn't exist."
        return not_found(text, "FeedIdNotFoundException")
    if action == "simple" and request.method in ("GET", "HEAD"):
        return simple_page(organization, feed, where.tail[1:])
    if action == "download" and request.method == "GET":
        return download(services, organization, feed, where.tail[1:])
    if action == "upload" and request.method == "POST":
        return upload(organization, where, feed, token, request)
    known = action in ("simple", "download", "upload")
    return Reply(405) if known else not_found("The page was not found.", "PageNotFoundException")


def simple_page(organization: Organization, feed: Feed, tail: Sequence[str]) -> Reply:
    """The index of PEP 503; its links name organization and feed by GUID, never as asked for."""
    name = tail[0] if tail else ""
    if not name:
        links = [f'<a href="{each}/">{each}</a>' for each in sorted(feed.packages)]
    elif normalised(name) in feed.packages:
        within = f"{feed.project_guid}/" if feed.project else ""
        base = f"https://pkgs.dev.azure.com/{organization.name}/{within}_packaging/{feed.guid}"
        links = [
            f'<a href="{base}/pypi/download/{normalised(name)}/{version_of(file)}/{file}'
            f'#sha256={hashlib.sha256(content).hexdigest()}">{file}</a>'
            for file, content in sorted(feed.packages[normalised(name)].items())
        ]
    else:
        text = f"The package '{name}' was not found in the feed '{feed.name}'."
        return not_found(text, "PackageNotFoundException")
    return html_reply("<!DOCTYPE html><html><body>\n" + "<br/>\n".join(links) + "\n</body></html>")


def version_of(filename: str) -> str:
    """The version in the name of a wheel or a source distribution."""
    stem = re.sub(r"\.(whl|zip|tar\.\w+)$", "", filename)
    return stem.split("-")[1] if filename.endswith(".whl") else stem.rpartition("-")[2]


def download(services: Services, organization: Organization, feed: Feed, tail: Sequence[str]) -> Reply:
    """Send the client to the blob store, whose links are signed and take no credential."""
    content = feed.packages.get(normalised(tail[0]), {}).get(tail[2]) if len(tail) == 3 else None
    if content is None:
        return not_found("The file was not found.", "PackageNotFoundException")
    digest = hashlib.sha256(content).hexdigest()
    host = "pkgsprodsu3weu.blob.core.windows.net"
    path = f"/{organization.name}/{feed.guid}/{digest}"
    return Reply(303, [("Location", f"https://{host}{path}?sig={services.signature}")])


def blob_service(services: Services, request: Recorded) -> Reply:
    if "authorization" in request.headers:
        return Reply(400, body=b"InvalidAuthenticationInfo", reason="Authentication twice")
    if request.query.get("sig") != services.signature:
        return Reply(403, body=b"AuthenticationFailed")
    digest = request.path.rpartition("/")[2]
    for organization in services.organizations.values():
        for feed in organization.feeds:
            for files in feed.packages.values():
                for content in files.values():
                    if hashlib.sha256(content).hexdigest() == digest:
                        return Reply(200, [("Content-Type", "application/octet-stream")], content)
    return Reply(404, body=b"BlobNotFound")


def upload(
    organization: Organization, where: FeedPath, feed: Feed, token: Token | None, request: Recorded
) -> Reply:
    """Take what twine and uv send."""
    if token is None or not token.allows(WRITE_SCOPES):
        text = "TF400813: The token lacks the scope vso.packaging_write."
        return devops_error(403, text, "UnauthorizedRequestException")
    if "@" in (where.feed or ""):
        return devops_error(400, "A view cannot be published to.", "InvalidUserRequestException")
    fields = multipart(request)
    filename, content = fields.get("content", ("", b""))
    name = fields.get("name", ("", b""))[1].decode()
    if not (filename and name and fields.get(":action", ("", b""))[1] == b"file_upload"):
        return devops_error(400, "The upload is incomplete.", "InvalidUserRequestException")
    if feed.has(filename):
        text = f"The feed '{feed.name}' of {organization.name} already contains file '{filename}'."
        return Reply(409, [("Content-Type", "text/plain")], text.encode(), "Conflict - " + text)
    feed.packages.setdefault(normalised(name), {})[filename] = content
    return Reply(200)


def multipart(request: Recorded) -> dict[str, tuple[str, bytes]]:
    """Field name -> (file name, content) of a multipart body."""
    boundary = re.search(r'boundary="?([^";]+)', request.headers.get("content-type", ""))
    fields: dict[str, tuple[str, bytes]] = {}
    if boundary is None:
        return fields
    for part in request.body.split(b"--" + boundary[1].encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        text = head.decode("utf-8", "replace")
        name = re.search(r'[; ]name="([^"]*)"', text)
        filename = re.search(r'filename="([^"]*)"', text)
        if name:
            fields[name[1]] = (filename[1] if filename else "", content[: -len(b"\r\n")])
    return fields


# --- Token service ----------------------------------------------------------------------------


def token_service(services: Services, request: Recorded) -> Reply:
    """Session tokens and PATs, for the Entra token of a person."""
    name, path = token_service_path(request)
    organization = services.organizations.get(name) if name else None
    if name and organization is None:
        text = f"The organization '{name}' doesn't exist."
        return not_found(text, "ServiceHostDoesNotExistException")
    bearer = person_token(services, organization, request)
    if isinstance(bearer, Reply):
        return bearer
    if "api-version" not in request.query:
        return devops_error(400, "No api-version was given.", "VssVersionNotSpecifiedException")
    typed = request.headers.get("content-type", "").startswith("application/json")
    if request.method == "POST" and not typed:
        return devops_error(415, "The body must be JSON.", "VssRequestContentTypeNotSupported")
    if path.lower() == "_apis/token/sessiontokens" and request.method == "POST":
        return session_token(services, organization, bearer.account, request)
    if path.lower() == "_apis/tokens/pats" and organization is not None:
        return pat_service(services, organization, bearer.account, request)
    return not_found("The page was not found.", "PageNotFoundException")


def token_service_path(request: Recorded) -> tuple[str, str]:
    """Organization (empty at the hosts that serve all of them) and the path below it."""
    path = request.path.lstrip("/")
    if request.host == "vssps.dev.azure.com":
        name, _, path = path.partition("/")
        return unquote(name).lower(), path
    name = request.host.partition(".")[0]
    return ("" if name == "app" else name), path


def person_token(services: Services, organization: Organization | None, request: Recorded) -> Token | Reply:
    """The caller's token, or the refusal.  Without an organization any person will do."""
    scheme, secret = presented(request)
    token = services.live(secret) if scheme == "bearer" else None
    if token is None or token.kind != "entra" or token.audience != RESOURCE:
        return bearer_refusal(f"TF400813: The user '{ANONYMOUS}' is not authorized.")
    account = token.account
    refused = bearer_refusal(f"TF400813: The user '{account.object_id}' is not authorized.")
    if account.kind != "person":
        return refused
    if organization is None:
        return token
    if account.upn in organization.never_signed_in:
        where = f"https://dev.azure.com/{organization.name}"
        return bearer_refusal(f"TF401444: Please sign-in at least once as {account.upn} at {where}")
    return token if organization.admits(token) else refused


def session_token(
    services: Services, organization: Organization | None, account: Account, request: Recorded
) -> Reply:
    body = request.json()
    kind = request.query.get("tokenType", request.query.get("tokentype", "SelfDescribing")).lower()
    if kind not in ("compact", "selfdescribing"):
        return devops_error(400, f"Unknown token type '{kind}'.", "ArgumentException")
    scope = str(body.get("scope") or "")
    if not granted(scope):
        return devops_error(400, f"Invalid scope '{scope}'.", "InvalidScopeException")
    policy = organization or Organization("", None)
    if policy.forbid_sessions or (policy.forbid_pats and kind == "compact"):
        text = "VS403463: The organization's policy forbids the creation of this token."
        return devops_error(403, text, "AccessCheckException")
    now = services.now()
    until = session_until(policy, body.get("validTo"), now, capped=kind == "selfdescribing")
    if until is None:
        return devops_error(400, "validTo is not acceptable.", "ArgumentOutOfRangeException")
    where = organization.name if organization else None
    name, life = str(body.get("displayName") or ""), until - now
    self_describing = services.mint_devops(account, where, "session", scope, life, name)
    compact = kind == "compact"
    value = services.mint_devops(account, where, "pat", scope, life, name) if compact else ""
    token = services.tokens[value or self_describing]
    return json_reply(session_answer(token, self_describing if compact else None))


def session_until(policy: Organization, asked: object | None, now: float, capped: bool) -> float | None:
    """When a session token ends; None when the wish is nonsense or beyond the policy."""
    most = None if policy.max_session_hours is None else now + policy.max_session_hours * HOUR
    if asked is None:
        return now + SESSION_CAP if most is None else min(most, now + SESSION_CAP)
    until = read_time(str(asked))
    if until is None or until <= now or (most is not None and until > most + CLOCK_SKEW):
        return None
    return min(until, now + SESSION_CAP) if capped else until


def session_answer(token: Token, alternate: str | None) -> dict[str, object]:
    return {
        "accessId": str(uuid.uuid4()),
        "authorizationId": token.authorization_id,
        "clientId": NO_TENANT,
        "displayName": token.name,
        "hostAuthorizationId": NO_TENANT,
        "userId": token.account.object_id,
        "isPublic": False,
        "isValid": True,
        "publicData": None,
        "scope": token.scope,
        "source": None,
        "targetAccounts": [],
        "claims": None,
        "token": token.value,
        "alternateToken": alternate,
        "validFrom": devops_time(token.issued),
        "validTo": devops_time(token.expires),
    }


def granted(scope: str) -> bool:
    wanted = scope.split()
    return bool(wanted) and set(wanted).issubset(GRANTABLE_SCOPES)


def pat_service(services: Services, organization: Organization, account: Account, request: Recorded) -> Reply:
    own = [
        token
        for token in services.tokens.values()
        if token.kind == "pat"
        and token.account is account
        and token.organization == organization.name
        and not token.revoked
    ]
    wanted = request.query.get("authorizationId")
    named = next((token for token in own if token.authorization_id == wanted), None)
    if request.method == "POST":
        return create_pat(services, organization, account, request)
    if request.method == "GET" and wanted is None:
        listed = [pat_answer(token, secret=False) for token in own]
        return json_reply({"continuationToken": "", "patTokens": listed})
    if request.method not in ("GET", "DELETE"):
        return Reply(405)
    if named is None:
        return pat_error(organization, "authorizationNotFound")
    if request.method == "GET":
        return json_reply({"patToken": pat_answer(named, secret=False), "patTokenError": "none"})
    named.revoked = True
    return Reply(204)


def create_pat(services: Services, organization: Organization, account: Account, request: Recorded) -> Reply:
    body, now = request.json(), services.now()
    until = pat_until(organization, body.get("validTo"), now)
    scope = str(body.get("scope") or "")
    objections = (
        (organization.tenant is None, "accessDenied"),  # personal accounts have no PAT API
        (organization.forbid_pats, "disablePatCreationPolicyViolation"),
        (not body.get("displayName"), "displayNameRequired"),
        (str(body.get("allOrgs") or False).lower() != "false", "globalPATCreationBlocked"),
        (scope == "app_token", "fullScopePatPolicyViolation"),
        (not granted(scope), "invalidScope"),
        (until is None or until <= now, "invalidValidTo"),
        (too_long(organization, until, now), "patLifespanPolicyViolation"),
    )
    for objection, error in objections:
        if objection:
            return pat_error(organization, error)
    assert until is not None
    name = str(body["displayName"])
    value = services.mint_devops(account, organization.name, "pat", scope, until - now, name)
    answer = pat_answer(services.tokens[value], secret=True)
    return json_reply({"patToken": answer, "patTokenError": "none"})


def pat_until(organization: Organization, asked: object | None, now: float) -> float | None:
    """When a PAT ends: by default after 30 days, or as soon as the policy wants."""
    if asked is not None:
        return read_time(str(asked))
    most = organization.max_pat_days
    return now + min(30.0, 30.0 if most is None else most) * DAY


def too_long(organization: Organization, until: float | None, now: float) -> bool:
    most = organization.max_pat_days
    return most is not None and until is not None and until > now + most * DAY + CLOCK_SKEW


def pat_answer(token: Token, secret: bool) -> dict[str, object]:
    return {
        "displayName": token.name,
        "validTo": devops_time(token.expires),
        "scope": token.scope,
        "targetAccounts": [NO_TENANT],
        "validFrom": devops_time(token.issued),
        "authorizationId": token.authorization_id,
        "token": token.value if secret else None,
    }


def pat_error(organization: Organization, error: str) -> Reply:
    return json_reply({"patToken": None, "patTokenError": error}, organization.policy_status)


# --- Sign-in service --------------------------------------------------------------------------

TENANT_ALIASES = ("organizations", "common", "consumers")
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def sign_in_service(services: Services, request: Recorded) -> Reply:
    match = re.fullmatch(r"/([A-Za-z0-9.-]+)/oauth2/v2\.0/(authorize|token|devicecode)", request.path)
    if match is None:
        return html_reply("<html>There is no such page.</html>", 404)
    tenant, action = match[1].lower(), match[2]
    known = {account.tenant for account in services.accounts.values()}
    known.update(each.tenant for each in services.organizations.values() if each.tenant)
    if tenant not in TENANT_ALIASES and tenant not in known:
        return entra_error("invalid_request", 90002, f"Tenant '{tenant}' not found.")
    if action == "authorize" and request.method == "GET":
        return authorize(services, tenant, request.query)
    if action == "authorize" or request.method != "POST":
        return Reply(405)
    form_type = "application/x-www-form-urlencoded"
    if not request.headers.get("content-type", "").startswith(form_type):
        return entra_error("invalid_request", 9002313, "Invalid request. Request is malformed.")
    if action == "devicecode":
        return device_code(services, tenant, request.form)
    grant = GRANTS.get(request.form.get("grant_type", ""))
    if grant is None:
        return entra_error("unsupported_grant_type", 70003, "The grant type is not supported.")
    return grant(services, tenant, request.form)


def scope_objection(scope: str) -> Reply | None:
    """First-party clients may ask for all of Azure DevOps, and for nothing narrower."""
    wanted = scope.split()
    if DEFAULT_SCOPE in wanted:
        return None
    if any(each.startswith(RESOURCE) for each in wanted):
        return entra_error("invalid_grant", 65002, "Consent must be configured via preauthorization.")
    return entra_error("invalid_scope", 70011, f"The scope '{scope}' is not valid.")


def client_objection(services: Services, form: Mapping[str, str]) -> Reply | None:
    """Whether a public client may come like this."""
    if form.get("client_id") not in services.public_clients:
        return entra_error("unauthorized_client", 700016, "Application was not found.")
    if "client_secret" in form:
        return entra_error("invalid_client", 700025, "Client is public: no secret.", 401)
    return None


def sign_in_tenant(account: Account, tenant: str) -> str | None:
    """The tenant that the token is for; None where the account does not exist."""
    if tenant in TENANT_ALIASES:
        return account.tenant
    return tenant if account.belongs_to(tenant) else None


def authorize(services: Services, tenant: str, query: Mapping[str, str]) -> Reply:
    """Sign `browser_account` in, as if a person had clicked through."""
    redirect = query.get("redirect_uri", "")
    if query.get("client_id") not in services.public_clients:
        return html_reply("<html>AADSTS700016: Application was not found.</html>", 400)
    if not re.fullmatch(r"http://localhost:\d{1,5}/?", redirect):
        return html_reply("<html>AADSTS50011: The redirect URI does not match.</html>", 400)
    account = services.browser_account
    if account is None:
        return html_reply("<html>Sign in to your account</html>")
    state = {"state": query["state"]} if query.get("state") else {}
    error = authorize_error(services, query) or services.sign_in_outcome
    where = sign_in_tenant(account, tenant)
    if not error and where is None:
        error = "access_denied"
    if error or where is None:
        text = f"AADSTS50000: the sign-in ended with {error}."
        return deliver(query, {"error": error, "error_description": text, **state})
    code = services.secrets.add("authorization code", "1.A" + secrets.token_urlsafe(60))
    expires = services.now() + CODE_LIFETIME
    kept = (query["client_id"], redirect, query["code_challenge"], query["scope"])
    services.codes[code] = Code(account, where, *kept, expires)
    return deliver(query, {"code": code, **state, "session_state": str(uuid.uuid4())})


def authorize_error(services: Services, query: Mapping[str, str]) -> str:
    """What is wrong with a request whose redirect URI can be trusted with the answer."""
    if query.get("response_type") != "code":
        return "unsupported_response_type"
    if scope_objection(query.get("scope", "")) is not None:
        return "invalid_scope"
    challenge_length = len(query.get("code_challenge", ""))  # of SHA-256 in base64url: 43
    pkce = query.get("code_challenge_method") == "S256" and challenge_length == 43
    return "" if pkce and query.get("state") else "invalid_request"


def deliver(query: Mapping[str, str], answer: Mapping[str, str]) -> Reply:
    """Hand the answer to the redirect URI: in the query, or by a form that submits itself."""
    redirect = query["redirect_uri"]
    if query.get("response_mode", "query") != "form_post":
        return Reply(302, [("Location", f"{redirect}?{urlencode(answer)}")])
    fields = "".join(
        f'<input type="hidden" name="{name}" value="{html.escape(value)}"/>' for name, value in answer.items()
    )
    form = f'<form method="POST" name="hiddenform" action="{html.escape(redirect)}">{fields}</form>'
    script = "<script>window.setTimeout('document.forms[0].submit()', 0);</script>"
    return html_reply(f"<html><body>{form}{script}</body></html>")


def token_reply(services: Services, account: Account, tenant: str, client: str, scope: str) -> Reply:
    """The answer of every grant.  A new refresh token never ends the life of the old one."""
    value: dict[str, object] = {
        "token_type": "Bearer",
        "scope": f"{RESOURCE}/user_impersonation {DEFAULT_SCOPE}",
        "expires_in": int(ENTRA_LIFETIME),
        "ext_expires_in": int(ENTRA_LIFETIME),
        "access_token": services.mint_entra(account, tenant),
    }
    if "offline_access" in scope.split():
        refresh = services.secrets.add("refresh token", "1.A" + secrets.token_urlsafe(700))
        account.refresh_tokens[refresh] = services.now()
        value["refresh_token"] = refresh
    if "openid" in scope.split():
        issuer = f"https://login.microsoftonline.com/{tenant}/v2.0"
        claims = {"aud": client, "iss": issuer, "tid": tenant, "oid": account.object_id}
        own = jwt({**claims, "preferred_username": account.upn})
        value["id_token"] = services.secrets.add("id token", own)
    return json_reply(value)


def redeem_code(services: Services, tenant: str, form: Mapping[str, str]) -> Reply:
    objection = client_objection(services, form)
    if objection is not None:
        return objection
    code = services.codes.get(form.get("code", ""))
    if code is None:
        return entra_error("invalid_grant", 70000, "The code is not valid.")
    if code.used:
        return entra_error("invalid_grant", 54005, "The code was already redeemed.")
    code.used = True
    digest = base64url(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
    if code.expires <= services.now():
        return entra_error("invalid_grant", 70008, "The code has expired.")
    if code.client != form["client_id"]:
        return entra_error("invalid_grant", 700005, "The code is for another client.")
    if code.redirect != form.get("redirect_uri"):
        return entra_error("invalid_grant", 50011, "The redirect URI does not match.")
    if code.challenge != digest:
        return entra_error("invalid_grant", 501481, "The code verifier does not match.")
    if tenant not in TENANT_ALIASES and tenant != code.tenant:
        return entra_error("invalid_grant", 700005, "The code is for another tenant.")
    return token_reply(services, code.account, code.tenant, code.client, code.scope)


def device_code(services: Services, tenant: str, form: Mapping[str, str]) -> Reply:
    objection = client_objection(services, form) or scope_objection(form.get("scope", ""))
    if objection is not None:
        return objection
    secret = services.secrets.add("device code", "DAQABIQEAAA" + secrets.token_urlsafe(60))
    user_code = "".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ23456789") for _ in range(9))
    expires = services.now() + services.device_lifetime
    kept = (form["client_id"], tenant, form["scope"], expires, services.device_interval)
    services.devices[secret] = Device(user_code, *kept)
    page = "https://microsoft.com/devicelogin"
    value = {
        "user_code": user_code,
        "device_code": secret,
        "verification_uri": page,
        "expires_in": int(services.device_lifetime),
        "interval": int(services.device_interval),
        "message": f"To sign in, open the page {page} and enter the code {user_code}.",
    }
    return json_reply(value)


def redeem_device(services: Services, tenant: str, form: Mapping[str, str]) -> Reply:
    objection = client_objection(services, form)
    if objection is not None:
        return objection
    device = services.devices.get(form.get("device_code", ""))
    if device is None or device.client != form["client_id"] or device.tenant != tenant:
        return entra_error("bad_verification_code", 70018, "The device code is not valid.")
    now, since = services.now(), services.now() - device.last_poll
    device.last_poll, device.polls = now, device.polls + 1
    if device.declined:
        return entra_error("authorization_declined", 65004, "The person declined.")
    if device.expires <= now:
        return entra_error("expired_token", 70020, "The device code has expired.")
    if since < device.interval - 0.5:  # a client that waited is never a hair too early
        device.interval += 5
        return entra_error("slow_down", 70016, "Polled too often.")
    patience = services.device_auto_approve_after_polls
    if patience is not None and device.polls > patience:
        device.account = device.account or services.browser_account
    if device.account is None:
        return entra_error("authorization_pending", 70016, "Authorization is pending.")
    where = sign_in_tenant(device.account, tenant)
    del services.devices[form["device_code"]]
    if where is None:
        return entra_error("invalid_grant", 50020, "The account does not exist in the tenant.")
    return token_reply(services, device.account, where, device.client, device.scope)


def redeem_refresh(services: Services, tenant: str, form: Mapping[str, str]) -> Reply:
    objection = client_objection(services, form) or scope_objection(form.get("scope", ""))
    if objection is not None:
        return objection
    value = form.get("refresh_token", "")
    accounts = services.accounts.values()
    account = next((each for each in accounts if value in each.refresh_tokens), None)
    if account is None or account.refresh_tokens[value] + REFRESH_IDLE <= services.now():
        return entra_error("invalid_grant", 700082, "The refresh token has expired.")
    where = sign_in_tenant(account, tenant)
    if where is None:
        return entra_error("invalid_grant", 50020, "The account does not exist in the tenant.")
    account.refresh_tokens[value] = services.now()
    return token_reply(services, account, where, form["client_id"], form["scope"])


def redeem_client(services: Services, tenant: str, form: Mapping[str, str]) -> Reply:
    """Client credentials: a secret, or a JWT that a certificate or another issuer signed."""
    if tenant in TENANT_ALIASES:
        return entra_error("invalid_request", 50059, "No tenant-identifying information.")
    if form.get("scope") != DEFAULT_SCOPE:
        return entra_error("invalid_scope", 70011, "The scope must be that of one resource.")
    wanted, accounts = form.get("client_id"), services.accounts.values()
    app = next((each for each in accounts if each.client_id == wanted), None)
    if app is None or app.kind != "app" or not app.belongs_to(tenant):
        return entra_error("unauthorized_client", 700016, "Application was not found.")
    if "client_assertion" in form:
        objection = assertion_objection(services, app, tenant, form)
        if objection is not None:
            return objection
    elif "client_secret" not in form:
        return entra_error("invalid_client", 7000218, "Secret or assertion is missing.", 401)
    elif not secrets.compare_digest(form["client_secret"].encode(), app.secret.encode()):
        return entra_error("invalid_client", 7000215, "Invalid client secret provided.", 401)
    elif app.secret_expired:
        return entra_error("invalid_client", 7000222, "The client secret keys are expired.", 401)
    return token_reply(services, app, tenant, app.client_id, "")


# --- Machines: certificates and federated tokens -----------------------------------------------

FEDERATED_AUDIENCE = "api://AzureADTokenExchange"
GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITHUB_SUBJECT = "repo:contoso/app:ref:refs/heads/main"
PIPELINE_ISSUER = "https://vstoken.dev.azure.com/33333333-3333-4333-8333-333333333333"
PIPELINE_SUBJECT = "sc://fabrikam/pipes/feeds"
CLUSTER_ISSUER = "https://westeurope.oic.prod-aks.azure.com/44444444-4444-4444-8444-444444444444/"
CLUSTER_SUBJECT = "system:serviceaccount:builds:installer"
# Both have a path like this; GitHub's comes with a query of its own.
JOB = "_apis/distributedtask/hubs/{}/plans/5d2c/jobs/77aa"
GITHUB_URL = (
    "https://pipelines.actions.githubusercontent.com/Zy0/00000000-0000-0000-0000-000000000000/"
    f"{JOB.format('Actions')}/idtoken?api-version=2.0"
)
PIPELINE_URL = f"https://dev.azure.com/fabrikam/pipes/{JOB.format('build')}/oidctoken"


class Certificate(NamedTuple):
    """A client certificate with its key, and the one of the authority that issued it."""

    key: rsa.RSAPrivateKey
    leaf: x509.Certificate
    issuer: x509.Certificate

    def pem(self, password: str = "", issuer: bool = False) -> bytes:
        """Key, certificate and, where wanted, its issuer's in one file, as Azure's tools take them."""
        locked = serialization.BestAvailableEncryption(password.encode()) if password else None
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            locked or serialization.NoEncryption(),
        )
        chain = [self.leaf, *([self.issuer] if issuer else [])]
        return key + b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain)

    def pfx(self, password: str = "") -> bytes:
        locked = serialization.BestAvailableEncryption(password.encode()) if password else None
        no_lock = serialization.NoEncryption()
        return pkcs12.serialize_key_and_certificates(
            b"client", self.key, self.leaf, [self.issuer], locked or no_lock
        )


@functools.cache
def a_key(number: int = 0) -> rsa.RSAPrivateKey:
    """One of a few keys that all tests share: a new one takes a tenth of a second."""
    return rsa.generate_private_key(65537, 2048)


def issue(
    name: str, key: Any, issuer: str, by: Any, days: float, authority: bool = False
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .sign(by, hashes.SHA256())
    )


def make_certificate(name: str = "robot.contoso.example", days: float = 30, key: int = 0) -> Certificate:
    """A certificate of `name` that some authority issued; expired where `days` is negative."""
    authority = a_key(99)
    root = issue("Contoso Issuer", authority, "Contoso Issuer", authority, 300, authority=True)
    leaf = issue(name, a_key(key), "Contoso Issuer", authority, days)
    return Certificate(a_key(key), leaf, root)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def read_jwt(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a JWT; empty where it is none."""
    try:
        head, body, _ = text.split(".")
        parts = [json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in (head, body)]
    except ValueError:
        return {}, {}
    return (parts[0], parts[1]) if all(isinstance(part, dict) for part in parts) else ({}, {})


def refused_client(code: int, text: str) -> Reply:
    return entra_error("invalid_client", code, text, 401)


def assertion_objection(
    services: Services, app: Account, tenant: str, form: Mapping[str, str]
) -> Reply | None:
    """Whether a JWT proves that its bearer is an application: by its certificate, or by another issuer."""
    assertion = form["client_assertion"]
    header, claims = read_jwt(assertion)
    if form.get("client_assertion_type") != JWT_BEARER or not header or not claims:
        return entra_error("invalid_request", 50027, "JWT token is invalid or malformed.")
    if {"x5t", "x5t#S256", "x5c"} & set(header):
        leaf = certificate_of(app, header)
        return certificate_objection(services, app, tenant, assertion, leaf)
    return federated_objection(services, app, assertion, claims)


def certificate_of(app: Account, header: Mapping[str, Any]) -> x509.Certificate | None:
    """The certificate that an assertion names, and that the application is known by."""
    known = list(app.certificates)
    if isinstance(header.get("x5c"), list) and app.named is not None:  # by subject name and issuer
        leaf = x509.load_der_x509_certificate(base64.b64decode(header["x5c"][0], validate=True))
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            leaf.verify_directly_issued_by(app.named.issuer)
            known += [leaf] if leaf.subject == app.named.leaf.subject else []
    digests = {"x5t": hashlib.sha1, "x5t#S256": hashlib.sha256}
    for each in known:
        wanted = {name: base64url(digest(der(each)).digest()) for name, digest in digests.items()}
        given = {name: str(header[name]).rstrip("=") for name in digests if name in header}
        if given and given.items() <= wanted.items():
            return each
    return None


def certificate_objection(
    services: Services, app: Account, tenant: str, assertion: str, leaf: x509.Certificate | None
) -> Reply | None:
    header, claims = read_jwt(assertion)
    if leaf is None:
        return refused_client(700027, "The certificate is not registered. [Reason - The key was not found.]")
    if not signed_by(leaf, header.get("alg"), assertion):
        return refused_client(700027, "Client assertion contains an invalid signature.")
    if leaf.not_valid_after_utc.timestamp() <= services.now():
        return refused_client(700027, "The certificate is expired. [Reason - The key used is expired.]")
    if not claims.get("iss") == claims.get("sub") == app.client_id:
        return refused_client(700021, "Client assertion application identifier doesn't match 'client_id'.")
    endpoint = rf"https://login\.[a-z.]+/{re.escape(tenant)}/oauth2/v2\.0/token"
    if not re.fullmatch(endpoint, str(claims.get("aud"))):
        return refused_client(700023, "Client assertion audience claim does not match Realm issuer.")
    return lifetime_objection(services, claims) if claims.get("jti") else refused_client(50027, "No 'jti'.")


def signed_by(leaf: x509.Certificate, algorithm: object, assertion: str) -> bool:
    """Whether a certificate's key signed a JWT, in one of the two ways Entra takes."""
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    scheme = {"PS256": pss, "RS256": padding.PKCS1v15()}.get(str(algorithm))
    signed, _, signature = assertion.rpartition(".")
    key = leaf.public_key()
    if scheme is None or not isinstance(key, rsa.RSAPublicKey):
        return False
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    try:
        key.verify(raw, signed.encode(), scheme, hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def lifetime_objection(services: Services, claims: Mapping[str, Any]) -> Reply | None:
    """An assertion is for ten minutes; clocks may differ by five."""
    now, begins, ends = services.now(), claims.get("nbf", 0), claims.get("exp")
    text = "Client assertion is not within its valid time range."
    if not isinstance(ends, (int, float)) or ends <= now or begins > now + CLOCK_SKEW:
        return refused_client(700024, text)
    return refused_client(700024, text) if ends > now + 600 + CLOCK_SKEW and "jti" in claims else None


def federated_objection(
    services: Services, app: Account, assertion: str, claims: Mapping[str, Any]
) -> Reply | None:
    """Whether an application takes the word of another issuer: issuer, subject and audience decide."""
    told = {"issuer": claims.get("iss"), "subject": claims.get("sub"), "audience": claims.get("aud")}
    none = "No matching federated identity record found for presented assertion"
    if not app.trusts:
        whole = ". ".join(f"Assertion {name.title()}: '{value}'" for name, value in told.items())
        return refused_client(70021, f"{none}. {whole}.")
    for code, name, known in (
        (700211, "issuer", {issuer for issuer, _ in app.trusts}),
        (700213, "subject", {subject for issuer, subject in app.trusts if issuer == told["issuer"]}),
        (700212, "audience", {FEDERATED_AUDIENCE}),
    ):
        if told[name] not in known:
            return refused_client(code, f"{none} {name} '{told[name]}'.")
    if assertion not in services.assertions:
        return refused_client(50013, "Assertion failed signature validation.")
    return lifetime_objection(services, {**claims, "nbf": 0, "exp": min(claims["exp"], services.now() + 600)})


def federated_token(
    services: Services, issuer: str, subject: str, audience: str = FEDERATED_AUDIENCE, lifetime: float = HOUR
) -> str:
    """A token that an issuer outside of Entra signed, as a cluster mounts it into a container."""
    claims = {"iss": issuer, "sub": subject, "aud": audience}
    token = jwt({**claims, "exp": int(services.now() + lifetime)})
    services.assertions.add(token)
    return services.secrets.add("assertion", token)


@dataclasses.dataclass(eq=False)
class Pipeline:
    """A job of GitHub Actions or of Azure Pipelines, which its host vouches for."""

    runner_token: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(40), repr=False)
    job_token: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(40), repr=False)
    connection: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))


def github_service(services: Services, request: Recorded) -> Reply:
    """The token of a job of GitHub Actions.  What asks for no audience gets that of its owner."""
    if not request.path.endswith("/idtoken") or request.method != "GET":
        return Reply(404)
    if presented(request) != ("bearer", services.pipeline.runner_token):
        return json_reply({"message": "Bad credentials"}, 401)
    if request.query.get("api-version") != "2.0":
        return json_reply({"message": "No api-version was given."}, 400)
    audience = request.query.get("audience", "https://github.com/contoso")
    value = federated_token(services, GITHUB_ISSUER, GITHUB_SUBJECT, audience, 300)
    return json_reply({"count": len(value), "value": value})


def pipeline_service(services: Services, request: Recorded) -> Reply:
    """The token of a job of Azure Pipelines, for one of its service connections."""
    if not request.path.endswith("/oidctoken") or request.method != "POST":
        return not_found("The page was not found.", "PageNotFoundException")
    if request.headers.get("x-tfs-fedauthredirect", "").lower() != "suppress":
        return Reply(302, [("Location", "https://spsprodweu1.vssps.visualstudio.com/_signin"), HTML_TYPE])
    if presented(request) != ("bearer", services.pipeline.job_token):
        return bearer_refusal(f"TF400813: The user '{ANONYMOUS}' is not authorized.")
    if not request.query.get("api-version", "").startswith("7.1"):
        return devops_error(400, "No api-version was given.", "VssVersionNotSpecifiedException")
    if not request.headers.get("content-type", "").startswith("application/json"):
        return devops_error(415, "The body must be JSON.", "VssRequestContentTypeNotSupported")
    if request.query.get("serviceConnectionId") != services.pipeline.connection:
        text = "No service connection with that identifier is available to the job."
        return not_found(text, "DistributedTaskException")
    return json_reply({"oidcToken": federated_token(services, PIPELINE_ISSUER, PIPELINE_SUBJECT)})


# --- Machines: managed identities -------------------------------------------------------------

# Where each platform serves, from which on the whole of its URL is made; as the real ones do.
APP_SERVICE, MACHINE_LEARNING, CLOUD_SHELL = "/MSI/token/", "/MSI/auth", "/oauth2/token"
INSTANCE = "/metadata/identity/oauth2/token"  # of Arc and of Service Fabric too
ARC_FOLDER = "/var/opt/azcmagent/tokens"  # as a machine sees it; see WATCH


@dataclasses.dataclass(eq=False)
class Identities:
    """The managed identities of one machine, and the manners of the platform it stands on."""

    system: Account | None = None
    assigned: list[Account] = dataclasses.field(default_factory=list)
    person: Account | None = None  # for whom Cloud Shell speaks
    header: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(30), repr=False)
    expires_on: str = ""  # how it is written: one of EXPIRES_ON; empty is the platform's own way
    echoes: bool = True  # agents of Arc before 1.30 give the system's identity, whatever is asked for
    keys: set[str] = dataclasses.field(default_factory=set, repr=False)  # of Arc, not used so far
    realm: str = ""  # what Arc's challenge says in place of the key's path

    def chosen(
        self, request: Recorded, client: str = "client_id", resource: str = "msi_res_id"
    ) -> Account | None:
        """The identity that a request names; a platform knows its own names of parameters alone."""
        names = {client: "client_id", "object_id": "object_id", resource: "upn"}
        for name in names.keys() & request.query.keys():
            wanted = request.query[name]
            return next(
                (each for each in self.assigned if getattr(each, names[name]).lower() == wanted.lower()), None
            )
        alone = self.assigned[0] if len(self.assigned) == 1 else None
        return self.system or alone


EXPIRES_ON: dict[str, Callable[[float], object]] = {
    "number": int,
    "text": lambda expires: str(int(expires)),
    "date": lambda expires: time.strftime("%m/%d/%Y %H:%M:%S +00:00", time.gmtime(expires)),
    "am/pm": lambda expires: time.strftime("%m/%d/%Y %I:%M:%S %p +00:00", time.gmtime(expires)),
}


def identity_answer(services: Services, account: Account, expires_on: str, **more: object) -> Reply:
    """The answer of every platform, which differ in how they write the time and in what else they say."""
    value = services.mint_entra(account)
    expires = EXPIRES_ON[services.identities.expires_on or expires_on](services.tokens[value].expires)
    known = {"access_token": value, "expires_on": expires, "resource": RESOURCE, "token_type": "Bearer"}
    return json_reply({**known, **more})


def status_error(status: int, message: str) -> Reply:
    return json_reply({"statusCode": status, "message": message}, status)


def instance_error(error: str, text: str) -> Reply:
    return json_reply({"error": error, "error_description": text}, 400)


def app_service(services: Services, request: Recorded) -> Reply:
    """App Service, Functions and Container Apps."""
    own, query = services.identities, request.query
    if request.headers.get("x-identity-header") != own.header:
        return status_error(401, "The X-IDENTITY-HEADER is missing or wrong.")
    if query.get("api-version") != "2019-08-01" or request.method != "GET":
        return status_error(400, "The api-version is not supported.")
    if query.get("resource") != RESOURCE:
        return status_error(500, "An unexpected error occurred while fetching the AAD token.")
    account = own.chosen(request, resource="mi_res_id")
    if account is None:
        text = "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId."
        return status_error(400, text)
    return identity_answer(services, account, "text", client_id=account.client_id)


def machine_learning(services: Services, request: Recorded) -> Reply:
    """Azure ML, and what App Service was before 2019."""
    own, query = services.identities, request.query
    if request.headers.get("secret") != own.header:
        return status_error(401, "The secret is missing or wrong.")
    if query.get("api-version") != "2017-09-01" or request.method != "GET":
        return status_error(400, "The api-version is not supported.")
    account = own.chosen(request, client="clientid")
    if query.get("resource") != RESOURCE or "client_id" in query or account is None:
        return status_error(400, "No managed identity was found for the request.")
    return identity_answer(services, account, "number")


def cloud_shell(services: Services, request: Recorded) -> Reply:
    """Cloud Shell speaks for the person whose shell it is."""
    if request.headers.get("metadata", "").lower() != "true":
        return instance_error("bad_request_102", "Required metadata header not specified")
    if request.method != "POST" or request.form != {"resource": RESOURCE}:
        return instance_error("invalid_request", "The resource is missing, or not alone.")
    if services.identities.person is None:
        return instance_error("invalid_request", "Nobody is signed in.")
    return identity_answer(services, services.identities.person, "text", expires_in="3900", scope="")


def instance(services: Services, request: Recorded) -> Reply:
    """A virtual machine."""
    query = request.query
    if request.headers.get("metadata", "").lower() != "true":
        return instance_error("bad_request_102", "Required metadata header not specified")
    asked = (request.method, query.get("api-version"), query.get("resource"))
    if asked != ("GET", "2018-02-01", RESOURCE):
        return instance_error("invalid_request", "The api-version or the resource is not valid.")
    account = services.identities.chosen(request)
    if account is None:
        return instance_error("invalid_request", "Identity not found")
    times = {"expires_in": str(int(ENTRA_LIFETIME)), "not_before": str(int(services.now()))}
    return identity_answer(services, account, "text", **times, refresh_token="", client_id=account.client_id)


def arc(services: Services, request: Recorded) -> Reply:
    """The agent of a server outside of Azure: who asks has to show that it may read a file."""
    own, query = services.identities, request.query
    if request.headers.get("metadata", "").lower() != "true":
        return instance_error("bad_request_102", "Required metadata header not specified")
    if query.get("api-version") not in ("2020-06-01", "2019-11-01") or query.get("resource") != RESOURCE:
        return instance_error("invalid_request", "The api-version or the resource is not valid.")
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if not key:
        return arc_challenge(services)
    if scheme.lower() != "basic" or key not in own.keys:
        return instance_error("unauthorized", "The key is not the one of the challenge.")._replace(status=401)
    own.keys.discard(key)
    account = own.chosen(request) if own.echoes else own.system
    if account is None:
        return instance_error("invalid_request", "Identity not found")
    more = {"client_id": account.client_id} if own.echoes else {}
    return identity_answer(services, account, "text", expires_in=str(int(ENTRA_LIFETIME)), **more)


def arc_challenge(services: Services) -> Reply:
    """Write a key where the agent does, and say where that is."""
    own, name = services.identities, f"{uuid.uuid4()}.key"
    key = services.secrets.add("key of Arc", secrets.token_hex(32))
    own.keys.add(key)
    folder = services.folder / "azcmagent" / "tokens"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch(mode=0o640)
    (folder / name).write_text(key)
    realm = f"Basic realm={own.realm or f'{ARC_FOLDER}/{name}'}"
    return Reply(401, [("WWW-Authenticate", realm)])


def fabric_service(services: Services, request: Recorded) -> Reply:
    """A cluster of Service Fabric; which identity it gives is written in the cluster."""
    own, query = services.identities, request.query
    code, status = "", 400
    if request.headers.get("secret") != own.header:
        code, status = "SecretHeaderNotFound", 401
    elif query.get("api-version") != "2019-07-01-preview" or query.get("resource") != RESOURCE:
        code = "ArgumentNullOrEmpty"
    elif own.system is None:
        code, status = "ManagedIdentityNotFound", 404
    if code or own.system is None:
        error = {"correlationId": str(uuid.uuid4()), "code": code, "message": "It did not work."}
        return json_reply({"error": error}, status)
    return identity_answer(services, own.system, "number")


def local_service(services: Services, request: Recorded) -> Reply:
    """What is reached in plain http on this machine, and never through a proxy."""
    table: dict[tuple[str, str], Handler] = {
        ("127.0.0.1", "/msi/token"): app_service,
        ("localhost", "/msi/token"): app_service,  # Container Apps
        ("127.0.0.1", "/msi/auth"): machine_learning,
        ("localhost", CLOUD_SHELL): cloud_shell,
        ("localhost", INSTANCE): arc,
        ("127.0.0.1", INSTANCE): instance,
    }
    handler = table.get((request.host, request.path.lower().rstrip("/")))
    return handler(services, request) if handler else Reply(404)


GRANTS: dict[str, Callable[[Services, str, Mapping[str, str]], Reply]] = {
    "authorization_code": redeem_code,
    DEVICE_GRANT: redeem_device,
    "refresh_token": redeem_refresh,
    "client_credentials": redeem_client,
}

HANDLERS: Sequence[tuple[str, Handler]] = (
    (r"https://(pkgs\.dev\.azure\.com|[\w-]+\.pkgs\.visualstudio\.com)", feed_service),
    (r"https://[\w-]+\.blob\.core\.windows\.net", blob_service),
    (r"https://(app\.)?vssps\.dev\.azure\.com", token_service),
    (r"https://[\w-]+\.vssps\.visualstudio\.com", token_service),
    (r"https://login\.(microsoftonline\.(com|us)|microsoft\.com|windows\.net)", sign_in_service),
    (r"https://[\w-]+\.actions\.githubusercontent\.com", github_service),
    (r"https://dev\.azure\.com", pipeline_service),
    (r"http://(127\.0\.0\.1|localhost)", local_service),
    (r"https://127\.0\.0\.1", fabric_service),
)


# --- Servers ----------------------------------------------------------------------------------


class Authority:
    """A throw-away certificate authority that makes certificates as names are asked for."""

    def __init__(self, pem: Path) -> None:
        self.pem = pem
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(str(pem))
        self._lock = threading.Lock()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.door = self.context("localhost")
        self.door.sni_callback = self._choose

    def context(self, name: str) -> ssl.SSLContext:
        with self._lock:
            if name not in self._contexts:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.set_alpn_protocols(["http/1.1"])
                self._ca.issue_cert(name).configure_cert(context)
                self._contexts[name] = context
            return self._contexts[name]

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name:
            tls.context = self.context(name)


class Server(socketserver.ThreadingTCPServer):
    """A threaded server that can hang up on everybody at once."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, services: Services, door: type[Door]) -> None:
        self.services = services
        self.door = door
        self._open: dict[socket.socket, threading.Thread] = {}
        super().__init__(("127.0.0.1", 0), door)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def hang_up(self) -> list[threading.Thread]:
        """Cut all connections; the threads returned are about to end."""
        threads = []
        for connection, thread in list(self._open.items()):
            with contextlib.suppress(OSError):  # past SSLSocket, whose state its thread is using
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
            threads.append(thread)
        return threads

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.attend(request, client_address)

    def attend(self, connection: socket.socket, client_address: Any) -> None:
        """Serve a connection to its end, in the thread of the caller."""
        self._open[connection] = threading.current_thread()
        try:
            self.door(connection, client_address, self)
        finally:
            del self._open[connection]

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # which TLS errors and broken pipes are
            self.services.mishaps.append(traceback.format_exc())


class SecureServer(Server):
    def context(self) -> ssl.SSLContext:
        return self.services.authority.door

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Speak TLS; the handshake is left to the connection's own thread."""
        request.settimeout(10)
        context = self.context()
        with context.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as connection:
            self.attend(connection, client_address)


class Door(http.server.BaseHTTPRequestHandler):
    """HTTP/1.1 on one connection: reads requests, has them answered, writes the replies."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else an answer waits 40 ms for the ACK of what went before
    timeout = 60
    scheme = "https"
    server: Server

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def do_GET(self) -> None:
        request = self.read()
        if request is not None:
            self.write(self.reply(request))

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815  names of http.server

    def reply(self, request: Recorded) -> Reply:
        return self.server.services.answer(request)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr: the record is `services.requests`."""

    def read(self) -> Recorded | None:
        """The request with its body; None, and a refusal sent, when the body is too large."""
        url = urlsplit(self.path)
        host = url.hostname or urlsplit("//" + self.headers.get("Host", "")).hostname or ""
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = int(headers.get("content-length") or 0)
        body = self.read_chunks() if chunked else self.read_body(length)
        request = Recorded(self.scheme, host, self.command, url.path, query, headers, body or b"")
        if body is None:
            self.server.services.record(request, 413)
            self.close_connection = True
            self.write(Reply(413))
            return None
        return request

    def read_body(self, length: int) -> bytes | None:
        return None if length > BODY_CAP else self.rfile.read(length)

    def read_chunks(self) -> bytes | None:
        body = bytearray()
        while True:
            size = int(self.rfile.readline().partition(b";")[0], 16)
            if len(body) + size > BODY_CAP:
                return None
            body += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                return bytes(body)

    def write(self, reply: Reply) -> None:
        services = self.server.services
        if reply.wait:
            services.closing.wait(reply.wait)
        if reply.status == 0:
            self.close_connection = True
            return
        reason = reply.reason or self.responses.get(reply.status, ("",))[0]
        headers = [("Date", self.date_time_string(int(services.now())))]
        headers.extend(reply.headers)
        if reply.chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif reply.status not in (204, 304):
            headers.append(("Content-Length", str(reply.repeat * len(reply.body))))
        if self.close_connection:
            headers.append(("Connection", "close"))
        lines = [f"HTTP/1.1 {reply.status} {reason}"]
        lines.extend(f"{name}: {value}" for name, value in headers)
        head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
        body = b"" if self.command == "HEAD" or reply.status in (204, 304) else reply.body
        if not reply.drip:
            self.wfile.write(head if reply.repeat > 1 or reply.chunked else head + body)
            self.pour(reply, body)
            return
        if not reply.drips_head:
            self.wfile.write(head)
        for each in head + body if reply.drips_head else body:
            if services.closing.wait(reply.drip):
                return
            self.wfile.write(bytes([each]))

    def pour(self, reply: Reply, body: bytes) -> None:
        """Write a body again and again, and count what the client took."""
        for _ in range(reply.repeat if reply.repeat > 1 or reply.chunked else 0):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body) if reply.chunked else body)
            self.server.services.sent += len(body)
        if reply.chunked:
            self.wfile.write(b"0\r\n\r\n")


class ProxyDoor(Door):
    """An HTTP proxy whose every tunnel ends at the stand-in services."""

    scheme = "http"

    def do_CONNECT(self) -> None:
        services = self.server.services
        authorization = self.headers.get("Proxy-Authorization")
        status = 200 if self.path.endswith(":443") else 403
        if not self.welcome():
            status = 407
        with services.lock:
            services.tunnels.append(Tunnel(self.path, authorization, status))
        self.close_connection = True
        if status != 200:
            self.write(self.proxy_refusal(status))
            return
        time.sleep(services.latency)
        self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        # The client says nothing more before it has read that: the socket can change hands.
        services.secure.finish_request(self.connection, self.client_address)

    def reply(self, request: Recorded) -> Reply:
        if "://" not in self.path:  # no proxy request, but one for a service at `local_url`
            return super().reply(request)
        reply = Reply(502) if self.welcome() else self.proxy_refusal(407)
        self.server.services.record(request, reply.status)
        return reply

    def welcome(self) -> bool:
        login = self.server.services.proxy_login
        if login is None:
            return True
        expected = "Basic " + base64.b64encode(login.encode()).decode()
        return self.headers.get("Proxy-Authorization") == expected

    def proxy_refusal(self, status: int) -> Reply:
        return Reply(status, [("Proxy-Authenticate", 'Basic realm="proxy"')] * (status == 407))


def fake_az(folder: Path, services: Services, account: Account) -> None:
    """Put an `az` into `folder` that is signed in as `account`, at home and where it is a guest.

    Tokens lie in files that only their owner can read: not on a command line, not in a script.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, tenant in [("home", account.tenant), *((t, t) for t in account.guest_of)]:
        token = services.tokens[services.mint_entra(account, tenant)]
        local = datetime.datetime.fromtimestamp(token.expires)
        answer = {
            "accessToken": token.value,
            "expiresOn": local.strftime("%Y-%m-%d %H:%M:%S.%f"),
            "expires_on": int(token.expires),
            "tenant": token.tenant,
            "tokenType": "Bearer",
        }
        put_token(folder, f"az-{name}.json", answer)
        put_token(folder, f"az-{name}-token.json", json.dumps(token.value))
    script = folder / "az"
    script.write_text(
        "#!/bin/sh\n"
        f'case "$*" in "account get-access-token "*{RESOURCE}*) ;;\n'
        '*) echo "ERROR: unexpected: az $*" >&2; exit 2;; esac\n'
        "tenant=home only=\n"
        'case "$*" in *"--query accessToken"*) only=-token;; esac\n'
        'while [ $# -gt 0 ]; do [ "$1" = --tenant ] && tenant="$2"; shift; done\n'
        f'[ "$tenant" = {account.tenant} ] && tenant=home\n'
        'cat "${0%/*}/az-$tenant$only.json" 2>/dev/null && exit\n'
        'echo "AADSTS50020: no such user there. Run: az login --tenant $tenant" >&2; exit 1\n'
    )
    script.chmod(0o755)
    (folder / "az.cmd").write_text('@type "%~dp0az-home.json"\r\n')


class FabricServer(SecureServer):
    """The endpoint of a cluster of Service Fabric: a port of its own, and a certificate of its own.

    Nobody vouches for that but the thumbprint (SHA-1, in hexadecimal) that the cluster tells.
    """

    def __init__(self, services: Services) -> None:
        certificate = make_certificate("fabric", key=3)
        path = services.folder / "fabric.pem"
        path.touch(mode=0o600)
        path.write_bytes(certificate.pem())
        self.own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.own.load_cert_chain(path)
        self.thumbprint = hashlib.sha1(der(certificate.leaf)).hexdigest().upper()
        super().__init__(services, Door)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}{INSTANCE}"

    def context(self) -> ssl.SSLContext:
        return self.own


def put_program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def put_token(folder: Path, name: str, value: object) -> Path:
    """A file that only its owner can read, for a program to print: no secret lies in a script."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def fake_azd(folder: Path, services: Services, account: Account) -> None:
    """Put an `azd` into `folder` that is signed in as `account`; it knows its own arguments alone."""
    token = services.tokens[services.mint_entra(account)]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(token.expires))
    path = put_token(folder, "azd.json", {"token": token.value, "expiresOn": stamp})
    put_program(
        folder,
        "azd",
        "#!/bin/sh\n"
        f'case "$*" in "auth token "*"--scope {DEFAULT_SCOPE}"*) ;;\n'
        '*) echo "ERROR: unexpected: azd $*" >&2; exit 2;; esac\n'
        'case "$*" in *"--output json"*) ;; *) echo raw; exit;; esac\n'
        'case "$*" in *--no-prompt*) ;; *) read answer;; esac\n'
        f'case "$*" in *"--tenant-id "*) case "$*" in *{account.tenant}*) ;;\n'
        '*) echo \'{"error":"AADSTS50020: no such user there","message":"","suggestion":""}\' >&2; exit 1;;\n'
        f'esac;; esac\ncat "{path}"\n',
    )


POWERSHELL = """#!{python}
import base64, json, re, sys
arguments = [each.lower() for each in sys.argv[1:]]
assert {{"-noprofile", "-noninteractive"}} <= set(arguments), arguments
place = next(at for at, each in enumerate(arguments) if each in ("-encodedcommand", "-ec", "-enc", "-e"))
script = base64.b64decode(sys.argv[place + 2], validate=True).decode("utf-16-le")
assert "Get-AzAccessToken" in script and {resource!r} in script, "this asks for no token"
with open({data!r}) as stream:
    answer = json.load(stream)
if answer.get("error"):
    print(answer["error"], file=sys.stderr)
    sys.exit(1)
if {secure} and not re.search("NetworkCredential|PtrToString|-AsPlainText", script):
    answer["token"] = "System.Security.SecureString"  # as PowerShell prints one
print(json.dumps(answer))
"""


def fake_powershell(
    folder: Path,
    services: Services,
    account: Account,
    name: str = "pwsh",
    secure: bool = True,
    error: str = "",
) -> None:
    """Put a PowerShell into `folder` whose module Az is signed in as `account`.

    It reads the script, and prints what the script has it print; with `secure`, tokens come as
    SecureString, as they do since Az.Accounts 5.0.
    """
    token = services.tokens[services.mint_entra(account)]
    expires = int(token.expires)
    answer = {"token": token.value, "expires": expires, "expires_on": expires, "error": error}
    data = str(put_token(folder, f"{name}.json", answer))
    script = POWERSHELL.format(python=sys.executable, data=data, secure=secure, resource=RESOURCE)
    put_program(folder, name, script)


def fake_helper(home: Path, services: Services, account: Account, socket_is_there: bool = True) -> None:
    """Put the helper of Codespaces into a home folder; it asks an editor, which may have gone."""
    path = put_token(home.parent / "editor", "token", services.mint_entra(account) + "\n")
    speak = f'cat "{path}"' if socket_is_there else 'echo "No sockets found" >&2; exit 1'
    put_program(home, "ado-auth-helper", f'#!/bin/sh\n[ "$*" = get-access-token ] || exit 2\n{speak}\n')


# Run by every Python of a machine as it starts.  Whatever would leave loopback is written down and
# kept from happening, and so is whatever program is started; no cloud is found by what this computer
# happens to be; the clock, the modules and the files of an Arc agent are what and where a test wants them.
WATCH = """
import builtins, io, os, sys, time

def note(command, environ):
    import json
    words = [command] if isinstance(command, (str, bytes, os.PathLike)) else list(command)
    environ = os.environ if environ is None else environ
    told = [[os.fsdecode(word) for word in words], {os.fsdecode(k): os.fsdecode(environ[k]) for k in environ}]
    path = os.environ["STAND_IN_CHILDREN"]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, (json.dumps(told) + "\\n").encode())
        os.close(descriptor)
    except OSError:  # where a test fills the disk
        pass

def watch(event, arguments):
    looked_up = event in ("socket.getaddrinfo", "socket.gethostbyname")
    connected = event == "socket.connect" and isinstance(arguments[1], tuple)
    if looked_up or connected:
        host = arguments[0] if looked_up else arguments[1][0]
        host = host.decode() if isinstance(host, bytes) else str(host)
        if host not in ("127.0.0.1", "::1", "localhost"):
            descriptor = os.open(os.environ["STAND_IN_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(descriptor, (host + "\\n").encode())
            os.close(descriptor)
            raise OSError(101, "Network is unreachable")
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn") and "STAND_IN_CHILDREN" in os.environ:
        note(arguments[1], arguments[3 if event == "subprocess.Popen" else 2])
    if event == "open" and str(arguments[0]).startswith("/sys/class/dmi/"):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])

sys.addaudithook(watch)

shift = float(os.environ.get("STAND_IN_CLOCK", 0))
if shift:
    real_time = time.time
    time.time = lambda: real_time() + shift
for name in os.environ.get("STAND_IN_WITHOUT", "").split():
    sys.modules[name] = None

folder, place = os.environ.get("STAND_IN_ARC"), "/var/opt/azcmagent"
if folder:
    owner, descriptors = int(os.environ.get("STAND_IN_ARC_OWNER", 0)), set()
    def ours(path):
        return isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(place)
    def owned(status):
        return os.stat_result((*status[:4], owner, *status[5:10]))
    class Moved:  # no function, which Python 3.9's pathlib would make a method of
        def __init__(self, function):
            self.function = function
        def __call__(self, path, *arguments, **options):
            if not ours(path):
                found = self.function(path, *arguments, **options)
                if type(found) is int:
                    descriptors.discard(found)
                return found
            path = folder + os.fspath(path)[len(place):]
            found = self.function(path, *arguments, **options)
            if isinstance(found, os.stat_result):
                return owned(found)
            descriptors.add(found if isinstance(found, int) else found.fileno())
            return found
    real_fstat = os.fstat
    os.fstat = lambda at: owned(real_fstat(at)) if at in descriptors else real_fstat(at)
    for name in ("open", "stat", "lstat"):
        setattr(os, name, Moved(getattr(os, name)))
    io.open = builtins.open = Moved(open)
"""


# ----------------------------------------------------------------------------------------------
# Tests
# ----------------------------------------------------------------------------------------------

# --- helpers ----------------------------------------------------------------------------------

FEED = "https://pkgs.dev.azure.com/contoso/_packaging/pyfeed/pypi/simple/"
UPLOAD = "https://pkgs.dev.azure.com/contoso/_packaging/pyfeed/pypi/upload/"
OTHER = "https://pkgs.dev.azure.com/fabrikam/_packaging/pyfeed/pypi/simple/"
TENANT = "8f0f8e3a-6b1e-4c8e-9a53-0d7d3a3c1e11"
NOW = 1_800_000_000.0
ENTRA = f"https://login.microsoftonline.com/{TENANT}"


POSIX = pytest.mark.skipif(os.name == "nt", reason="of POSIX: modes, links, signals, fcntl")


def parsed(url: str = FEED) -> module.Feed:
    found = module.parse_feed(url)
    assert found is not None
    return found


def a_challenge(url: str = FEED, **changes: Any) -> module.Challenge:
    told = module.Discovered(TENANT, "https://vssps.dev.azure.com/contoso")._replace(**changes)
    return module.Challenge(parsed(url), lambda: told)


def unexpected(*arguments: object) -> Any:
    raise AssertionError(f"not expected here: {arguments!r}")


class Kept(module.Store):
    """A store that is a dictionary; `real` tells whether it is as good as a keyring."""

    def __init__(self, entries: Mapping[str, str] | None = None, real: bool = True) -> None:
        super().__init__(unexpected, module.Patience(lambda: 0.0))
        self.real, self.entries = real, dict(entries or {})
        self.others: dict[tuple[str, str], str] = {}

    def read(self, name: str, latest: bool = False) -> str | None:
        return self.entries.get(name)

    def labels(self) -> list[str]:
        return ["memory"] if self.real else []

    def lasts(self) -> bool:
        return self.real

    def keeps(self) -> bool:
        return self.real

    def write(self, name: str, text: str, grade: int) -> bool:
        kept = self.real or grade == module.PLAIN
        if kept:
            self.entries[name] = text
        return kept

    def erase(self, name: str) -> bool:
        return self.entries.pop(name, None) is not None

    def foreign(self, names: Sequence[tuple[str, str]], erase: bool = False) -> list[str]:
        found = [self.others[name] for name in names if name in self.others]
        for name in names if erase else ():
            self.others.pop(name, None)
        return found


def no_file(path: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", path)


def make_world(**changes: Any) -> module.World:
    """A world in which nothing exists and whatever is not asked for must not happen."""
    nothing = module.World(
        environ={},
        host="machine",
        now=lambda: NOW,
        sleep=unexpected,
        jitter=lambda: 0.0,
        send=unexpected,
        which=lambda program: None,
        run=unexpected,
        read=no_file,
        of_system=unexpected,
        helper=lambda: None,
        notify=unexpected,
        ticks=lambda: 0.0,
        patience=module.Patience(lambda: 0.0),
        store=Kept(),
        lock=lambda name, seconds, shared: contextlib.nullcontext(module.Turn(None)),
        progress=lambda text: None,
        terminal=lambda: False,
        browser=lambda: None,
        start=unexpected,
        listen=unexpected,
        random=unexpected,
        attempted=lambda source, outcome: None,
        programs=unexpected,
        python=unexpected,
        settings=unexpected,
        route=unexpected,
    )
    return module.World(**{**vars(nothing), **changes})


class Script:
    """Answers requests in turn, and keeps them."""

    def __init__(self, *answers: module.Response | Exception) -> None:
        self.answers, self.requests = list(answers), []  # type: ignore[var-annotated]  # by what is appended

    def __call__(self, request: module.Request, seconds: float = 10.0) -> module.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def response(status: int, body: object = b"", **headers: str) -> module.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    pairs = tuple((name.replace("_", "-").lower(), value) for name, value in headers.items())
    return module.Response(status, pairs, raw)


CHALLENGED = response(
    401,
    www_authenticate=f"Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}, "
    'Basic realm="https://pkgsprodsu3weu.pkgs.visualstudio.com/", TFS-Federated',
    x_vss_resourcetenant=TENANT,
    x_vss_authorizationendpoint="https://vssps.dev.azure.com/contoso/",
    x_vss_e2eid="11111111-2222-3333-4444-555555555555",
)


def only_az(program: str) -> str | None:
    return "/bin/az" if program == "az" else None


def az_world(send: Script, **changes: Any) -> module.World:
    """A world with a working Azure CLI, and a service that answers by script."""
    token = jwt({"scp": "user_impersonation", "upn": "ada@contoso.example", "exp": NOW + 3600})
    done = module.Completed(0, json.dumps({"accessToken": token, "expires_on": NOW + 3600}), "")
    changes = {"which": only_az, "run": lambda *_: done, **changes}
    return make_world(send=send, **changes)


# --- feeds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(FEED, id="organization-scoped"),
        pytest.param(FEED.rstrip("/"), id="no closing slash"),
        pytest.param(f"{FEED}some-package/", id="a package's page"),
        pytest.param(UPLOAD, id="upload"),
        pytest.param(UPLOAD.rstrip("/"), id="upload, no closing slash"),
        pytest.param(FEED.replace("contoso/", "contoso/My%20Project/"), id="project-scoped"),
        pytest.param(FEED.replace("contoso/", f"contoso/{TENANT}/"), id="project by GUID"),
        pytest.param(FEED.replace("pyfeed", "pyfeed@Local"), id="view"),
        pytest.param(FEED.replace("https://", "https://VssSessionToken@"), id="user name"),
        pytest.param(FEED.replace("https://", "https://user:pass@"), id="user name and password"),
        pytest.param(FEED.replace(".com/", ".com:443/"), id="default port"),
        pytest.param(FEED.replace("pkgs.dev.azure.com", "PKGS.Dev.Azure.COM"), id="host in capitals"),
        pytest.param(FEED.replace("contoso", "Contoso"), id="organization in capitals"),
        pytest.param(FEED + "?x=1/", id="query"),
        pytest.param(FEED + "#sha256=00", id="fragment"),
        pytest.param(
            f"https://pkgs.dev.azure.com/contoso/{TENANT}/_packaging/{TENANT}/pypi/download/x/1.0/"
            "x-1.0-py3-none-any.whl#sha256=00",
            id="download link",
        ),
        pytest.param("https://pkgs.dev.azure.com/contoso", id="organization alone"),
        pytest.param("https://contoso.pkgs.visualstudio.com/_packaging/f/pypi/simple/", id="legacy"),
        pytest.param(
            "https://contoso.pkgs.visualstudio.com/DefaultCollection/_packaging/f/pypi/simple/",
            id="legacy with collection",
        ),
        pytest.param("contoso.pkgs.visualstudio.com", id="legacy host alone"),
        pytest.param("contoso.pkgs.visualstudio.com:443", id="legacy host and port"),
        pytest.param("https://contoso.pkgs.vsts.me/_packaging/f/pypi/simple/", id="test fabric"),
        pytest.param("https://pkgs.codedev.ms/contoso/_packaging/f/pypi/simple/", id="test fabric 2"),
    ],
)
def test_parse_feed_gives_one_organization_for_every_spelling(url: str) -> None:
    assert parsed(url).organization == "contoso"


def test_parse_feed_keeps_the_path_and_drops_the_rest() -> None:
    url = "https://me:pw@PKGS.dev.azure.com:443/Contoso/My%20Project/_packaging/f/?q=1#x"
    assert parsed(url).url == "https://pkgs.dev.azure.com/Contoso/My%20Project/_packaging/f/"


@pytest.mark.parametrize("host", ["pkgs.visualstudio.com", "pkgsprodsu3weu.pkgs.visualstudio.com"])
def test_parse_feed_takes_the_organization_of_the_host_guid_form_from_the_path(host: str) -> None:
    found = parsed(f"https://{host}/A{TENANT}/_packaging/f/pypi/simple/")
    assert found.organization == f"a{TENANT}"


NOT_OURS = [
    "",
    "my-service",
    "python-poetry-check",
    "poetry-repository-private",
    "pdm-pypi-0",
    "https://index.example.org/simple/",
    "index.example.org",
    "https://[bad",
    "https://",
    "://",
    "pkgs.dev.azure.com",
    "https://pkgs.dev.azure.com",
    "https://pkgs.dev.azure.com/",
    "https://pkgs.dev.azure.com/_packaging/f/pypi/simple/",
    "https://packagefeedproxy.microsoft.io/pypi/simple",
    "https://dev.azure.com/contoso/",
    "https://feeds.dev.azure.com/contoso/",
]
LOOK_ALIKES = [
    "http://pkgs.dev.azure.com/contoso/",
    "ftp://pkgs.dev.azure.com/contoso/",
    "https://pkgs.dev.azure.com:8443/contoso/",
    "https://pkgs.dev.azure.com:80/contoso/",
    "https://pkgs.dev.azure.com:99999/contoso/",
    "https://pkgs.dev.azure.com:abc/contoso/",
    "https://evil-pkgs.dev.azure.com/contoso/",
    "https://evilpkgs.dev.azure.com/contoso/",
    "https://evil.pkgs.dev.azure.com/contoso/",
    "https://evilpkgs.visualstudio.com/contoso/",
    "https://pkgs.dev.azure.com.evil.example/contoso/",
    "https://contoso.pkgs.visualstudio.com.evil.example/",
    "https://evil.example/pkgs.dev.azure.com/contoso/",
    "https://evil.example/?u=https://pkgs.dev.azure.com/contoso/",
    "https://evil.example/#https://pkgs.dev.azure.com/contoso/",
    "https://evil.example#@pkgs.dev.azure.com/contoso/",
    "https://pkgs.dev.azure.com@evil.example/contoso/",
    "https://pkgs.dev.azure.com:pw@evil.example/contoso/",
    "https://pkgs.dev.azure.com#@evil.example/contoso/",
    "https://pkgs.dev.azure.com?@evil.example/contoso/",
    "https://a@evil.example@pkgs.dev.azure.com/contoso/",
    "https://evil.example\\@pkgs.dev.azure.com/contoso/",
    "https://pkgs.dev.azure.com\\@evil.example/contoso/",
    "https://pkgs.dev.azure.com\\.evil.example/contoso/",
    "https://evil.example\\.pkgs.visualstudio.com/contoso/",
    "https://pkgs.dev.azure.com./contoso/",
    "https://contoso.pkgs.visualstudio.com./",
    "https://pkgs%2edev.azure.com/contoso/",
    "https://pkgs.dev.azure.com%2eevil.example/contoso/",
    "https://pkgs.dev.azure.com%00.evil.example/contoso/",
    "https://pkgs.dev.azure.com\t/contoso/",
    "https://pkgs.dev\n.azure.com/contoso/",
    "https://pkgs.dev.azure.com\r\n/contoso/",
    "https://pkgs.dev.azure.com\x00.evil.example/contoso/",
    "https://pkgs.dev.azure.com /contoso/",
    " https://pkgs.dev.azure.com/contoso/",
    "https://pkgs.dev.azure.com/contoso /",
    "https://\uff50kgs.dev.azure.com/contoso/",
    "https://pkgs\u3002dev.azure.com/contoso/",
    "https://pkgs.dev.\u0430zure.com/contoso/",
    "https://p\u212ags.dev.azure.com/contoso/",
    "https://xn--pkgs-.pkgs.visualstudio.com.evil.example/",
    "https://[::ffff:13.107.42.20]/contoso/",
    "https://[pkgs.dev.azure.com]/contoso/",
    "https://.pkgs.visualstudio.com/contoso/",
    "https://contoso..pkgs.visualstudio.com/",
    "https://-.pkgs.visualstudio.com/contoso/",
    "https:pkgs.dev.azure.com/contoso/",
    "https:/pkgs.dev.azure.com/contoso/",
    "https:///pkgs.dev.azure.com/contoso/",
    "//pkgs.dev.azure.com/contoso/",
    "https://https://pkgs.dev.azure.com/contoso/",
    "evil.example/contoso.pkgs.visualstudio.com",
    "me@contoso.pkgs.visualstudio.com",
    "contoso.pkgs.visualstudio.com@evil.example",
    "https://pkgs.dev.azure.com/../contoso/",
    "https://pkgs.dev.azure.com/contoso/../fabrikam/_packaging/f/pypi/simple/",
    "https://pkgs.dev.azure.com/contoso/%2e%2E/fabrikam/_packaging/f/pypi/simple/",
    "https://pkgs.dev.azure.com//contoso/",
    "https://pkgs.dev.azure.com/contoso%2ffabrikam/",
    "https://pkgs.dev.azure.com/contoso%00/",
    "https://pkgs.dev.azure.com/con%0atoso/",
    "https://pkgs.dev.azure.com/contoso/\udce9/",
]


@pytest.mark.parametrize("service", NOT_OURS + LOOK_ALIKES)
def test_parse_feed_leaves_everything_else_alone(service: str) -> None:
    assert module.parse_feed(service) is None


@given(
    st.one_of(
        st.text(),
        st.builds("https://{}/{}".format, st.text(), st.text()),
        st.builds(
            "{}{}{}".format,
            st.text(max_size=9),
            st.sampled_from(["pkgs.dev.azure.com", "https://pkgs.dev.azure.com/contoso/"]),
            st.text(max_size=9),
        ),
    )
)
def test_parse_feed_agrees_with_the_parser_that_opens_connections(service: str) -> None:
    found = module.parse_feed(service)
    if found is not None:
        parts = urllib3.util.parse_url(found.url)
        assert (parts.scheme, parts.auth, parts.port) == ("https", None, None)
        assert module.organization_of(str(parts.host), parts.path or "") == found.organization
        if not found.bare:
            assert urllib3.util.parse_url(service).host == parts.host


# --- tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T08:00:00.1234567Z", NOW),
        ("2027-01-15T08:00:00", NOW),
        ("2027-01-15 08:00:00", NOW),
        ("2027-01-15T09:30:00+01:30", NOW),
        ("2027-01-15T06:30:00.5-0130", NOW),
        ("2027-02-30T08:00:00Z", None),
        ("2027-01-15T25:00:00Z", None),
        ("2027-01-15", None),
        ("tomorrow", None),
        ("", None),
        (1, None),
        (None, None),
    ],
)
def test_parse_date(text: object, epoch: float | None) -> None:
    assert module.parse_date(text) == epoch


def test_format_date() -> None:
    assert module.format_date(NOW + 0.7) == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (1, 1.0),
        (1.5, 1.5),
        ("2", 2.0),
        ("x", None),
        (True, None),
        (None, None),
        ([], None),
        ("nan", None),
        ("inf", None),
        (float("inf"), None),
        (10**400, None),
        ("9" * 400, None),
    ],
)
def test_number(value: object, found: float | None) -> None:
    assert module.number(value) == found


@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.text(), st.lists).map(str)))
def test_parsers_of_outside_text_never_raise(value: str | bytes) -> None:
    assert isinstance(module.parse_object(value), dict)
    if isinstance(value, str):
        assert isinstance(module.claims(value), dict)
        assert isinstance(module.claims(f"x.{value}.y"), dict)
        module.parse_date(value)
        module.number(value)
        module.read_session(value)
        assert module.shown(value).isprintable()


def test_parse_object_survives_what_is_nested_too_deep() -> None:
    assert module.parse_object('{"a":' + "[" * 100_000) == {}


@pytest.mark.parametrize(
    ("payload", "person"),
    [
        ({"idtyp": "user"}, True),
        ({"idtyp": "app", "scp": "x"}, False),
        ({"scp": "user_impersonation", "appid": "x"}, True),
        ({"roles": ["x"], "appid": "x"}, False),
        ({"appid": "x", "oid": "y"}, False),
        ({"azp": "x", "sub": "y"}, False),
        ({"appid": "x", "upn": "ada@contoso.example"}, True),
        ({}, True),
    ],
)
def test_is_person(payload: dict[str, object], person: bool) -> None:
    assert module.is_person(module.claims(jwt(payload))) is person


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "is set but empty: set it to a token, or unset it."),
        (" \n", "is set but empty: set it to a token, or unset it."),
        ("abc\ndef", "holds a line break, a space or another character that no token has"),
        ("abc\n", "holds a line break, a space or another character that no token has"),
        ("abc def", "holds a line break, a space or another character that no token has"),
        ("abc\u00e9", "holds a line break, a space or another character that no token has"),
        ("a" * 20_000, "holds a line break, a space or another character that no token has"),
    ],
    ids=["empty", "blank", "two lines", "line end", "space", "not ASCII", "too long"],
)
def test_clean_token_says_what_is_wrong_and_not_the_value(value: str, problem: str) -> None:
    with pytest.raises(module.ArtifactsError, match=f"^THE_VARIABLE {re.escape(problem)}") as error:
        module.clean_token(value, "THE_VARIABLE")
    assert "abc" not in str(error.value)


def a_session(**changes: Any) -> module.Session:
    plain = module.Session("token", "session", NOW, NOW + 3600, asked="session", scope="vso.packaging_write")
    return dataclasses.replace(plain, **changes)


@pytest.mark.parametrize(
    ("session", "settings", "good"),
    [
        pytest.param(a_session(), {}, True, id="as minted"),
        pytest.param(a_session(expires=NOW + 300), {}, False, id="five minutes left"),
        pytest.param(a_session(expires=NOW + 301), {}, True, id="a little more"),
        pytest.param(a_session(), {"token_type": "session"}, True, id="the type forced"),
        pytest.param(a_session(), {"token_type": "entra"}, False, id="another type forced"),
        pytest.param(a_session(asked="pat"), {"token_type": "pat"}, True, id="what a policy left"),
        pytest.param(a_session(), {"scope": "vso.packaging"}, False, id="another scope"),
        pytest.param(a_session(kind="entra", scope=""), {}, True, id="no scope of its own"),
        pytest.param(a_session(kind="set", expires=None), {"token_type": "entra"}, True, id="a person's PAT"),
    ],
)
def test_usable(session: module.Session, settings: dict[str, Any], good: bool) -> None:
    assert module.usable(session, module.Settings(**settings), NOW) is good


@pytest.mark.parametrize(
    ("session", "may"),
    [
        pytest.param(a_session(), True, id="a session token"),
        pytest.param(a_session(expires=NOW + 86_400), True, id="for a day"),
        pytest.param(a_session(expires=NOW + 90_000), False, id="for longer"),
        pytest.param(a_session(expires=None), False, id="nobody knows how long"),
        pytest.param(a_session(kind="pat"), False, id="a PAT"),
        pytest.param(a_session(kind="entra"), False, id="an Entra token"),
        pytest.param(a_session(kind="set"), False, id="a person's PAT"),
        pytest.param(a_session(scope="vso.packaging vso.code"), False, id="more than packages"),
    ],
)
def test_file_may_keep(session: module.Session, may: bool) -> None:
    assert module.file_may_keep(session, NOW) is may


def test_read_session_reads_what_write_session_wrote() -> None:
    for session in (a_session(), a_session(kind="set", expires=None)):
        assert module.read_session(module.write_session(session)) == session


@pytest.mark.parametrize(
    "change",
    [
        {"token": ""},
        {"token": "a b"},
        {"token": 1},
        {"kind": "other"},
        {"checked": "x"},
        {"expires": "soon"},
        {"checked": None},
    ],
    ids=str,
)
def test_read_session_refuses_what_it_did_not_write(change: dict[str, object]) -> None:
    data = {**json.loads(module.write_session(a_session())), **change}
    assert module.read_session(json.dumps(data)) is None


def test_read_session_takes_ids_alone_into_urls() -> None:
    data = {**json.loads(module.write_session(a_session())), "tenant": "../x", "pat_id": "1&y=2"}
    session = module.read_session(json.dumps(data))
    assert session is not None
    assert (session.tenant, session.pat_id) == ("", "")


def test_secrets_are_in_no_repr() -> None:
    holders = (
        a_session(token="s3cret"),
        module.Bearer("s3cret", NOW, "azure_cli", True),
        module.check_request(parsed(), "s3cret"),
        module.Completed(0, "s3cret", "s3cret"),
        make_world(environ={"AZURE_DEVOPS_EXT_PAT": "s3cret"}),
        module.Response(200, (("x", "s3cret"),), b"s3cret"),
    )
    encoded = base64.b64encode(b"VssSessionToken:s3cret").decode()
    assert not [h for h in holders if "s3cret" in repr(h) or encoded in repr(h)]


# --- given ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "settings"),
    [
        ({}, module.Settings("", 0, "vso.packaging_write", 1)),
        ({"KEYRINGS_ARTIFACTS_TOKEN_TYPE": " PAT "}, module.Settings("pat")),
        ({"KEYRINGS_ARTIFACTS_USE_BEARER_TOKEN": "True"}, module.Settings("entra")),
        ({"KEYRINGS_ARTIFACTS_USE_BEARER_TOKEN": "false"}, module.Settings()),
        ({"AZURE_DEVOPS_PAT_DURATION": "30"}, module.Settings(pat_days=30)),
        ({"AZURE_DEVOPS_PAT_DURATION": ""}, module.Settings()),
        ({"AZURE_DEVOPS_PAT_SCOPE": "vso.packaging"}, module.Settings(scope="vso.packaging")),
    ],
)
def test_parse_settings(environ: dict[str, str], settings: module.Settings) -> None:
    assert module.parse_settings(environ) == settings


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (
            "AZURE_DEVOPS_PAT_DURATION",
            value,
            f"AZURE_DEVOPS_PAT_DURATION is '{value}': it must be a number of days from 1 to 365.",
        )
        for value in ("0", "-1", "366", "ten", "1.5", "99999999999999999999"[:20])
    ]
    + [
        (
            "KEYRINGS_ARTIFACTS_TOKEN_TYPE",
            "jwt",
            "KEYRINGS_ARTIFACTS_TOKEN_TYPE must be one of pat, session, entra.",
        ),
        (
            "AZURE_DEVOPS_PAT_SCOPE",
            "vso.packaging,vso.code",
            "AZURE_DEVOPS_PAT_SCOPE must be scopes separated by single spaces, for example "
            "vso.packaging_write.",
        ),
    ],
)
def test_parse_settings_names_the_variable_and_its_values(name: str, value: str, problem: str) -> None:
    with pytest.raises(module.ArtifactsError) as error:
        module.parse_settings({name: value})
    assert str(error.value) == problem


ENDPOINTS = "ARTIFACTS_CREDENTIALPROVIDER_EXTERNAL_FEED_ENDPOINTS"


def endpoints(*entries: object) -> str:
    return json.dumps({"endpointCredentials": entries})


def test_an_address_with_a_lone_surrogate_is_compared_as_others_are() -> None:
    assert module.comparable(f"{FEED}\ud800") == module.comparable(f"{FEED}\ud800/").rstrip("/")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("build", "build"),
        (" build ", "build"),
        ("Ada\u00a0L", "Ada\u00a0L"),
        (" ", "VssSessionToken"),
        ("a\nb", None),
        ("a\x1b[2J", None),
    ],
)
def test_customary_name(value: str, name: str | None) -> None:
    if name:
        assert module.customary_name({"AZURE_DEVOPS_USERNAME": value}) == name
    else:
        with pytest.raises(module.ArtifactsError, match=r"^AZURE_DEVOPS_USERNAME holds a line break"):
            module.customary_name({"AZURE_DEVOPS_USERNAME": value})


@pytest.mark.parametrize(
    ("endpoint", "matches"),
    [
        (FEED, True),
        (FEED.rstrip("/"), True),
        (FEED.upper(), True),
        (FEED.replace("azure.com/", "azure.com:443/"), True),
        ("https://pkgs.dev.azure.com/contoso", True),
        ("https://pkgs.dev.azure.com/cont", False),
        (FEED + "pkg/", False),
        (OTHER, False),
        ("https://evil.example/", False),
    ],
)
def test_an_endpoint_holds_a_feed(endpoint: str, matches: bool) -> None:
    text = endpoints({"endpoint": endpoint, "username": "me", "password": "pw"})
    found = module.given_credential(parsed(), make_world(environ={ENDPOINTS: text}))
    assert (found and (found.username, found.password)) == (("me", "pw") if matches else None)


def test_the_closest_endpoint_wins_and_the_first_of_two_alike() -> None:
    text = endpoints(
        {"endpoint": "https://pkgs.dev.azure.com/contoso/", "password": "wide"},
        {"endpoint": FEED, "password": "close"},
        {"endpoint": FEED.rstrip("/"), "password": "late"},
        {"endpoint": FEED, "password": ""},
    )
    found = module.given_credential(parsed(), make_world(environ={ENDPOINTS: text}))
    assert found is not None
    assert (found.username, found.password) == ("", "close")


@pytest.mark.parametrize(
    "text",
    [
        f"{{'endpointCredentials': [{{'endpoint': '{FEED}', 'password': 'pw'}}]}}",
        f'\ufeff{{"ENDPOINTCREDENTIALS": [{{"Endpoint": "{FEED}", "PASSWORD": "pw"}}]}}',
    ],
    ids=["single quotes", "BOM and capitals"],
)
def test_endpoints_may_be_written_as_net_tools_tolerate(text: str) -> None:
    (found,) = module.parse_endpoints(text, "X")
    assert found == {"endpoint": FEED, "password": "pw"}


FORM = (
    f"{ENDPOINTS} is not the JSON it should be: mend it, or unset it. "
    'Its form: {"endpointCredentials": [{"endpoint": "https://...", ...}]}'
)
ENTRY = f"{ENDPOINTS}: entry 1 needs an endpoint, and text for all it holds."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", FORM),
        ("[]", FORM),
        ('{"endpointCredentials": 1}', FORM),
        ("'", FORM),
        (endpoints(None), ENTRY),
        (endpoints({"password": "pw"}), ENTRY),
        (endpoints({"endpoint": FEED, "password": 1}), ENTRY),
        (
            endpoints({"endpoint": FEED, "password": "a\nb"}),
            f"{ENDPOINTS}: the password for {FEED} holds a line break, a space or another "
            "character that no token has: set it again to the token alone.",
        ),
    ],
)
def test_malformed_endpoints_are_one_sentence(text: str, problem: str) -> None:
    with pytest.raises(module.ArtifactsError) as error:
        module.given_credential(parsed(), make_world(environ={ENDPOINTS: text}))
    assert str(error.value) == problem


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_parse_endpoints_raises_the_declared_error_alone(text: str) -> None:
    with contextlib.suppress(module.ArtifactsError):
        module.parse_endpoints(text, "X")


def files(**contents: str) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        return contents[path].encode() if path in contents else no_file(path)

    return read


PREFIXES = {"VSS_NUGET_URI_PREFIXES": "https://fabrikam.example/;https://pkgs.dev.azure.com/contoso/"}


@pytest.mark.parametrize(
    ("environ", "answer"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"AZURE_DEVOPS_EXT_PAT": "pat"}, "pat", id="PAT"),
        pytest.param({"AZURE_DEVOPS_EXT_PAT_FILE": "named"}, "in-file", id="file"),
        pytest.param(
            {ENDPOINTS: endpoints({"endpoint": FEED, "password": "e"}), "AZURE_DEVOPS_EXT_PAT": "p"},
            "e",
            id="endpoint before PAT",
        ),
        pytest.param(
            {ENDPOINTS: endpoints({"endpoint": OTHER, "password": "e"}), "AZURE_DEVOPS_EXT_PAT": "p"},
            "p",
            id="no endpoint matches",
        ),
        pytest.param(
            {ENDPOINTS: endpoints({"endpoint": FEED, "password": " "}), "AZURE_DEVOPS_EXT_PAT": "p"},
            "p",
            id="an endpoint without a password",
        ),
        pytest.param(
            {ENDPOINTS: " ", "VSS_NUGET_EXTERNAL_FEED_ENDPOINTS": endpoints()}, None, id="no entries"
        ),
        pytest.param({**PREFIXES, "VSS_NUGET_ACCESSTOKEN": "t"}, "t", id="prefix"),
        pytest.param(
            {"VSS_NUGET_URI_PREFIXES": "https://pkgs.dev.azure.com/cont", "VSS_NUGET_ACCESSTOKEN": "t"},
            None,
            id="half a name is no prefix",
        ),
        pytest.param({"VSS_NUGET_ACCESSTOKEN": "t"}, None, id="token without prefixes"),
        pytest.param(
            {**PREFIXES, "ARTIFACTS_CREDENTIALPROVIDER_ACCESSTOKEN": "n", "VSS_NUGET_ACCESSTOKEN": "o"},
            "n",
            id="the new name wins",
        ),
        pytest.param({"SYSTEM_ACCESSTOKEN": "job"}, "job", id="pipeline"),
        pytest.param(
            {"SYSTEM_ACCESSTOKEN": "job", "SYSTEM_COLLECTIONURI": "https://dev.azure.com/Contoso/"},
            "job",
            id="pipeline of this organization",
        ),
        pytest.param(
            {"SYSTEM_ACCESSTOKEN": "job", "SYSTEM_COLLECTIONURI": "https://contoso.visualstudio.com/"},
            "job",
            id="pipeline of this organization, legacy",
        ),
        pytest.param(
            {"SYSTEM_ACCESSTOKEN": "job", "SYSTEM_COLLECTIONURI": "https://dev.azure.com/fabrikam/"},
            None,
            id="pipeline of another organization",
        ),
        pytest.param(
            {"SYSTEM_ACCESSTOKEN": "job", "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI": "https://[tfs"},
            None,
            id="pipeline of who knows what",
        ),
    ],
)
def test_given_credential(environ: dict[str, str], answer: str | None) -> None:
    world = make_world(environ=environ, read=files(named="in-file\r\n"))
    found = module.given_credential(parsed(), world)
    assert (found and found.password) == answer


def test_a_docker_secret_is_found_by_itself() -> None:
    world = make_world(read=files(**{"/run/secrets/azure_devops_ext_pat": "\ufeffpat\n"}))
    found = module.given_credential(parsed(), world)
    assert found is not None
    assert found.password == "pat"


def failing(error: Exception) -> Callable[[str], bytes]:
    def read(path: str) -> bytes:
        raise error

    return read


FILE = "AZURE_DEVOPS_EXT_PAT_FILE"
DOCKER = "/run/secrets/azure_devops_ext_pat"


@pytest.mark.parametrize(
    ("environ", "read", "problem"),
    [
        (
            {"AZURE_DEVOPS_EXT_PAT": ""},
            no_file,
            "AZURE_DEVOPS_EXT_PAT is set but empty: set it to a token, or unset it.",
        ),
        ({FILE: ""}, no_file, f"{FILE} is set but empty: set it to a file's path, or unset it."),
        (
            {FILE: "/pat"},
            no_file,
            f"{FILE} (/pat) cannot be read (No such file or directory): mend the path or the file.",
        ),
        (
            {FILE: "/pat"},
            lambda _: b"\xff",
            f"{FILE} (/pat) cannot be read (it is not text): mend the path or the file.",
        ),
        (
            {},
            failing(PermissionError(13, "Permission denied")),
            f"{DOCKER} cannot be read (Permission denied): mend the path or the file.",
        ),
        ({FILE: "x"}, files(x="\n"), f"{FILE} (x) is set but empty: set it to a token, or unset it."),
        (
            {**PREFIXES, "VSS_NUGET_ACCESSTOKEN": " "},
            no_file,
            "VSS_NUGET_ACCESSTOKEN is set but empty: set it to a token, or unset it.",
        ),
        (
            {"SYSTEM_ACCESSTOKEN": "a\nb"},
            no_file,
            "SYSTEM_ACCESSTOKEN holds a line break, a space or another character that no token "
            "has: set it again to the token alone.",
        ),
        (
            {"SYSTEM_ACCESSTOKEN": "$(System.AccessToken)"},
            no_file,
            "SYSTEM_ACCESSTOKEN holds the name of a variable in place of its value: set it to a token.",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    environ: dict[str, str], read: Callable[[str], bytes], problem: str
) -> None:
    with pytest.raises(module.ArtifactsError) as error:
        module.given_credential(parsed(), make_world(environ=environ, read=read))
    assert str(error.value) == problem


# --- requests and answers ---------------------------------------------------------------------


def test_discovery_asks_for_headers_and_gives_nothing_away() -> None:
    request = module.headers_only(FEED)
    assert (request.method, request.url, request.body, request.body_limit) == ("GET", FEED, None, 0)
    assert dict(request.headers) == {
        "Accept": "application/json",
        "User-Agent": f"keyrings.artifacts/{module.__version__}",
        "X-TFS-FedAuthRedirect": "Suppress",
    }


BEARER = f"Bearer authorization_uri=https://login.microsoftonline.com/{TENANT}"
SPS = "https://vssps.dev.azure.com/contoso"


@pytest.mark.parametrize(
    ("answer", "tenant", "service"),
    [
        pytest.param(CHALLENGED, TENANT, SPS, id="as measured"),
        pytest.param(response(401, www_authenticate=BEARER), TENANT, SPS, id="no X-VSS headers"),
        pytest.param(
            response(401, www_authenticate=BEARER.replace("Bearer", "bearer").replace("=h", '="h')),
            TENANT,
            SPS,
            id="quoted, lower case",
        ),
        pytest.param(
            module.Response(401, (("www-authenticate", "TFS-Federated"), ("www-authenticate", BEARER))),
            TENANT,
            SPS,
            id="on lines of their own",
        ),
        pytest.param(
            response(401, www_authenticate=BEARER + "/oauth2/authorize"), TENANT, SPS, id="long form"
        ),
        pytest.param(
            response(401, www_authenticate="Bearer", x_vss_resourcetenant=NO_TENANT),
            None,
            SPS,
            id="personal accounts",
        ),
        pytest.param(response(401), None, SPS, id="no header at all"),
        pytest.param(
            response(401, www_authenticate=BEARER.replace(TENANT, "common")), None, SPS, id="common"
        ),
        pytest.param(
            response(401, x_vss_resourcetenant=TENANT.upper()), TENANT, SPS, id="tenant in capitals"
        ),
        pytest.param(response(203, x_vss_resourcetenant=TENANT), TENANT, SPS, id="203, the sign-in page"),
        pytest.param(response(302, x_vss_resourcetenant=TENANT), TENANT, SPS, id="302, the way to it"),
        pytest.param(response(403, x_vss_resourcetenant=TENANT, x_vss_e2eid="x"), TENANT, SPS, id="403"),
        pytest.param(
            response(401, x_vss_authorizationendpoint="https://app.vssps.visualstudio.com/"),
            None,
            "https://app.vssps.visualstudio.com",
            id="no organization in the token host",
        ),
        pytest.param(
            response(401, x_vss_authorizationendpoint="https://Contoso.vssps.visualstudio.com/"),
            None,
            "https://Contoso.vssps.visualstudio.com",
            id="legacy token host",
        ),
        pytest.param(response(401, x_vss_authorizationendpoint=" "), None, SPS, id="an empty token host"),
        pytest.param(
            response(401, www_authenticate=BEARER.replace(".com/", ".com:443/")), TENANT, SPS, id="port 443"
        ),
        pytest.param(
            response(401, www_authenticate=BEARER.replace(TENANT, "consumers")), None, SPS, id="consumers"
        ),
    ],
)
def test_read_challenge(answer: module.Response, tenant: str | None, service: str) -> None:
    assert module.read_challenge(parsed(), answer) == module.Discovered(tenant, service)


@pytest.mark.parametrize(
    ("url", "token_service"),
    [
        (f"https://pkgs.visualstudio.com/A{TENANT}/_packaging/f/", SPS),
        ("https://pkgs.codedev.ms/contoso/_packaging/f/", "https://vssps.codedev.ms/contoso"),
    ],
    ids=["host GUID", "test fabric"],
)
def test_read_challenge_of_other_hosts(url: str, token_service: str) -> None:
    answer = response(401, x_vss_authorizationendpoint=token_service + "/")
    assert module.read_challenge(parsed(url), answer).token_service == token_service


@pytest.mark.parametrize(
    ("url", "status", "public"),
    [
        (FEED, 200, True),
        (FEED, 303, False),
        (FEED.replace("simple/", "download/x/1.0/x-1.0.tar.gz"), 303, True),
        (UPLOAD, 200, False),
        (UPLOAD, 404, False),
        (UPLOAD, 405, False),
        (FEED, 203, False),
        ("https://pkgs.dev.azure.com/contoso/", 200, False),
        ("https://pkgs.dev.azure.com/contoso/", 404, False),
        ("contoso.pkgs.visualstudio.com", 200, False),
        ("contoso.pkgs.visualstudio.com", 404, False),
    ],
)
def test_a_public_feed_needs_no_credential_but_for_uploads(url: str, status: int, public: bool) -> None:
    with pytest.raises(module.PublicFeed) if public else contextlib.nullcontext():
        assert module.read_challenge(parsed(url), response(status)).tenant is None


STRANGE_TOKEN_SERVICES = [
    "https://evil.example/contoso",
    "http://vssps.dev.azure.com/contoso",
    "https://vssps.dev.azure.com:8443/contoso",
    "https://vssps.dev.azure.com/fabrikam",
    "https://vssps.dev.azure.com/contoso/extra",
    "https://vssps.dev.azure.com/contoso?x=1",
    "https://vssps.dev.azure.com/contoso#x",
    "https://vssps.dev.azure.com@evil.example/contoso",
    "https://me@vssps.dev.azure.com/contoso",
    "https://vssps.dev.azure.com.evil.example/contoso",
    "https://evilvssps.dev.azure.com/contoso",
    "https://evil.vssps.dev.azure.com/contoso",
    "https://fabrikam.vssps.visualstudio.com",
    "https://contoso.evil.vssps.visualstudio.com",
    "https://vssps.codedev.ms/contoso",
    "https://vssps.dev.azure.com\\@evil.example/contoso",
    "https://evil.example\\.vssps.visualstudio.com/",
    "https://vssps.dev.azure.com./contoso",
    "//vssps.dev.azure.com/contoso",
    "vssps.dev.azure.com",
    "\x1b[2J",
]
STRANGE_SIGN_INS = [
    "https://evil.example/{}",
    "http://login.microsoftonline.com/{}",
    "https://login.microsoftonline.com:8443/{}",
    "https://login.microsoftonline.com@evil.example/{}",
    "https://login.microsoftonline.com.evil.example/{}",
    "https://evil.login.microsoftonline.com/{}",
    "https://login.microsoftonline.com\\@evil.example/{}",
    "https://login.microsoftonline.com/{}/../evil",
    "https://login.microsoftonline.com/",
    "",
]


@pytest.mark.parametrize("address", STRANGE_TOKEN_SERVICES)
def test_a_strange_token_service_is_refused(address: str) -> None:
    answer = response(401, www_authenticate=BEARER, x_vss_authorizationendpoint=address)
    with pytest.raises(module.ArtifactsError, match="named a token service that is not") as error:
        module.read_challenge(parsed(), answer)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("address", [a.format(TENANT) for a in STRANGE_SIGN_INS])
def test_a_strange_sign_in_address_is_refused(address: str) -> None:
    answer = response(401, www_authenticate=f"Bearer authorization_uri={address}")
    with pytest.raises(module.ArtifactsError, match="a sign-in address that is not Microsoft's"):
        module.read_challenge(parsed(), answer)


@pytest.mark.parametrize(
    "answer",
    [
        response(401, www_authenticate=BEARER, x_vss_resourcetenant=CONTOSO_TENANT),
        response(401, x_vss_resourcetenant=f"{TENANT}, {CONTOSO_TENANT}"),
        response(401, x_vss_resourcetenant="contoso.example"),
        response(401, www_authenticate=BEARER.replace(TENANT, "evil.example")),
    ],
    ids=["two headers", "two values", "no GUID", "a domain"],
)
def test_a_tenant_in_doubt_is_refused(answer: module.Response) -> None:
    with pytest.raises(module.ArtifactsError, match="named no single tenant for organization"):
        module.read_challenge(parsed(), answer)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (
            404,
            f"pkgs.dev.azure.com knows no such feed ({FEED}): check the names of organization, "
            "project and feed in the URL.",
        ),
        (
            403,
            "pkgs.dev.azure.com answered 403 before anybody signed in: a firewall, a proxy or a "
            "network policy of the organization is in the way.",
        ),
    ],
)
def test_read_challenge_says_why_there_is_none(status: int, problem: str) -> None:
    with pytest.raises(module.ArtifactsError) as error:
        module.read_challenge(parsed(), response(status))
    assert str(error.value) == problem


@given(
    st.integers(200, 499),
    st.lists(
        st.tuples(
            st.sampled_from(["www-authenticate", "x-vss-resourcetenant", "x-vss-authorizationendpoint"]),
            st.text()
            | st.builds("Bearer authorization_uri={}".format, st.text())
            | st.builds("https://{}vssps.dev.azure.com{}".format, st.text(), st.text()),
        )
    ),
)
def test_no_header_leads_anywhere_but_home(status: int, headers: list[tuple[str, str]]) -> None:
    with contextlib.suppress(module.ArtifactsError, module.PublicFeed):
        found = module.read_challenge(parsed(), module.Response(status, tuple(headers)))
        parts = urllib3.util.parse_url(found.token_service)
        assert (parts.scheme, parts.auth, parts.port) == ("https", None, None)
        hosts = ("vssps.dev.azure.com", "app.vssps.dev.azure.com", "contoso.vssps.dev.azure.com")
        assert parts.host in hosts
        assert found.tenant is None or re.fullmatch("[0-9a-f-]{36}", found.tenant)
        assert found.sign_in_host in module.SIGN_IN_HOSTS


ADA = module.Bearer("entra", NOW + 3600, "azure_cli", True, "ada@contoso.example")


def test_session_request() -> None:
    scope = module.Settings().scope
    request = module.mint_request("session", a_challenge(), ADA, scope, "our name", NOW + 86_400)
    assert (request.method, request.url) == (
        "POST",
        f"{SPS}/_apis/Token/SessionTokens?tokenType=SelfDescribing&api-version=5.0-preview.1",
    )
    assert dict(request.headers) == {
        "Accept": "application/json",
        "Authorization": "Bearer entra",
        "Content-Type": "application/json; charset=utf-8",
        "User-Agent": f"keyrings.artifacts/{module.__version__}",
        "X-TFS-FedAuthRedirect": "Suppress",
    }
    assert json.loads(request.body or b"") == {
        "displayName": "our name",
        "scope": "vso.packaging_write",
        "validTo": "2027-01-16T08:00:00Z",
    }


@pytest.mark.parametrize(
    ("token_service", "url"),
    [
        (SPS, f"{SPS}/_apis/tokens/pats?api-version=7.1-preview.1"),
        (
            "https://contoso.vssps.visualstudio.com",
            "https://contoso.vssps.visualstudio.com/_apis/tokens/pats?api-version=7.1-preview.1",
        ),
        ("https://app.vssps.visualstudio.com", f"{SPS}/_apis/tokens/pats?api-version=7.1-preview.1"),
        ("https://vssps.dev.azure.com", f"{SPS}/_apis/tokens/pats?api-version=7.1-preview.1"),
    ],
)
def test_pat_request_goes_to_the_organization(token_service: str, url: str) -> None:
    asked = a_challenge(token_service=token_service)
    request = module.mint_request("pat", asked, ADA, "vso.packaging", "our name", None)
    assert request.url == url
    assert json.loads(request.body or b"") == {
        "displayName": "our name",
        "scope": "vso.packaging",
        "allOrgs": False,
    }


@pytest.mark.parametrize(
    ("kind", "answer", "minted"),
    [
        ("session", response(200, {"token": "t", "validTo": "x"}), {"token": "t", "validTo": "x"}),
        ("session", response(200, b'\xef\xbb\xbf{"token": "t"}'), {"token": "t"}),
        ("pat", response(200, {"patToken": {"token": "t"}, "patTokenError": "none"}), {"token": "t"}),
        ("pat", response(201, {"patToken": {"token": "t"}, "patTokenError": "None"}), {"token": "t"}),
    ],
)
def test_read_minted(kind: str, answer: module.Response, minted: dict[str, str]) -> None:
    assert module.read_minted(kind, a_challenge(), ADA, answer) == minted


TF401444 = (
    "azure_cli: account ada@contoso.example has never signed in to organization 'contoso' "
    "(TF401444): open https://dev.azure.com/contoso once in a browser with it, then try again."
)
TF400813 = (
    "azure_cli: organization 'contoso' does not accept account ada@contoso.example{}: ask its "
    f"administrator for access, or sign in with another account ('az login --tenant {TENANT}')."
)
NO_TOKEN = "vssps.dev.azure.com answered without a token: try again later."


@pytest.mark.parametrize(
    ("kind", "answer", "error", "problem"),
    [
        ("session", response(401, {"message": "TF401444: Please"}), "BearerRefused", TF401444),
        ("pat", response(403, {"message": "TF401444: Please"}), "BearerRefused", TF401444),
        (
            "pat",
            response(401, x_tfs_serviceerror="TF400813%3A+The+user"),
            "BearerRefused",
            TF400813.format(" (TF400813)"),
        ),
        ("session", response(203, b"<html>"), "BearerRefused", TF400813.format("")),
        ("session", response(302), "BearerRefused", TF400813.format("")),
        ("session", response(200, content_type="text/html"), "BearerRefused", TF400813.format("")),
        ("session", response(400, {"message": "validTo"}), "LifetimeRefused", "400"),
        ("session", response(403, {"message": "VS403"}), "PolicyRefused", "403"),
        ("session", response(404), "PolicyRefused", "404"),
        ("session", response(200, b"<html>"), "ArtifactsError", NO_TOKEN),
        ("session", response(200, {"token": "a b"}), "ArtifactsError", NO_TOKEN),
        ("pat", response(200, {"patToken": "t"}), "ArtifactsError", NO_TOKEN),
        ("pat", response(200, {"token": "t"}), "ArtifactsError", NO_TOKEN),
    ]
    + [
        ("pat", response(status, {"patToken": None, "patTokenError": name}), error, name.lower())
        for name, error in (
            ("patLifespanPolicyViolation", "LifetimeRefused"),
            ("disablePatCreationPolicyViolation", "PolicyRefused"),
            ("accessDenied", "PolicyRefused"),
        )
        for status in (200, 400, 401, 403)
    ],
)
def test_read_minted_tells_refusals_apart(
    kind: str, answer: module.Response, error: str, problem: str
) -> None:
    with pytest.raises(module.ArtifactsError) as raised:
        module.read_minted(kind, a_challenge(), ADA, answer)
    assert (type(raised.value).__name__, str(raised.value)) == (error, problem)


@given(st.sampled_from(["pat", "session"]), st.integers(100, 499), st.binary() | st.text())
def test_read_minted_raises_the_declared_error_alone(kind: str, status: int, body: bytes | str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps({"patToken": body, "token": body}).encode()
    with contextlib.suppress(module.ArtifactsError):
        minted = module.read_minted(kind, a_challenge(), ADA, module.Response(status, (), raw))
        assert module.is_token(minted["token"])


@pytest.mark.parametrize(
    ("token", "valid_to", "epoch"),
    [
        ("opaque", "2027-01-15T09:00:00.1234567Z", NOW + 3600),
        (jwt({"exp": NOW + 60}), "2027-01-15T09:00:00Z", NOW + 60),
        (jwt({"exp": NOW + 7200.5}), None, NOW + 7200.5),
        (jwt({"exp": True}), "soon", 5.0),
        ("opaque", None, 5.0),
        ("opaque", "0001-01-01T00:00:00", 5.0),
    ],
    ids=["its issuer's", "its own", "its own alone", "neither's", "nobody's", ".NET's null"],
)
def test_expiry_is_the_earliest_known(token: str, valid_to: object, epoch: float) -> None:
    assert module.expiry(token, valid_to, 5.0) == epoch


@pytest.mark.parametrize(
    ("attempt", "told", "seconds"),
    [
        (1, None, 0.4),
        (2, None, 0.8),
        (1, "2", 2.0),
        (1, "86400", 5.0),
        (1, "-1", 0.4),
        (1, "Fri, 31 Dec 1999 23:59:59 GMT", 0.0),
        (1, email.utils.formatdate(NOW + 3, usegmt=True), 3.0),
        (1, "Fri, 31 Dec 9999 23:59:59 GMT", 5.0),
        (1, "Fri, 99 Dec 2026", 0.4),
        (1, "nan", 0.4),
        (1, "inf", 0.4),
        (1, "99999999999", 5.0),
        (1, "1e999", 0.4),
        (1, "\x1b[2J", 0.4),
        (1, "", 0.4),
        (2, "0", 0.0),
    ],
)
def test_retry_pause(attempt: int, told: str | None, seconds: float) -> None:
    answer = response(429, **({} if told is None else {"retry_after": told}))
    assert module.retry_pause(attempt, answer, 0.0, NOW) == pytest.approx(seconds)


DROPPED = module.NetworkError("dropped")


@pytest.mark.parametrize(
    "answers",
    [[response(200)], [DROPPED, response(200)], [response(503), response(429), response(200)]],
    ids=["at once", "after a drop", "after 503 and 429"],
)
def test_fetch_tries_again_what_may_pass(answers: list[Any]) -> None:
    script, slept = Script(*answers), list[float]()
    world = make_world(send=script, sleep=slept.append)
    assert module.fetch(module.headers_only(FEED), world).status == 200
    assert len(slept) == len(script.requests) - 1 == len(answers) - 1


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([DROPPED] * 3, "dropped"),
        (
            [response(503)] * 3,
            "pkgs.dev.azure.com answered 503: the service has trouble or limits you. Try again in a few "
            "minutes.",
        ),
        ([module.NetworkError("untrusted", passing=False)], "untrusted"),
    ],
    ids=["dropped", "503", "certificate"],
)
def test_fetch_gives_up(answers: list[Any], problem: str) -> None:
    script = Script(*answers)
    with pytest.raises(module.NetworkError, match=f"^{re.escape(problem)}$"):
        module.fetch(module.headers_only(FEED), make_world(send=script, sleep=lambda _: None))
    assert not script.answers


# --- sources ----------------------------------------------------------------------------------

AZ_COMMAND = ["/bin/az", "account", "get-access-token", "--output", "json", "--resource", RESOURCE]
AZ_FAILED = (
    "azure_cli: az failed. Run 'az account get-access-token' to see why, or sign in again with "
    f"'az login --tenant {TENANT}'."
)
AZ_GARBAGE = (
    "azure_cli: az printed something that is not a token. Run 'az account get-access-token' to see "
    "what, and update az if it looks right."
)


@pytest.mark.parametrize(
    ("url", "tenant", "extra"),
    [(FEED, TENANT, ["--tenant", TENANT]), (FEED, None, [])],
    ids=["tenant", "personal accounts"],
)
def test_azure_cli_asks_for_the_tenant(url: str, tenant: str | None, extra: list[str]) -> None:
    ran: list[Any] = []

    def run(command: Sequence[str], seconds: float) -> module.Completed:
        ran.append((command, seconds))
        return module.Completed(0, '{"accessToken": "t", "expires_on": "1800003600"}', "warning")

    world = make_world(which=lambda program: f"/bin/{program}", run=run)
    found = module.azure_cli(world, a_challenge(url, tenant=tenant))
    assert found == module.Bearer("t", NOW + 3600, "azure_cli", True)
    assert ran == [(AZ_COMMAND + extra, 30.0)]


def test_azure_cli_lets_a_managed_identity_have_its_own_tenant() -> None:
    refused = module.Completed(1, "", "ERROR: Tenant shouldn't be specified for managed identity")
    answers = [module.Completed(0, json.dumps({"accessToken": jwt({"idtyp": "app"})}), ""), refused]
    world = make_world(which=lambda program: f"/bin/{program}", run=lambda *_: answers.pop())
    found = module.azure_cli(world, a_challenge())
    assert found is not None
    assert (found.person, found.expires) == (False, NOW + 3600)


def raising(error: Exception) -> Callable[..., Any]:
    def run(*_: object) -> Any:
        raise error

    return run


def printing(stdout: str, stderr: str = "", status: int = 0) -> Callable[..., Any]:
    return lambda *_: module.Completed(status, stdout, stderr)


@pytest.mark.parametrize(
    ("run", "problem"),
    [
        (
            raising(TimeoutError()),
            "azure_cli: az did not answer within 30 seconds. Run 'az account get-access-token' to "
            "see what it waits for, then try again.",
        ),
        (
            raising(PermissionError(13, "Permission denied")),
            "azure_cli: az could not be started (Permission denied): repair or reinstall it.",
        ),
        (
            printing("", "Please run 'az login' to setup account.", 1),
            f"azure_cli: nobody is signed in to the Azure CLI: run 'az login --tenant {TENANT}'.",
        ),
        (
            printing("", "AADSTS50078: Presented multi-factor \x1b[31m ... az login", 1),
            f"azure_cli: Entra wants a new sign-in (AADSTS50078): run 'az login --tenant {TENANT}'.",
        ),
        (printing("", "Traceback: token=s3cret", 1), AZ_FAILED),
        (printing("", "", 1), AZ_FAILED),
        (printing(""), AZ_GARBAGE),
        (printing("s3cret"), AZ_GARBAGE),
        (printing("[]"), AZ_GARBAGE),
        (printing('{"accessToken": "s3cret \\n"}'), AZ_GARBAGE),
        (printing('{"accessToken": 7}'), AZ_GARBAGE),
    ],
)
def test_azure_cli_says_what_is_wrong_with_az(run: Callable[..., Any], problem: str) -> None:
    world = make_world(which=lambda program: f"/bin/{program}", run=run)
    with pytest.raises(module.ArtifactsError) as error:
        module.azure_cli(world, a_challenge())
    assert str(error.value) == problem


def test_the_date_of_azd_has_a_zone_and_that_of_az_has_none() -> None:
    tool = module.Tool("azure_cli", "az", "the Azure CLI", "az account show", "az login")
    printed = {"token": "opaque", "expiresOn": "2027-01-15T08:30:00Z"}
    found = module.read_tool(tool, module.Completed(0, json.dumps(printed), ""), NOW)
    assert found.expires == NOW + 1800
    printed = {"accessToken": "opaque", "expiresOn": "2027-01-15 08:30:00.000000"}
    found = module.read_tool(tool, module.Completed(0, json.dumps(printed), ""), NOW)
    assert found.expires == NOW + 3600


def test_powershell_is_asked_where_it_has_the_module() -> None:
    ran: list[str] = []

    def run(command: Sequence[str], seconds: float) -> module.Completed:
        ran.append(command[0])
        found = json.dumps({"token": "t", "expires_on": NOW + 60})
        return module.Completed(77, "", "") if command[0].endswith("pwsh") else module.Completed(0, found, "")

    world = make_world(which=lambda program: f"/bin/{program}", run=run)
    assert module.azure_powershell(world, a_challenge()) == module.Bearer(
        "t", NOW + 60, "azure_powershell", True
    )
    assert ran == ["/bin/pwsh", "/bin/powershell"]


@given(st.text() | st.recursive(st.none() | st.text(), lambda x: st.dictionaries(st.text(), x)))
def test_read_tool_raises_the_declared_error_alone(printed: object) -> None:
    tool = module.Tool("azure_cli", "az", "the Azure CLI", "az account show", "az login")
    with contextlib.suppress(module.ArtifactsError):
        text = printed if isinstance(printed, str) else json.dumps({"accessToken": printed})
        done = module.Completed(0, text, "")
        assert module.is_token(module.read_tool(tool, done, NOW).token)


# --- machines' identities ---------------------------------------------------------------------

ROBOT = {"AZURE_CLIENT_ID": "robot", "AZURE_TENANT_ID": TENANT}
APP_TOKEN = jwt({"idtyp": "app", "appid": "robot", "exp": NOW + 3600})


@pytest.mark.parametrize(
    ("environ", "tenant", "base"),
    [
        (ROBOT, None, ENTRA),
        ({}, TENANT, ENTRA),
        (
            {**ROBOT, "AZURE_AUTHORITY_HOST": "https://login.example/"},
            None,
            f"https://login.example/{TENANT}",
        ),
        ({**ROBOT, "AZURE_AUTHORITY_HOST": "login.example"}, None, f"https://login.example/{TENANT}"),
        (
            {**ROBOT, "AZURE_AUTHORITY_HOST": "https://localhost:8443"},
            None,
            f"https://localhost:8443/{TENANT}",
        ),
        (
            {**ROBOT, "AZURE_ADDITIONALLY_ALLOWED_TENANTS": "*"},
            CONTOSO_TENANT,
            f"https://login.microsoftonline.com/{CONTOSO_TENANT}",
        ),
        (
            {**ROBOT, "AZURE_ADDITIONALLY_ALLOWED_TENANTS": f"x;{CONTOSO_TENANT}"},
            CONTOSO_TENANT,
            f"https://login.microsoftonline.com/{CONTOSO_TENANT}",
        ),
        ({**ROBOT, "AZURE_ADDITIONALLY_ALLOWED_TENANTS": "x"}, CONTOSO_TENANT, ENTRA),
    ],
)
def test_application_authority(environ: dict[str, str], tenant: str | None, base: str) -> None:
    assert module.application_authority(environ, a_challenge(tenant=tenant)) == base


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({**ROBOT, "AZURE_AUTHORITY_HOST": "http://login.example"}, "AZURE_AUTHORITY_HOST must be an https"),
        ({"AZURE_TENANT_ID": "a/b"}, "AZURE_TENANT_ID must name the tenant"),
        ({}, "AZURE_TENANT_ID must name the tenant"),
    ],
)
def test_application_authority_refuses(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(module.ArtifactsError, match=f"^{problem}"):
        module.application_authority(environ, a_challenge(tenant=None))


@pytest.mark.parametrize(
    ("body", "expires"),
    [
        ({"expires_on": "1800003600"}, NOW + 3600),
        ({"expires_on": 1_800_003_600, "expires_in": "60"}, NOW + 3600),
        ({"expires_in": "3600"}, NOW + 3600),
        ({"expires_on": "01/15/2027 09:00:00 +00:00"}, NOW + 3600),
        ({"expires_on": "1/15/2027 1:00:00 PM +00:00"}, NOW + 5 * 3600),
        ({"expires_on": "1/15/2027 12:00:00 AM +00:00"}, NOW - 8 * 3600),
        ({"expires_on": "1/15/2027 1:00:00 PM"}, NOW + 5 * 3600),
        ({"expiresOn": "2027-01-15T09:00:00Z"}, NOW + 3600),
        ({"access_token": jwt({"exp": NOW + 60})}, NOW + 60),
        ({"expires_on": "soon"}, NOW + 3600),
    ],
)
def test_machine_bearer_reads_every_date(body: dict[str, object], expires: float) -> None:
    found = module.machine_bearer("managed_identity", {"access_token": "opaque", **body}, NOW)
    assert found.expires == expires


@given(st.text() | st.integers() | st.none())
def test_parse_us_date_never_raises(text: object) -> None:
    module.parse_us_date(text)


LOCAL_URL = "http://127.0.0.1:1234/token"


@pytest.mark.parametrize(
    ("environ", "arc", "request_line"),
    [
        pytest.param({}, False, None, id="no platform"),
        pytest.param(
            {
                "IDENTITY_ENDPOINT": LOCAL_URL.replace("http:", "https:"),
                "IDENTITY_HEADER": "s",
                "IDENTITY_SERVER_THUMBPRINT": "aa:BB cc" * 6 + "dddd",
            },
            False,
            ("2019-07-01-preview", "", {"Secret": "s"}),
            id="Service Fabric",
        ),
        pytest.param(
            {"IDENTITY_ENDPOINT": LOCAL_URL, "IDENTITY_HEADER": "s", "MSI_ENDPOINT": "x", "MSI_SECRET": "y"},
            False,
            ("2019-08-01", "client_id", {"X-IDENTITY-HEADER": "s", "Metadata": "true"}),
            id="App Service",
        ),
        pytest.param(
            {"MSI_ENDPOINT": LOCAL_URL, "MSI_SECRET": "s"},
            False,
            ("2017-09-01", "clientid", {"secret": "s"}),
            id="Azure ML",
        ),
        pytest.param(
            {"IDENTITY_ENDPOINT": LOCAL_URL, "IMDS_ENDPOINT": "x"},
            False,
            ("2020-06-01", "client_id", {"Metadata": "true"}),
            id="Arc",
        ),
        pytest.param({}, True, ("2020-06-01", "client_id", {"Metadata": "true"}), id="Arc by its agent"),
    ],
)
def test_identity_request(
    environ: dict[str, str], arc: bool, request_line: tuple[str, str, Any] | None
) -> None:
    found = module.identity_request(environ, "me", arc)
    if request_line is None:
        assert found is None
        return
    version, selector, headers = request_line
    assert found is not None
    assert dict(parse_qsl(urlsplit(found.url).query)) == {
        "api-version": version,
        "resource": RESOURCE,
        **({selector: "me"} if selector else {}),
    }
    assert (found.method, dict(found.headers), found.direct) == ("GET", headers, True)
    assert found.pin == ("aaBBcc" * 6 + "dddd" if "THUMBPRINT" in str(environ) else "")


@pytest.mark.parametrize(
    ("environ", "client", "problem"),
    [
        (
            {"IDENTITY_ENDPOINT": LOCAL_URL, "IDENTITY_HEADER": "s", "IDENTITY_SERVER_THUMBPRINT": "a" * 40},
            "",
            "IDENTITY_ENDPOINT is not https: it is not asked.",
        ),
        (
            {"MSI_ENDPOINT": LOCAL_URL},
            "robot",
            "Cloud Shell has no identity but yours: unset AZURE_CLIENT_ID, "
            "or write system as the feed's clientId.",
        ),
    ],
    ids=["Service Fabric in the clear", "another identity in Cloud Shell"],
)
def test_a_platform_that_cannot_be_asked(environ: dict[str, str], client: str, problem: str) -> None:
    with pytest.raises(module.ArtifactsError) as caught:
        module.identity_request(environ, client, False)
    assert str(caught.value) == f"managed_identity: {problem}"


def test_cloud_shell_is_asked_by_a_form() -> None:
    found = module.identity_request({"MSI_ENDPOINT": LOCAL_URL}, "", False)
    assert found is not None
    assert (found.method, found.url, found.direct) == ("POST", LOCAL_URL, True)
    assert found.headers["Metadata"] == "true"
    assert dict(parse_qsl((found.body or b"").decode()))["resource"] == RESOURCE


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"AZURE_CLIENT_ID": "x"}, True),
        ({"AZURE_CLIENT_ID": "x", "AZURE_CLIENT_SECRET": "s"}, False),
        ({"AZURE_CLIENT_ID": "x", "AZURE_FEDERATED_TOKEN_FILE": "f"}, False),
        ({"AZURE_CLIENT_ID": "x", "ACTIONS_ID_TOKEN_REQUEST_URL": "u"}, False),
        ({"AZURE_CLIENT_ID": "x", "idToken": "t"}, False),
        ({"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1"}, True),
        ({"KEYRINGS_ARTIFACTS_SOURCES": "azure_cli, Managed_Identity"}, True),
    ],
)
def test_wants_vm(environ: dict[str, str], wanted: bool) -> None:
    assert module.wants_vm(environ) is wanted


def test_a_machine_that_is_not_azures_is_not_asked() -> None:
    world = make_world(read=failing(FileNotFoundError()))
    assert module.managed_identity(world, a_challenge()) is None
    assert module.managed_identity(make_world(read=lambda _: b"VMware\n"), a_challenge()) is None


def test_a_feed_is_asked_once_whatever_it_says() -> None:
    environ = {"AZURE_CLIENT_ID": "client", "AZURE_CLIENT_SECRET": "s3cret"}
    script = Script(response(404))
    world = az_world(script, environ=environ)
    with pytest.raises(module.NoCredential) as caught:
        module.credential_for(parsed(), FEED, None, world)
    assert len(script.requests) == 1
    assert str(caught.value).count("knows no such feed") == 1


def test_what_a_person_turned_down_is_left_alone_for_a_while() -> None:
    turn = module.Turn(None, "session/turned-down")
    assert not turn.declined(NOW)
    turn.end(NOW, module.NetworkError("no network"))
    assert not turn.declined(NOW)
    turn.end(NOW, module.SignInEnded("declined"))
    assert module.Turn(None, turn.name).declined(NOW + module.LEFT_ALONE - 1)
    assert not module.Turn(None, turn.name).declined(NOW + module.LEFT_ALONE)
    assert not turn.declined(NOW - 1)  # the clock was set back


def test_a_variable_that_is_no_text_keeps_no_other_source_from_trying() -> None:
    world = az_world(Script(CHALLENGED, SESSION), environ={"AZURE_CLIENT_ID": "\udcff"})
    answer = module.credential_for(parsed(), FEED, None, world)
    assert answer is not None
    world = make_world(send=Script(CHALLENGED), environ={"AZURE_CLIENT_ID": "\udcff", "CI": "1"})
    with pytest.raises(module.NoCredential, match="managed_identity: a variable that it reads is no text"):
        module.credential_for(parsed(), FEED, None, world)


def test_an_endpoint_that_repeats_its_header_does_not_reach_the_notice() -> None:
    environ = {"IDENTITY_ENDPOINT": "http://127.0.0.1/token", "IDENTITY_HEADER": "s3cret-header"}
    answer = response(400, {"message": "bad header s3cret-header, Metadata true"})
    with pytest.raises(module.ArtifactsError) as caught:
        module.managed_identity(make_world(send=Script(answer), environ=environ), a_challenge())
    assert "(400 bad header ***, Metadata true)" in str(caught.value)


def test_a_machine_of_azures_need_not_have_an_identity() -> None:
    tag = b"7783-7084-3265-9085-8269-3286-77\n"
    script = Script(response(400, {"error": "invalid_request", "error_description": "Identity not found"}))
    assert module.managed_identity(make_world(read=lambda _: tag, send=script), a_challenge()) is None
    (request,) = script.requests
    assert request.url == (
        f"http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource={RESOURCE}"
    )
    assert (dict(request.headers), request.direct) == ({"Metadata": "true"}, True)
    script = Script(response(200, {"access_token": APP_TOKEN, "expires_on": str(int(NOW) + 60)}))
    found = module.managed_identity(make_world(read=lambda _: tag, send=script), a_challenge())
    assert found == module.Bearer(APP_TOKEN, NOW + 60, "managed_identity", False)


def test_the_token_of_a_machine_may_say_nothing_of_itself() -> None:
    answer = response(200, {"access_token": "opaque", "expires_in": 60})
    environ = {**ROBOT, "AZURE_CLIENT_SECRET": "s3cret"}
    world = make_world(send=Script(answer), environ=environ)
    expected = module.Bearer("opaque", NOW + 60, "service_principal", False)
    assert module.service_principal(world, a_challenge()) == expected
    environ = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9"}
    world = make_world(send=Script(answer), environ=environ)
    expected = module.Bearer("opaque", NOW + 60, "managed_identity", False)
    assert module.managed_identity(world, a_challenge()) == expected


@pytest.mark.parametrize(
    "host", ["http://evil.example", "http://10.0.0.4", "ftp://127.0.0.1", "http://127.0.0.1.evil.example"]
)
def test_an_identity_is_asked_of_this_machine_alone(host: str) -> None:
    world = make_world(environ={"AZURE_POD_IDENTITY_AUTHORITY_HOST": host})
    with pytest.raises(module.ArtifactsError, match="it is not asked"):
        module.managed_identity(world, a_challenge())


@pytest.mark.parametrize(
    ("environ", "url", "headers", "key"),
    [
        (
            {
                "ACTIONS_ID_TOKEN_REQUEST_URL": "https://gh.example/t?api-version=2.0",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "run",
            },
            "https://gh.example/t?api-version=2.0&audience=api%3A%2F%2FAzureADTokenExchange",
            {"Authorization": "bearer run"},
            "value",
        ),
        (
            {
                "SYSTEM_OIDCREQUESTURI": "https://ado.example/oidc",
                "SYSTEM_ACCESSTOKEN": "run",
                "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID": "c",
            },
            "https://ado.example/oidc?api-version=7.1&serviceConnectionId=c",
            {"Authorization": "Bearer run", "Content-Type": "application/json"},
            "oidcToken",
        ),
    ],
    ids=["GitHub Actions", "Azure Pipelines"],
)
def test_workload_identity(environ: dict[str, str], url: str, headers: dict[str, str], key: str) -> None:
    script = Script(response(200, {key: "assertion"}), response(200, {"access_token": APP_TOKEN}))
    world = make_world(environ={**ROBOT, **environ}, send=script)
    found = module.workload_identity(world, a_challenge())
    assert found == module.Bearer(APP_TOKEN, NOW + 3600, "workload_identity", False)
    issue, redeem = script.requests
    assert (issue.url, {**issue.headers, **headers}) == (url, dict(issue.headers))
    assert redeem.url == f"{ENTRA}/oauth2/v2.0/token"
    assert dict(parse_qsl((redeem.body or b"").decode())) == {
        "client_id": "robot",
        "grant_type": "client_credentials",
        "scope": f"{RESOURCE}/.default",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "assertion",
    }


def test_a_job_of_github_that_may_have_no_token_is_told_so() -> None:
    world = make_world(environ={**ROBOT, "GITHUB_ACTIONS": "true"})
    with pytest.raises(module.ArtifactsError, match="give it the permission 'id-token: write'"):
        module.workload_identity(world, a_challenge())
    world = make_world(environ={**ROBOT, "GITHUB_ACTIONS": "true", "AZURE_CLIENT_SECRET": "s3cret"})
    assert module.workload_identity(world, a_challenge()) is None


def test_an_issuer_is_asked_over_https_alone() -> None:
    environ = {"ACTIONS_ID_TOKEN_REQUEST_URL": "http://gh.example/", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "run"}
    with pytest.raises(module.ArtifactsError, match=r"the address of GitHub Actions for tokens is not https"):
        module.workload_identity(make_world(environ={**ROBOT, **environ}), a_challenge())


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (
            "AADSTS7000215: Invalid client secret",
            "(AADSTS7000215): the secret is wrong; set its value, not its id.",
        ),
        ("AADSTS90002: no tenant", "(AADSTS90002): there is no such tenant; check the tenant id."),
        ("AADSTS1: \x1b[2J", "(AADSTS1): check its configuration"),
        ("", "(invalid_client): check its configuration, and its access to Entra."),
    ],
)
def test_a_refused_application_is_told_why(description: str, said: str) -> None:
    answer = response(401, {"error": "invalid_client", "error_description": description})
    world = make_world(environ={**ROBOT, "AZURE_CLIENT_SECRET": "s3cret"}, send=Script(answer))
    with pytest.raises(module.ArtifactsError) as error:
        module.service_principal(world, a_challenge())
    assert str(error.value).startswith("service_principal: Entra refused application robot (")
    assert said.replace("AADSTS1)", "invalid_client)") in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, [source.__name__ for source in module.SOURCES]),
        ({"KEYRINGS_ARTIFACTS_SOURCES": "browser, azure_cli;browser"}, ["browser", "azure_cli"]),
        ({"KEYRINGS_ARTIFACTS_SOURCES": " "}, [source.__name__ for source in module.SOURCES]),
    ],
)
def test_chosen_sources(environ: dict[str, str], names: list[str]) -> None:
    assert [source.__name__ for source in module.chosen_sources(environ)] == names


def test_a_source_that_is_none() -> None:
    with pytest.raises(module.ArtifactsError, match=r"^KEYRINGS_ARTIFACTS_SOURCES names no source with 'az'"):
        module.chosen_sources({"KEYRINGS_ARTIFACTS_SOURCES": "az"})


def test_identities_are_kept_apart() -> None:
    environs = [
        {},
        ROBOT,
        {**ROBOT, "AZURE_CLIENT_ID": "other"},
        {"KEYRINGS_ARTIFACTS_SOURCES": "managed_identity"},
        {"IDENTITY_ENDPOINT": LOCAL_URL},
        {**ROBOT, "AZURE_TENANT_ID": CONTOSO_TENANT},
    ]
    found = [module.identity(environ) for environ in environs]
    assert len(set(found)) == len(environs)
    assert found[0] == ""
    assert module.identity({"KEYRINGS_ARTIFACTS_SOURCES": "azure_cli", **ROBOT}) == ""
    assert module.identity({**ROBOT, "AZURE_CLIENT_SECRET": "a"}) == found[1]  # secrets are renewed


@pytest.mark.parametrize(("second", "same"), [("other", False), ("ROBOT", True), ("\ud800", False)])
def test_the_identities_of_two_feeds_are_kept_apart(second: str, same: bool) -> None:
    """But one identity of all feeds of an organization has one session, however they are spelled."""
    other = FEED.replace("pyfeed", "other")
    clients = {FEED: "robot", other: second}
    entries = [{"endpoint": url, "clientId": client} for url, client in clients.items()]
    environ = {"ARTIFACTS_CREDENTIALPROVIDER_FEED_ENDPOINTS": json.dumps({"endpointCredentials": entries})}
    world = make_world(environ=environ)
    names = [module.entry(parsed(url), world) for url in (FEED, other, FEED.rstrip("/"))]
    assert names[0] == names[2]
    assert (names[0] == names[1]) is same


# --- composition ------------------------------------------------------------------------------

SESSION = response(200, {"token": "session-token", "validTo": "2027-01-16T08:00:00.1234567Z"})
PAT = response(200, {"patToken": {"token": "pat-token"}, "patTokenError": "none"})
KEPT = {"session/contoso": module.write_session(a_session(token="kept"))}


def credential(world: module.World, url: str = FEED, user: str | None = None) -> str | None:
    answer = module.credential_for(parsed(url), url, user, world)
    return None if answer is None else answer.password


def test_a_cold_call_takes_discovery_and_exchange() -> None:
    world = az_world(Script(CHALLENGED, SESSION))
    assert credential(world) == "session-token"
    assert module.read_session(world.store.read("session/contoso")) == module.Session(
        "session-token",
        "session",
        checked=NOW,
        expires=NOW + 86_400,
        asked="session",
        scope="vso.packaging_write",
        account="ada@contoso.example",
        tenant=TENANT,
    )


def test_a_warm_call_takes_nothing() -> None:
    assert credential(make_world(store=Kept(KEPT)), UPLOAD) == "kept"


def test_a_public_feed_has_no_credential() -> None:
    assert credential(make_world(send=Script(response(200)))) is None


def test_a_public_feed_needs_no_identity_that_works() -> None:
    script = Script(response(401, {"error": "invalid_client"}), response(200))
    world = make_world(send=script, environ={**ROBOT, "AZURE_CLIENT_SECRET": "s3cret"})
    assert credential(world) is None
    assert [request.url for request in script.requests] == [f"{ENTRA}/oauth2/v2.0/token", FEED]


def types(script: Script) -> list[str]:
    """What a script was asked to mint: type, and whether with a lifetime."""
    names = []
    for request in script.requests[1:]:
        lifetime = "validTo" in json.loads(request.body or b"{}")
        kind = "pat" if "/pats" in request.url else "session" if request.body else "check"
        names.append(f"{kind} with lifetime" if lifetime else kind)
    return names


LIFESPAN = response(200, {"patTokenError": "patLifespanPolicyViolation"})
NO_PATS = response(403, {"patTokenError": "disablePatCreationPolicyViolation"})


@pytest.mark.parametrize(
    ("token_type", "answers", "asked", "kind"),
    [
        ("", [SESSION], ["session with lifetime"], "session"),
        ("session", [SESSION], ["session with lifetime"], "session"),
        ("pat", [PAT], ["pat with lifetime"], "pat"),
        ("pat", [LIFESPAN, PAT], ["pat with lifetime", "pat"], "pat"),
        ("pat", [NO_PATS, SESSION], ["pat with lifetime", "session with lifetime"], "session"),
        (
            "pat",
            [LIFESPAN, LIFESPAN, response(400), SESSION],
            ["pat with lifetime", "pat", "session with lifetime", "session"],
            "session",
        ),
        (
            "pat",
            [NO_PATS, response(403), response(200)],
            ["pat with lifetime", "session with lifetime", "check"],
            "entra",
        ),
        ("entra", [response(200)], ["check"], "entra"),
    ],
)
def test_a_refused_token_type_leads_to_the_next(
    token_type: str, answers: list[module.Response], asked: list[str], kind: str
) -> None:
    script = Script(CHALLENGED, *answers)
    world = az_world(script, environ={"KEYRINGS_ARTIFACTS_TOKEN_TYPE": token_type})
    assert credential(world)
    assert types(script) == asked
    kept = module.read_session(world.store.read("session/contoso"))
    assert kept is not None
    assert (kept.kind, kept.asked) == (kind, token_type or "session")
    assert credential(world) == kept.token  # and it is believed the next time
    assert not script.answers


def test_a_personal_account_gets_a_session_where_the_service_of_pats_knows_it_not() -> None:
    script = Script(response(401, x_vss_resourcetenant=NO_TENANT), response(401), SESSION)
    assert credential(az_world(script, environ={"KEYRINGS_ARTIFACTS_TOKEN_TYPE": "pat"})) == "session-token"
    assert types(script) == ["pat with lifetime", "session with lifetime"]


def test_duration_and_scope_reach_the_request() -> None:
    script = Script(CHALLENGED, PAT)
    environ = {"AZURE_DEVOPS_PAT_DURATION": "7", "AZURE_DEVOPS_PAT_SCOPE": "vso.packaging"}
    world = az_world(script, environ={**environ, "KEYRINGS_ARTIFACTS_TOKEN_TYPE": "pat"})
    assert credential(world) == "pat-token"
    body = json.loads(script.requests[1].body or b"")
    assert (body["scope"], body["validTo"]) == ("vso.packaging", "2027-01-22T08:00:00Z")


def test_the_token_of_an_application_is_used_as_it_is() -> None:
    token = jwt({"idtyp": "app", "appid": "robot", "exp": NOW + 3600})
    script = Script(CHALLENGED, response(200))
    world = az_world(script, run=printing(json.dumps({"accessToken": token})))
    assert credential(world) == token
    assert [request.body_limit for request in script.requests] == [0, 0]


@pytest.mark.parametrize("check", [404, 405, 200])
def test_an_organization_that_nobody_knows_is_one_sentence_for_uploads_too(check: int) -> None:
    script = Script(response(404), response(404), response(check))
    if check == 404:
        with pytest.raises(module.NetworkError, match=f"knows no such feed .{UPLOAD}."):
            credential(az_world(script), UPLOAD)
    else:
        assert credential(az_world(script), UPLOAD)


def test_a_stranger_is_told_why_though_only_the_body_says_it() -> None:
    token = jwt({"idtyp": "app", "appid": "robot", "exp": NOW + 3600})
    script = Script(CHALLENGED, response(401, {"message": "TF401444: Please sign in"}))
    with pytest.raises(module.NoCredential, match="has never signed in to organization 'contoso'"):
        credential(az_world(script, run=printing(json.dumps({"accessToken": token}))))
    assert [(request.body_limit, request.why) for request in script.requests] == [(0, False), (0, True)]


NOBODY = (
    "Nobody is signed in to organization 'contoso', and nobody can be asked: {}. Run 'keyring --mode "
    f"creds get {FEED}' in a terminal, or 'az login --tenant {{}}', or set AZURE_DEVOPS_EXT_PAT to a "
    "personal access token."
)


@pytest.mark.parametrize(
    ("changes", "answers", "problem"),
    [
        pytest.param(
            {"which": lambda _: None},
            [CHALLENGED],
            NOBODY.format("there is neither a browser nor a terminal", TENANT),
            id="no az",
        ),
        pytest.param(
            {"which": lambda _: None, "environ": {"KEYRINGS_ARTIFACTS_SOURCES": "azure_cli"}},
            [CHALLENGED],
            NOBODY.format("KEYRINGS_ARTIFACTS_SOURCES leaves out browser and device_code", TENANT),
            id="no source that asks",
        ),
        pytest.param(
            {},
            [CHALLENGED, response(401, {"message": "TF401444: Please sign-in"})],
            TF401444,
            id="never signed in",
        ),
        pytest.param({"run": printing("s3cret")}, [CHALLENGED], AZ_GARBAGE, id="az prints garbage"),
        pytest.param({}, [CHALLENGED, DROPPED, DROPPED, DROPPED], "dropped", id="no network"),
    ],
)
def test_no_credential_is_one_sentence(changes: dict[str, Any], answers: list[Any], problem: str) -> None:
    world = az_world(Script(*answers), sleep=lambda _: None, **changes)
    with pytest.raises(module.ArtifactsError) as error:
        credential(world)
    assert str(error.value) == problem


HOUR_OLD = {"session/contoso": module.write_session(a_session(token="kept", checked=NOW - 3600))}


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (response(200), True),
        (response(303), True),
        (response(404), True),
        (response(403), True),
        (response(401), False),
        (response(203), False),
        (response(302), False),
        (DROPPED, True),
        (response(503), True),
    ],
    ids=["200", "303", "404", "403", "401", "203", "302", "no network", "503"],
)
def test_a_session_is_checked_once_an_hour(answer: Any, kept: bool) -> None:
    script = Script(answer, *([] if kept else [CHALLENGED, SESSION]))
    world = az_world(script, store=Kept(HOUR_OLD))
    assert credential(world) == ("kept" if kept else "session-token")
    assert script.requests[0] == module.check_request(parsed(), "kept", tries=1)


def test_a_check_is_remembered() -> None:
    world = make_world(store=Kept(HOUR_OLD), send=Script(response(200)))
    assert [credential(world), credential(world)] == ["kept", "kept"]


def test_a_check_from_the_future_counts_for_nothing() -> None:
    text = module.write_session(a_session(token="kept", checked=NOW + 10))
    world = make_world(store=Kept({"session/contoso": text}), send=Script(response(200)))
    assert credential(world) == "kept"


def test_a_persons_own_pat_that_is_refused_is_told_and_forgotten() -> None:
    text = module.write_session(module.Session("own", "set", 0))
    told: list[str] = []
    world = az_world(
        Script(response(401), CHALLENGED, SESSION), store=Kept({"session/contoso": text}), notify=told.append
    )
    assert credential(world) == "session-token"
    assert told == [
        "Organization 'contoso' refused the token that 'keyring set' kept for it: it is forgotten. "
        "Set a new one, or sign in."
    ]


PROJECT_FEED = "https://pkgs.dev.azure.com/contoso/proj/_packaging/f/pypi/simple/"


@pytest.mark.parametrize(
    ("url", "service", "user", "asked"),
    [
        (FEED, FEED, "VssSessionToken", None),
        (FEED, FEED, "VssSessionToken", "me"),
        (FEED, FEED.rstrip("/"), "me", "me"),
        (PROJECT_FEED + "pkg/", PROJECT_FEED.rstrip("/"), "VssSessionToken", None),
        (FEED, FEED, "build", None),
    ],
)
def test_what_1_x_kept_is_found_checked_and_used(
    url: str, service: str, user: str, asked: str | None
) -> None:
    store = Kept()
    store.others[(service, user)] = "old-pat"
    world = make_world(store=store, send=Script(response(200)), environ={"AZURE_DEVOPS_USERNAME": "build"})
    assert credential(world, url, asked) == "old-pat"
    assert credential(world, url, asked) == "old-pat"  # and no second check
    told = "Signed out of organization 'contoso'. Nothing else of it is left here."
    assert module.sign_out(parsed(url), url, asked, world) == told
    assert module.sign_out(parsed(url), url, asked, az_world(Script(CHALLENGED))) is None


def test_what_1_x_kept_is_passed_over_when_refused() -> None:
    store = Kept()
    store.others[(FEED, "VssSessionToken")] = "old-pat"
    world = az_world(Script(response(401), CHALLENGED, SESSION), store=store)
    assert credential(world) == "session-token"


# --- signing in -------------------------------------------------------------------------------

AUTHORITY = "ARTIFACTS_CREDENTIALPROVIDER_MSAL_AUTHORITY"
TIMEOUT = "ARTIFACTS_CREDENTIALPROVIDER_DEVICEFLOWTIMEOUTSECONDS"
HINT = "ARTIFACTS_CREDENTIALPROVIDER_MSAL_LOGIN_HINT"


@pytest.mark.parametrize(
    ("tenant", "host", "environ", "base"),
    [
        (TENANT, "login.microsoftonline.com", {}, ENTRA),
        (None, "login.microsoftonline.com", {}, "https://login.microsoftonline.com/organizations"),
        (TENANT, "login.windows.net", {}, f"https://login.windows.net/{TENANT}"),
        (TENANT, "x", {AUTHORITY: "https://login.example/common/"}, "https://login.example/common"),
        (TENANT, "login.microsoftonline.com", {AUTHORITY: " "}, ENTRA),
    ],
)
def test_authority(tenant: str | None, host: str, environ: dict[str, str], base: str) -> None:
    asked = a_challenge(tenant=tenant, sign_in_host=host)
    assert module.authority(asked, environ) == base


@pytest.mark.parametrize("value", ["http://login.example/x", "https://login.example", "x", "https://a@b/c"])
def test_an_authority_that_is_none(value: str) -> None:
    with pytest.raises(module.ArtifactsError, match=f"^{AUTHORITY} must be an https address"):
        module.authority(a_challenge(), {AUTHORITY: value})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("", 180.0), ("90", 90.0), (" 5 ", 5.0), ("0", None), ("-1", None), ("1.5", None), ("x", None)],
)
def test_sign_in_seconds(value: str, seconds: float | None) -> None:
    if seconds is not None:
        assert module.sign_in_seconds({TIMEOUT: value}) == seconds
    else:
        with pytest.raises(module.ArtifactsError, match=f"^{TIMEOUT} must be a number of seconds"):
            module.sign_in_seconds({TIMEOUT: value})


@pytest.mark.parametrize(
    ("environ", "url", "reason"),
    [
        ({}, FEED, ""),
        ({"CI": "true"}, FEED, "CI is set"),
        ({"CI": "1"}, FEED, "CI is set"),
        ({"CI": "false"}, FEED, ""),
        ({"CI": ""}, FEED, ""),
        ({"TF_BUILD": "True"}, FEED, "TF_BUILD is set"),
        ({"GITHUB_ACTIONS": "true"}, FEED, "GITHUB_ACTIONS is set"),
        ({"PIP_NO_INPUT": "1"}, FEED, "PIP_NO_INPUT is set"),
        (
            {"ARTIFACTS_KEYRING_NONINTERACTIVE_MODE": "TRUE"},
            FEED,
            "ARTIFACTS_KEYRING_NONINTERACTIVE_MODE is set",
        ),
        ({}, "contoso.pkgs.visualstudio.com", "a host name alone is asked for"),
    ],
)
def test_silence(environ: dict[str, str], url: str, reason: str) -> None:
    assert module.silence(a_challenge(url), environ) == reason


DESKTOP = {"DISPLAY": ":0"}


@pytest.mark.parametrize(
    ("environ", "system", "programs", "command"),
    [
        pytest.param({}, "linux", "xdg-open", None, id="no desktop"),
        pytest.param(DESKTOP, "linux", "xdg-open firefox", ["/bin/xdg-open", "%s"], id="X11"),
        pytest.param({"WAYLAND_DISPLAY": "w"}, "linux", "firefox", ["/bin/firefox", "%s"], id="Wayland"),
        pytest.param(DESKTOP, "linux", "w3m lynx", None, id="text browsers alone"),
        pytest.param({**DESKTOP, "SSH_CONNECTION": "x"}, "linux", "xdg-open", None, id="SSH"),
        pytest.param({**DESKTOP, "SSH_TTY": "x"}, "darwin", "", None, id="SSH to a Mac"),
        pytest.param({**DESKTOP, "container": "podman"}, "linux", "xdg-open", None, id="container"),
        pytest.param({**DESKTOP, "IN": "1"}, "linux", "xdg-open", None, id="container by its files"),
        pytest.param({**DESKTOP, "CODESPACES": "true"}, "linux", "xdg-open", None, id="Codespaces"),
        pytest.param({}, "darwin", "", ["/usr/bin/open", "%s"], id="macOS"),
        pytest.param(
            {},
            "win32",
            "rundll32.exe",
            ["/bin/rundll32.exe", "url.dll,FileProtocolHandler", "%s"],
            id="Windows",
        ),
        pytest.param({"WSL_DISTRO_NAME": "x"}, "linux", "wslview", ["/bin/wslview", "%s"], id="WSL"),
        pytest.param(
            {"WSL_DISTRO_NAME": "x", "IN": "1"},
            "linux",
            "wslview",
            ["/bin/wslview", "%s"],
            id="WSL made from an image",
        ),
        pytest.param(
            {"WSL_DISTRO_NAME": "x", "container": "podman"}, "linux", "wslview", None, id="container in WSL"
        ),
        pytest.param(
            {"WSL_INTEROP": "x"},
            "linux",
            "rundll32.exe",
            ["/bin/rundll32.exe", "url.dll,FileProtocolHandler", "%s"],
            id="WSL without wslu",
        ),
        pytest.param({"BROWSER": "my"}, "linux", "my", ["/bin/my", "%s"], id="BROWSER"),
        pytest.param(
            {"BROWSER": '"my" "--in a window" %s'},
            "linux",
            "my",
            ["/bin/my", "--in a window", "%s"],
            id="BROWSER in quotes",
        ),
        pytest.param(
            {"BROWSER": "my --tab %s &", "SSH_TTY": "x", "IN": "1"},
            "linux",
            "my",
            ["/bin/my", "--tab", "%s"],
            id="BROWSER of an editor, far away",
        ),
        pytest.param(
            {"BROWSER": os.pathsep.join(["gone", "lynx", "my"])},
            "linux",
            "lynx my",
            ["/bin/my", "%s"],
            id="several",
        ),
        pytest.param({**DESKTOP, "BROWSER": "lynx"}, "linux", "lynx xdg-open", None, id="BROWSER=lynx"),
    ],
)
def test_browser_command(
    environ: dict[str, str], system: str, programs: str, command: list[str] | None
) -> None:
    def which(program: str) -> str | None:
        return f"/bin/{program}" if program in programs.split() else None

    assert module.browser_command(environ, system, "IN" in environ, which) == command


def test_authorize_url() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # of RFC 7636, appendix B
    url = module.authorize_url(
        ENTRA, "http://localhost:1234", "state", verifier, {HINT: "ada@contoso.example"}
    )
    page, _, query = url.partition("?")
    assert page == f"{ENTRA}/oauth2/v2.0/authorize"
    assert dict(parse_qsl(query)) == {
        "client_id": ARTIFACTS_CLIENT,
        "response_type": "code",
        "redirect_uri": "http://localhost:1234",
        "scope": f"{RESOURCE}/.default offline_access openid profile",
        "state": "state",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
        "response_mode": "form_post",
        "prompt": "select_account",
        "login_hint": "ada@contoso.example",
    }
    assert "login_hint" not in module.authorize_url(ENTRA, "x", "state", verifier, {})


@pytest.mark.parametrize(
    ("target", "form", "status", "answer"),
    [
        ("/", "code=c&state=S", 200, {"code": "c", "state": "S"}),
        ("/?code=c&state=S", "", 303, {"code": "c", "state": "S"}),
        ("/", "error=access_denied&state=S", 200, {"error": "access_denied", "state": "S"}),
        ("/", "", 200, None),
        ("/done", "", 200, None),
        ("/failed", "", 200, None),
        ("/done", "code=c&state=S", 404, None),
        ("/?state=S", "", 400, None),
        ("/?code=c", "", 400, None),
        ("/?code=c&state=T", "", 400, None),
        ("/", "code=c&state=%C3%A9", 400, None),
        ("/favicon.ico", "", 404, None),
        ("/other", "code=c&state=S", 404, None),
        ("//", "code=c&state=S", 404, None),
    ],
)
def test_answer_browser(target: str, form: str, status: int, answer: dict[str, str] | None) -> None:
    page = module.answer_browser(target, form, "S")
    assert (page[0], page[2]) == (status, answer or {})
    assert "c&" not in page[1]
    said = {"code": "You are signed in", "error": "did not succeed"}
    assert all(text in page[1] for key, text in said.items() if key in page[2])


@given(st.text(), st.text())
def test_answer_browser_takes_no_guess(target: str, form: str) -> None:
    assert module.answer_browser(target, form, "x" * 64)[2] == {}


AGAIN = "run the command again"
LOGIN = f"'az login --tenant {TENANT}'"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"error": "access_denied"}, f"the sign-in was declined (access_denied): {AGAIN}, and accept it."),
        (
            {"error": "invalid_grant", "error_description": "AADSTS65004: \x1b[2J"},
            f"the sign-in was declined (AADSTS65004): {AGAIN}, and accept it.",
        ),
        ({"error": "expired_token"}, f"the code expired before anybody entered it: {AGAIN}."),
        (
            {"error": "invalid_grant", "error_description": "AADSTS53003: s3cret"},
            "a policy of your organization does not allow this sign-in (AADSTS53003): use a browser on a "
            f"machine it manages, or run {LOGIN}.",
        ),
        (
            {"error": "invalid_grant", "error_description": "AADSTS54005: redeemed"},
            f"Entra did not accept the sign-in (AADSTS54005): {AGAIN}, or sign in with {LOGIN}.",
        ),
        (
            {"error": "x\x1b[2J\n" * 99},
            "Entra did not accept the sign-in (x [2J x [2J x [2J x [2J x [2J x [2J x [2):"
            f" {AGAIN}, or sign in with {LOGIN}.",
        ),
        ({}, f"Entra did not accept the sign-in (no reason given): {AGAIN}, or sign in with {LOGIN}."),
    ],
    ids=["declined", "declined by number", "expired", "policy", "redeemed", "hostile", "nothing"],
)
def test_refusal(body: dict[str, object], sentence: str) -> None:
    said = str(module.refusal("browser", a_challenge(), body))
    assert said.isprintable()
    assert said.replace("  ", " ") == f"browser: {sentence}"


DEVICE = {
    "device_code": "d",
    "user_code": "ABCD-EFGH",
    "verification_uri": "https://microsoft.com/devicelogin",
    "expires_in": "900",
    "interval": 5,
}


@pytest.mark.parametrize(
    ("changes", "seconds", "interval"),
    [
        ({}, 900.0, 5.0),
        ({"interval": None, "expires_in": None}, 900.0, 5.0),
        ({"interval": 0}, 900.0, 5.0),
        ({"interval": -3}, 900.0, 1.0),
        ({"interval": 1e9, "expires_in": 60}, 60.0, 60.0),
        ({"verification_uri": None, "verification_url": "https://login.microsoft.com/device"}, 900.0, 5.0),
    ],
)
def test_read_device(changes: dict[str, object], seconds: float, interval: float) -> None:
    found = module.read_device(a_challenge(), ENTRA, response(200, {**DEVICE, **changes}))
    poll, user_code, *_ = found
    assert (poll.url, user_code) == (ENTRA, "ABCD-EFGH")
    assert b"&device_code=d" in (poll.body or b"")
    assert found[3:] == (seconds, interval)
    assert "code=d" not in repr(device)


@pytest.mark.parametrize(
    "page",
    [
        "https://evil.example/devicelogin",
        "http://microsoft.com/devicelogin",
        "https://microsoft.com@evil.example/",
        "https://microsoft.com.evil.example/",
        "https://evilmicrosoft.com/",
        "https://microsoft.com:8443/",
        "https://microsoft.com/\x1b[2J",
        "javascript:alert(1)",
        "",
    ],
)
def test_a_strange_page_for_the_device_code_is_not_shown(page: str) -> None:
    with pytest.raises(module.ArtifactsError, match=r"the page to sign in on is not Microsoft's"):
        module.read_device(a_challenge(), ENTRA, response(200, {**DEVICE, "verification_uri": page}))


@pytest.mark.parametrize(
    "answer",
    [
        response(400, {"error": "invalid_client"}),
        response(200, b"<html>"),
        response(200, {**DEVICE, "device_code": "a b"}),
        response(200, {**DEVICE, "user_code": "\n"}),
    ],
    ids=["refused", "HTML", "no code", "no code for the person"],
)
def test_read_device_refuses(answer: module.Response) -> None:
    with pytest.raises(module.ArtifactsError, match=r"^device_code: Entra did not accept the sign-in"):
        module.read_device(a_challenge(), ENTRA, answer)


def pending(error: str = "authorization_pending") -> module.Response:
    return response(400, {"error": error})


class Clock:
    """Seconds that pass where somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.seconds += seconds


GRANTED = response(200, {"access_token": "entra", "refresh_token": "r", "expires_in": "3900"})


def at_terminal(script: Script, **changes: Any) -> tuple[module.World, Clock, list[str]]:
    """A world with a terminal, where time passes, and what is said on it."""
    clock, told = Clock(), list[str]()
    world = make_world(
        send=script, ticks=clock, sleep=clock.sleep, terminal=lambda: True, notify=told.append, **changes
    )
    return world, clock, told


def test_a_device_code_is_polled_as_told() -> None:
    portal = response(200, b"<html>")
    trouble = pending("temporarily_unavailable")
    polls: list[Any] = [pending(), DROPPED, portal, trouble, pending("slow_down"), pending(), GRANTED]
    script = Script(response(200, DEVICE), *polls)
    world, clock, told = at_terminal(script)
    found = module.device_code(world, a_challenge())
    assert found == module.Bearer("entra", NOW + 3900, "device_code", True, ours=True)
    assert told == [
        "To sign in to organization 'contoso', open https://microsoft.com/devicelogin and enter the code "
        "ABCD-EFGH within 3 min."
    ]
    assert clock.seconds == 5 + 5 + 5 + 5 + 5 + 10 + 10
    first, second = script.requests[:2]
    assert (first.url, second.url) == (f"{ENTRA}/oauth2/v2.0/devicecode", f"{ENTRA}/oauth2/v2.0/token")
    assert dict(parse_qsl((first.body or b"").decode())) == {
        "client_id": ARTIFACTS_CLIENT,
        "scope": f"{RESOURCE}/.default offline_access openid profile",
    }
    assert dict(parse_qsl((second.body or b"").decode())) == {
        "client_id": ARTIFACTS_CLIENT,
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "d",
    }
    assert json.loads(world.store.read(f"refresh/{TENANT}") or "")["refresh_token"] == "r"


def test_a_device_code_is_waited_for_as_long_as_told() -> None:
    script = Script(response(200, DEVICE), *[pending()] * 99)
    world, clock, _ = at_terminal(script, environ={TIMEOUT: "60"})
    with pytest.raises(module.SignInEnded) as error:
        module.device_code(world, a_challenge())
    assert str(error.value) == (
        "Nobody signed in to organization 'contoso' within 60 seconds: run the command again. "
        f"{TIMEOUT} sets a longer time."
    )
    assert clock.seconds == 60


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (DROPPED, "dropped"),
        (response(200, b"<html>"), "device_code: Entra did not accept the sign-in"),
        (pending("server_error"), f"Nobody signed in to organization 'contoso' within 3 min: {AGAIN}"),
    ],
    ids=["drops", "a portal's page", "trouble of Entra's"],
)
def test_a_device_code_among_faults_alone_is_given_up(answer: Any, said: str) -> None:
    world, clock, _ = at_terminal(Script(response(200, DEVICE), *[answer] * 40))
    with pytest.raises(module.ArtifactsError, match=f"^{said}"):
        module.device_code(world, a_challenge())
    assert clock.seconds <= (180 if "Nobody" in said else 50)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("authorization_declined", "device_code: the sign-in was declined"),
        ("expired_token", "device_code: the code expired"),
        ("invalid_grant", "device_code: Entra did not accept the sign-in"),
    ],
)
def test_a_device_code_that_comes_to_nothing(error: str, said: str) -> None:
    world, _, _ = at_terminal(Script(response(200, DEVICE), pending(error)))
    with pytest.raises(module.SignInEnded, match=f"^{said}"):
        module.device_code(world, a_challenge())


REFRESH = {f"refresh/{TENANT}": json.dumps({"refresh_token": "old"})}


def test_a_refresh_token_signs_in_and_is_replaced() -> None:
    script = Script(GRANTED)
    world = make_world(send=script, store=Kept(REFRESH))
    found = module.refresh_token(world, a_challenge())
    assert found == module.Bearer("entra", NOW + 3900, "refresh_token", True, ours=True)
    assert dict(parse_qsl((script.requests[0].body or b"").decode())) == {
        "client_id": ARTIFACTS_CLIENT,
        "grant_type": "refresh_token",
        "refresh_token": "old",
        "scope": f"{RESOURCE}/.default offline_access openid profile",
    }
    assert json.loads(world.store.read(f"refresh/{TENANT}") or "")["refresh_token"] == "r"


def test_a_refresh_token_that_is_over_is_dropped_and_said_once() -> None:
    script = Script(response(400, {"error": "invalid_grant"}))
    world, _, told = at_terminal(script, store=Kept(REFRESH))
    assert module.refresh_token(world, a_challenge()) is None
    assert module.refresh_token(world, a_challenge()) is None
    assert told == ["The earlier sign-in to organization 'contoso' is over."]


def test_a_refresh_token_that_is_over_is_an_error_where_nobody_is_asked() -> None:
    world = make_world(send=Script(response(400, {"error": "invalid_grant"})), store=Kept(REFRESH))
    said = (
        r"^refresh_token: Entra did not accept the sign-in \(invalid_grant\): run the command in a terminal,"
    )
    with pytest.raises(module.EntraRefused, match=said):
        module.refresh_token(world, a_challenge())
    assert world.store.read(f"refresh/{TENANT}") is None


def test_a_refresh_token_survives_what_is_not_its_fault() -> None:
    world = make_world(send=Script(response(400, {"error": "invalid_client"})), store=Kept(REFRESH))
    with pytest.raises(module.EntraRefused):
        module.refresh_token(world, a_challenge())
    assert world.store.read(f"refresh/{TENANT}") is not None


@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error"])
def test_a_refresh_token_outlives_a_trouble_of_entras(error: str) -> None:
    world, _, told = at_terminal(Script(response(400, {"error": error})), store=Kept(REFRESH))
    with pytest.raises(module.NetworkError, match=f"Entra has trouble .{error}.: try again"):
        module.refresh_token(world, a_challenge())
    assert world.store.read(f"refresh/{TENANT}") is not None
    assert not told


@pytest.mark.parametrize("error", ["temporarily_unavailable", "server_error"])
def test_a_trouble_of_entras_is_nobodys_refusal(error: str) -> None:
    world, _, _ = at_terminal(Script(response(400, {"error": error})))
    with pytest.raises(module.NetworkError, match=f"^device_code: Entra has trouble .{error}.: try again"):
        module.device_code(world, a_challenge())
    assert isinstance(module.refusal("browser", a_challenge(), {"error": error}), module.NetworkError)


def test_a_refresh_token_that_another_process_replaced_is_not_missed() -> None:
    store, asked = Kept(REFRESH), list[str]()

    def send(request: module.Request, seconds: float) -> module.Response:
        asked.append(dict(parse_qsl((request.body or b"").decode()))["refresh_token"])
        store.write(f"refresh/{TENANT}", json.dumps({"refresh_token": "new"}), module.KEYRING)
        return GRANTED if asked[-1] == "new" else response(400, {"error": "invalid_grant"})

    found = module.refresh_token(make_world(send=send, store=store), a_challenge())
    assert found is not None
    assert asked == ["old", "new"]


@pytest.mark.parametrize(
    ("real", "requests", "kind"),
    [(True, ["pat with lifetime"], "pat"), (False, ["session with lifetime"], "session")],
)
def test_a_sign_in_of_our_own_brings_a_pat_where_it_can_be_kept(
    real: bool, requests: list[str], kind: str
) -> None:
    bearer = module.Bearer("entra", NOW + 3900, "browser", True, ours=True)
    script = Script(PAT if real else SESSION)
    world = make_world(send=script, store=Kept(real=real))
    session = module.exchange(a_challenge(), bearer, module.Settings(), world)
    assert (session.kind, session.asked) == (kind, kind)


# --- store ------------------------------------------------------------------------------------


@given(st.text(max_size=5000))
def test_entries_are_split_and_joined(text: str) -> None:
    text = json.dumps(text)
    head, *rest = module.split_entry(text)
    assert all(len(part) <= 1280 for part in (head, *rest))
    assert len(module.part_names("x", head)) == len(rest)
    assert module.join_entry(head, rest) == text


def test_an_entry_with_a_part_missing_or_of_another_is_none() -> None:
    head, first, last = module.split_entry('"' + "x" * 3000)
    other = module.split_entry('"' + "y" * 3000)
    assert module.join_entry(head, [first, None]) is None
    assert module.join_entry(head, [first, other[2]]) is None
    assert module.join_entry(head, [first, last]) is not None


@given(st.text(), st.lists(st.none() | st.text(), max_size=3))
def test_join_entry_never_raises(head: str, rest: list[str | None]) -> None:
    module.join_entry(head, rest)
    assert len(module.part_names("x", head)) < 100


def test_the_port_of_a_sign_in_is_closed_before_its_code_is_redeemed() -> None:
    places: list[tuple[str, int]] = []

    def start(command: Sequence[str]) -> Callable[[], bool]:
        query = dict(parse_qsl(urlsplit(command[1]).query))
        places.append(("127.0.0.1", urlsplit(query["redirect_uri"]).port or 0))
        say(places[0][1], f"GET /?code=c&state={query['state']} HTTP/1.1\r\n\r\n")
        say(places[0][1], "GET /done HTTP/1.1\r\n\r\n")
        return lambda: False

    def send(request: module.Request, seconds: float) -> module.Response:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(places[0], timeout=5).close()
        return GRANTED

    world = make_world(
        browser=lambda: ["my", "%s"], start=start, listen=module.Listener, send=send, random=lambda: "S"
    )
    assert module.browser(world, a_challenge()) is not None
    assert len(places) == 1


def test_a_platform_that_does_not_answer_is_not_waited_for() -> None:
    """A queue that is full answers nobody who wants to connect."""
    with socket.socket() as server, contextlib.ExitStack() as held:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}/token"
        with pytest.raises(module.NetworkError, match=r"could not be reached \(ConnectTimeout") as caught:
            module.send(module.local_get(url, "2018-02-01", {}), 10)
    assert not caught.value.passing


@POSIX
def test_who_waits_for_a_turn_stops_waiting_in_time(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as holder, path.open("r+") as waiter:
        module.lock_file(holder, 5)
        began = time.monotonic()
        module.lock_file(waiter, 0.2)
        assert 0.2 <= time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("variables", "proxied"),
    [
        ({"https_proxy": "http://127.0.0.1:9"}, True),
        ({"https_proxy": "127.0.0.1:9"}, True),
        ({"all_proxy": "http://127.0.0.1:9"}, True),
        ({"https_proxy": "http://127.0.0.1:9", "no_proxy": "dev.azure.com"}, False),
        ({}, False),
    ],
)
def test_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxied: bool
) -> None:
    for name in ("https_proxy", "all_proxy", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    request = module.headers_only(FEED)
    assert (module._pool(request).proxy is not None) is proxied
    local = dataclasses.replace(request, direct=True)
    assert module._pool(local).proxy is None
    for host in ("localhost:8443", "127.0.0.1", "[::1]:443", "169.254.169.254"):
        assert module._pool(module.headers_only(f"https://{host}/")).proxy is None


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"], ids=["direct", "through a proxy"])
def test_no_body_waits_for_its_headers(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """Nagle's algorithm is off: on, it costs each POST the 40 ms of a delayed ACK."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("https_proxy", raising=False)
    pool = module._pool(module.headers_only(FEED)).connection_from_url(FEED)
    assert (pool.proxy is not None) is bool(proxy)
    options = pool.conn_kw.get("socket_options", pool.ConnectionCls.default_socket_options)
    assert (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in options


@pytest.mark.parametrize(
    ("user", "login"),
    [("me", "me:"), ("me:", "me:"), ("me:p%40ss", "me:p@ss"), (":p", ":p"), ("me%3Ax", "me:x:")],
)
def test_the_login_of_a_proxy(monkeypatch: pytest.MonkeyPatch, user: str, login: str) -> None:
    monkeypatch.setenv("https_proxy", f"http://{user}@127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    header = module._pool(module.headers_only(FEED)).proxy_headers["Proxy-Authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")).decode() == login


@pytest.mark.parametrize("proxy", ["http://me:p#x@h:1", "http://me:p/x@h:1", "http://h:port", "http://[::1"])
def test_a_proxy_that_is_no_address_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(module.NetworkError) as caught:
        module._pool(module.headers_only(FEED))
    assert str(caught.value) == (
        "The proxy for pkgs.dev.azure.com has no address that can be read: mend https_proxy, with the "
        "special characters of a password as %23 and the like."
    )


class Drawer:
    """A place that is a dictionary."""

    label = "drawer"

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        return self.texts.get(name)

    def set(self, name: str, text: str) -> None:
        assert len(text) <= 1280
        self.texts[name] = text

    def holds(self, name: str) -> bool:
        return name in self.texts

    def delete(self, name: str) -> None:
        del self.texts[name]


def test_entries_leave_no_parts_behind() -> None:
    drawer: Any = Drawer()
    for size in (10, 5000, 3000, 3000, 10, 5000):
        text = '"' + "x" * size
        assert module.write_entry(drawer, "name", text)
        assert module.read_entry(drawer, "name") == text
        assert len(drawer.texts) == len(module.split_entry(text))
    assert module.erase_entry(drawer, "name")
    assert not module.erase_entry(drawer, "name")
    assert not drawer.texts


@POSIX
def test_files_are_their_owners_alone(tmp_path: Path) -> None:
    files = module.Files(tmp_path / "data" / "folder")
    assert files.get("session/contoso") is None
    files.set("session/contoso", "one")
    files.set("session/contoso", "two")
    assert files.get("session/contoso") == "two"
    (only,) = files.folder.iterdir()
    assert only.stat().st_mode & 0o777 == 0o600
    assert files.folder.stat().st_mode & 0o777 == 0o700
    files.delete("session/contoso")
    assert files.get("session/contoso") is None


@POSIX
def test_a_file_that_is_not_ours_alone_is_not_read_but_replaced(tmp_path: Path) -> None:
    files = module.Files(tmp_path)
    path = files.path("session/contoso")
    path.write_text("planted")
    path.chmod(0o644)
    assert files.get("session/contoso") is None
    files.set("session/contoso", "ours")
    assert files.get("session/contoso") == "ours"
    elsewhere = tmp_path / "elsewhere"
    path.replace(elsewhere)
    path.symlink_to(elsewhere)
    assert files.get("session/contoso") is None
    files.set("session/contoso", "new")
    assert elsewhere.read_text() == "ours"


def test_a_file_system_without_links_takes_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "draft").write_text("new")
    (tmp_path / "taken").write_text("old")
    module.link(tmp_path / "draft", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "old"
    module.link(tmp_path / "draft", tmp_path / "free")
    assert (tmp_path / "free").read_text() == "new"


@POSIX
def test_a_folder_that_is_a_link_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        module.Files(tmp_path / "folder").set("session/contoso", "text")
    assert not list((tmp_path / "elsewhere").iterdir())


# --- log --------------------------------------------------------------------------------------

HIDDEN = [
    pytest.param("GET https://me:p4ss@proxy.example/x", "GET https://***@proxy.example/x", id="user info"),
    pytest.param("Authorization: Bearer abc", "Authorization: Bearer ***", id="bearer"),
    pytest.param("Authorization: Basic Ojp0b2tlbg==", "Authorization: Basic ***", id="basic"),
    pytest.param("?code=0.AX&state=x", "?code=***&state=***", id="query"),
    pytest.param('{"access_token": "a b", "n": 1}', '{"access_token": "***", "n": 1}', id="JSON"),
    pytest.param('{"access_token":"a"}', '{"access_token":"***"}', id="narrow JSON"),
    pytest.param("took eyJ0eXAi.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJlMTIz it", "took *** it", id="JWT"),
    pytest.param("took abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst", "took ***", id="PAT"),
    pytest.param("took " + "aB3" * 28 + ".", "took ***", id="new PAT"),
]
PLAIN_TEXTS = [
    "GET https://pkgs.dev.azure.com/contoso/_packaging/pyfeed/pypi/simple/: 401",
    "device_code: the sign-in was declined (AADSTS65004): run the command again, and accept it.",
    "azure_cli: Entra wants a new sign-in (AADSTS70043): run 'az login --tenant "
    "aaaaaaaa-1111-4222-8333-bbbbbbbbbbbb'.",
    "ARTIFACTS_CREDENTIALPROVIDER_EXTERNAL_FEED_ENDPOINTS is not the JSON it should be",
    "Basic realm is asked for",
]


@pytest.mark.parametrize(("text", "redacted"), HIDDEN)
def test_what_looks_like_a_secret_is_taken_out(text: str, redacted: str) -> None:
    assert module.redact(text) == redacted


@pytest.mark.parametrize("text", PLAIN_TEXTS)
def test_what_a_person_needs_stays(text: str) -> None:
    assert module.redact(text) == text


@given(st.text())
def test_redaction_never_raises_and_is_done_once(text: str) -> None:
    assert module.redact(module.redact(text)) == module.redact(text)


@given(st.from_regex(r"[a-z2-7]{52}|eyJ[\w-]{20,40}\.[\w-]{20,200}\.[\w-]{20,100}", fullmatch=True))
def test_no_token_survives(token: str) -> None:
    assume(any(c.isdigit() for c in token) and token.isascii())
    assert token not in module.redact(f"got '{token}' from there")


def test_a_traceback_is_redacted_too() -> None:
    try:
        raise ValueError("Invalid header value b'Bearer s3cret'")
    except ValueError:
        record = logging.LogRecord("x", logging.DEBUG, "", 1, "unexpected %s", ("thing",), sys.exc_info())
    assert module.redaction(record)
    text = logging.Formatter("%(message)s").format(record)
    assert text.startswith("unexpected thing\nTraceback")
    assert "s3cret" not in text


def test_a_log_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    path.chmod(0o644)
    with module.open_log(str(path)) as stream:
        stream.write("after\n")
    assert path.read_text() == "before\nafter\n"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "nowhere", "device"])
def test_a_log_file_that_is_none_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    if kind == "link":
        (tmp_path / "elsewhere").write_text("")
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "nowhere":
        path = tmp_path / "no" / "log"
    else:
        path = Path(os.devnull)
    with pytest.raises(OSError):  # noqa: PT011  whatever the system calls it
        module.open_log(str(path))


UNFORESEEN = [
    (module.ArtifactsError("Do this."), "Do this."),
    (
        ModuleNotFoundError("", name="urllib3"),
        f"urllib3 is missing: run '{sys.executable} -m pip install urllib3'.",
    ),
    (
        ModuleNotFoundError("", name="other"),
        "an error of its own (ModuleNotFoundError): please report it, with this output.",
    ),
    (KeyError("pass-word"), "an error of its own (KeyError): please report it, with this output."),
]


@pytest.mark.parametrize(("error", "text"), UNFORESEEN, ids=[text for _, text in UNFORESEEN])
def test_what_is_said_of_an_error(error: Exception, text: str) -> None:
    assert module.said_of(error) == text


@pytest.mark.skipif(os.name == "nt", reason="a program's names and folder are others there")
@pytest.mark.parametrize(
    ("there", "pip"), [("python pip keyring", True), ("python keyring", False), ("keyring", False)]
)
def test_the_python_beside_a_program(tmp_path: Path, there: str, pip: bool) -> None:
    (tmp_path / "bin").mkdir()
    for name in there.split():
        (tmp_path / "bin" / name).touch()
    (tmp_path / "keyring").symlink_to(tmp_path / "bin" / "keyring")
    expected = str((tmp_path / "bin" / "python").resolve()) if "python" in there else None
    assert module.python(str(tmp_path / "keyring")) == (expected, pip)
    assert module.python("/usr/bin/keyring")[0] is None


# --- doctor -----------------------------------------------------------------------------------

PIPX = "pipx inject --include-apps keyring keyrings.artifacts"
MENDS = [
    ("x: Entra wants a new sign-in (AADSTS1): run 'az login --tenant t'.", "az login --tenant t"),
    ("Nobody is there. Run 'keyring get https://x' in a terminal.", "keyring get https://x"),
    ("X is set but empty: set it to a token, or unset it.", "set it to a token, or unset it"),
    ("Try again.", "Try again"),
]


@pytest.mark.parametrize(("sentence", "mend"), MENDS, ids=[mend for _, mend in MENDS])
def test_a_sentence_tells_its_mend(sentence: str, mend: str) -> None:
    assert module.mend_in(sentence) == mend


PIP_LISTING = """\
:env:.no-input='1'
global.extra-index-url='\\nhttps://b\\nhttps://c'
global.index-url='https://me:pass-word@a'
global.keyring-provider='disabled'
install.index-url="https://d"
"""
PIP_CLIENTS = {
    "nothing": ("", ("", "", [])),
    "files": (PIP_LISTING, ("disabled", "global.keyring-provider", ["https://d", "https://b", "https://c"])),
    "install": ("install.keyring-provider='import'\r\n", ("import", "install.keyring-provider", [])),
    "variable": (
        PIP_LISTING + ":env:.keyring-provider='Subprocess'",
        ("subprocess", "PIP_KEYRING_PROVIDER", ["https://d", "https://b", "https://c"]),
    ),
    "no input": (":env:.keyring-provider='auto'\nglobal.no-input='true'", ("", "global.no-input", [])),
    "a file of its own": (
        ":env:.config-file='f'\nglobal.keyring-provider='disabled'",
        ("disabled", "global.keyring-provider; PIP_CONFIG_FILE is set", []),
    ),
}


@pytest.mark.parametrize(("listing", "expected"), PIP_CLIENTS.values(), ids=PIP_CLIENTS)
def test_what_pip_is_told(listing: str, expected: tuple[str, str, list[str]]) -> None:
    provider, by, indexes = module.read_pip(listing)
    assert (provider, by, [url for url, _ in indexes]) == expected


def test_without_a_pip_its_variables_tell() -> None:
    environ = {"PIP_KEYRING_PROVIDER": "import", "PIP_INDEX_URL": "https://a", "OTHER": "x"}
    expected = ("import", "PIP_KEYRING_PROVIDER", [("https://a", True)])
    no_pip = make_world(environ=environ, run=lambda *_: module.Completed(1, "", "No module named pip"))
    assert module.pip_settings(no_pip) == expected
    slow = make_world(environ=environ, which=lambda name: "/bin/pip", run=raising(TimeoutError()))
    assert module.pip_settings(slow) == expected
    fails = make_world(which=lambda name: "/bin/pip", run=lambda *_: module.Completed(1, "", ""))
    with pytest.raises(module.ArtifactsError, match="run 'pip config list' to see why"):
        module.pip_settings(fails)


def test_of_pips_files_the_strongest_counts() -> None:
    def run(command: list[str], seconds: float) -> module.Completed:
        if command[1:] == ["config", "get", "global.keyring-provider"]:
            return module.Completed(0, "disabled\n", "")
        assert command[1:] == ["config", "list"]
        return module.Completed(
            0, f"global.keyring-provider='import'\n{PIP_LISTING}global.keyring-provider='subprocess'\n", ""
        )

    found = module.pip_settings(make_world(which=lambda name: name, run=run))
    assert found[:2] == ("disabled", "global.keyring-provider")


@pytest.mark.parametrize("there", ["pip", "pip3", ""])
def test_pip_is_asked_by_whatever_name_it_has(there: str) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], seconds: float) -> module.Completed:
        asked.append(command)
        return module.Completed(0, PIP_LISTING, "")

    found = module.pip_settings(make_world(which=lambda name: name if name == there else None, run=run))
    assert found[:2] == ("disabled", "global.keyring-provider")
    assert asked == [[*([there] if there else [sys.executable, "-m", "pip"]), "config", "list"]]


UV_ENTRY: dict[str, Any] = {"name": "my-feed", "url": FEED}
UV_TABLE: dict[str, Any] = {"keyring-provider": "subprocess", "index": [UV_ENTRY]}
UV_CLIENTS: dict[str, tuple[dict[str, str], list[tuple[str, dict[str, Any]]], tuple[Any, ...]]] = {
    "nothing": ({}, [], ("", "", [])),
    "uv.toml": ({}, [("uv.toml", UV_TABLE)], ("subprocess", "uv.toml", [(FEED, False)])),
    "pyproject.toml": (
        {},
        [("a/pyproject.toml", {"tool": {"uv": UV_TABLE}})],
        ("subprocess", "a/pyproject.toml", [(FEED, False)]),
    ),
    "uv pip": (
        {},
        [("uv.toml", {"pip": {"keyring-provider": "subprocess", "extra-index-url": [FEED]}})],
        ("subprocess", "uv.toml", [(FEED, False)]),
    ),
    "never": (
        {},
        [("uv.toml", {"index": [{"url": "https://me@a", "authenticate": "never"}]})],
        ("", "", [("https://me@a", False)]),
    ),
    "always": (
        {},
        [("uv.toml", {"index": [{"url": FEED, "authenticate": "always"}]})],
        ("", "", [(FEED, True)]),
    ),
    "named by a variable": (
        {"UV_INDEX_MY_FEED_USERNAME": "me"},
        [("uv.toml", UV_TABLE)],
        ("subprocess", "uv.toml", [(FEED, True)]),
    ),
    "variables": (
        {"UV_KEYRING_PROVIDER": "disabled", "UV_INDEX": f"x={FEED} {OTHER}", "UV_INDEX_URL": "https://me@a"},
        [("uv.toml", {"keyring-provider": "subprocess", "extra-index-url": ["https://b"]})],
        (
            "disabled",
            "UV_KEYRING_PROVIDER",
            [("https://b", False), (FEED, False), (OTHER, False), ("https://me@a", True)],
        ),
    ),
}


@pytest.mark.parametrize(("environ", "files", "expected"), UV_CLIENTS.values(), ids=UV_CLIENTS)
def test_what_uv_is_told(
    environ: dict[str, str], files: list[tuple[str, dict[str, Any]]], expected: tuple[Any, ...]
) -> None:
    provider, by, indexes = module.read_uv(environ, files)
    assert (provider, by, [each for each in indexes if each[0]]) == expected


@pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python reads no TOML")
def test_a_file_that_uv_cannot_read_is_told() -> None:
    with pytest.raises(module.ArtifactsError, match=r"^uv cannot read f: mend that file\.$"):
        module.uv_settings(make_world(settings=lambda program: [("f", "keyring-provider = ")]))


ASKS, SILENT = (FEED.replace("//", "//me@"), True), (FEED, False)
PIP_SWITCH, UV_SWITCH = (f"set {each}_KEYRING_PROVIDER to subprocess" for each in ("PIP", "UV"))
JUDGED: list[tuple[str, str, str, list[tuple[str, bool]], str, str]] = [
    ("pip", "disabled", "PIP_KEYRING_PROVIDER", [], "wrong", PIP_SWITCH),
    (
        *("pip", "disabled", "install.keyring-provider", []),
        *("wrong", "pip config set install.keyring-provider subprocess"),
    ),
    ("pip", "import", "global.keyring-provider", [ASKS], "ok", ""),
    ("pip", "subprocess", "PIP_KEYRING_PROVIDER", [ASKS], "ok", ""),
    ("pip", "disabled", "global.keyring-provider; PIP_CONFIG_FILE is set", [], "wrong", PIP_SWITCH),
    ("pip", "", "", [ASKS], "note", PIP_SWITCH),
    ("pip", "", "PIP_NO_INPUT", [], "note", PIP_SWITCH),
    ("pip", "", "PIP_NO_INPUT", [ASKS], "wrong", PIP_SWITCH),
    ("uv", "", "", [], "note", UV_SWITCH),
    ("uv", "", "", [ASKS], "wrong", UV_SWITCH),
    ("uv", "disabled", "uv.toml", [], "wrong", UV_SWITCH),
    ("uv", "subprocess", "uv.toml", [], "ok", ""),
    ("uv", "subprocess", "uv.toml", [ASKS], "ok", ""),
    (
        *("uv", "subprocess", "uv.toml", [ASKS, SILENT], "wrong"),
        f"write {FEED.replace('//', '//VssSessionToken@')} in uv's URL, "
        'or authenticate = "always" in its index',
    ),
]


@pytest.mark.parametrize(("name", "provider", "by", "ours", "state", "mend"), JUDGED)
def test_whether_pip_and_uv_ask(
    name: str, provider: str, by: str, ours: list[tuple[str, bool]], state: str, mend: str
) -> None:
    topic, found, text, mended = module.judge_client(name, provider, by, ours)
    assert (topic, found, mended) == (name, state, mend)
    assert mend.startswith("write") or by in text


PIN_FILE = "[backend]\ndefault-keyring = a.B\n"
PINS: dict[str, tuple[dict[str, str], str, tuple[str, str]]] = {
    "none": ({}, "[other]\nx = y\n", ("", "")),
    "no option": ({}, "[backend]\n", ("", "")),
    "file": ({}, PIN_FILE, ("a.B", "f")),
    "variable": ({"PYTHON_KEYRING_BACKEND": ""}, PIN_FILE, ("", "PYTHON_KEYRING_BACKEND")),
}


@pytest.mark.parametrize(("environ", "text", "pin"), PINS.values(), ids=PINS)
def test_which_backend_is_pinned(environ: dict[str, str], text: str, pin: tuple[str, str]) -> None:
    world = make_world(environ=environ, settings=lambda program: [("f", text)])
    assert module.read_pin(world) == pin


LISTED = module.Completed(0, f"x (priority: 1)\n{module.OURS} (priority: 9.95)\n", "")
UNLISTED = module.Completed(0, "x (priority: 1)\n", "")
PROBES: dict[str, tuple[Any, str, str]] = {
    "has it": (lambda *_: LISTED, "", ""),
    "has it not": (lambda *_: UNLISTED, "", "does not have this backend"),
    "fails": (lambda *_: module.Completed(1, "", "Traceback"), "", "fails when asked for its backends"),
    "hangs": (raising(TimeoutError()), "", "does not answer within 15 seconds"),
    "does not start": (raising(OSError(8, "Exec format error")), "", "does not start (Exec format error)"),
    "pinned": (lambda *_: UNLISTED, module.OURS, ""),
    "pinned in vain": (
        lambda command, _: UNLISTED._replace(stderr="Traceback" if "get" in command else ""),
        module.OURS,
        "cannot load this backend",
    ),
}


@pytest.mark.parametrize(("run", "pin", "lack"), PROBES.values(), ids=PROBES)
def test_what_a_keyring_program_lacks(run: Any, pin: str, lack: str) -> None:
    assert module.lack("/bin/keyring", pin, make_world(run=run)) == lack


@pytest.mark.parametrize(
    ("programs", "needed", "states"),
    [
        ("", True, "wrong ok"),
        ("", False, "note ok"),
        ("xy", False, "ok note ok"),
        ("yx", False, "wrong ok ok"),
    ],
)
def test_the_first_keyring_program_counts(programs: str, needed: bool, states: str) -> None:
    world = make_world(
        programs=lambda name: list(programs),
        run=lambda command, _: LISTED if command[0] == "x" else UNLISTED,
        python=lambda path: (None, False),
        settings=lambda program: [],
    )
    found = list(module.examine_keyring(needed, world))
    assert [state for _, state, _, _ in found] == states.split()
    assert all(mend for _, state, _, mend in found if state == "wrong")


@pytest.mark.parametrize(
    ("python", "pip", "command"),
    [
        (None, False, module.INSTALL),
        ("/data/uv/tools/keyring/bin/python", False, module.INSTALL),
        (r"C:\Users\me\pipx\venvs\keyring\Scripts\python.exe", False, PIPX),
        ("/data/pipx/venvs/keyring/bin/python", False, PIPX),
        ("/pipx/uv/bin/python", True, "/pipx/uv/bin/python -m pip install keyrings.artifacts"),
        (
            "/project/.venv/bin/python",
            False,
            "uv pip install --python /project/.venv/bin/python keyrings.artifacts",
        ),
        ("/my work/bin/python", True, '"/my work/bin/python" -m pip install keyrings.artifacts'),
    ],
)
def test_what_puts_the_backend_beside_a_keyring_program(python: str | None, pip: bool, command: str) -> None:
    assert module.install_beside(python, pip) == command


@pytest.mark.parametrize(
    ("date", "state"),
    [
        ("Fri, 15 Jan 2027 08:00:00 GMT", "ok"),
        ("Fri, 15 Jan 2027 08:05:01 GMT", "wrong"),
        ("Fri, 15 Jan 2027 07:54:00 GMT", "wrong"),
        ("", ""),
        ("yesterday", ""),
        ("Fri, 99 Jan 2027 08:00:00 GMT", ""),
    ],
)
def test_the_clock_is_held_against_the_feeds(date: str, state: str) -> None:
    assert "".join(state for _, state, *_ in module.judge_clock(date, NOW)) == state


def test_a_clock_is_told_as_exactly_as_an_answer_can_tell() -> None:
    [(*_, text, _)] = module.judge_clock("Fri, 15 Jan 2027 08:00:02 GMT", NOW + 2 * 86_400)
    assert text == "2 days, 0:00:00 ahead of the feed's"


TRUSTS: list[tuple[dict[str, str], bool, str]] = [
    ({}, False, "OpenSSL's certificates"),
    ({"PIP_CERT": "/c"}, True, "the system's certificates, PIP_CERT (/c)"),
]


@pytest.mark.parametrize(("environ", "truststore", "text"), TRUSTS)
def test_whose_certificates_are_trusted(environ: dict[str, str], truststore: bool, text: str) -> None:
    assert module.judge_trust(environ, truststore) == ("trust", "ok", text, "")


DESCRIBED: dict[str, tuple[dict[str, Any], str]] = {
    "session": (
        {"kind": "session", "checked": NOW, "expires": NOW + 83_400, "account": "ada", "scope": "s"},
        "session token, account ada, scope s, 23:10:00 left",
    ),
    "set": (
        {"kind": "set", "checked": 0, "expires": None, "account": "", "scope": ""},
        "PAT of your own, account not known, scope not known, no end known",
    ),
    "entra": (
        {"kind": "entra", "checked": NOW - 3700, "expires": NOW - 60, "account": "a", "scope": ""},
        "Entra token, account a, scope all that the account may do, expired 0:01:00 ago",
    ),
}


@pytest.mark.parametrize(("session", "text"), DESCRIBED.values(), ids=DESCRIBED)
def test_a_session_in_words(session: dict[str, Any], text: str) -> None:
    assert module.describe(a_session(**session), NOW) == text


ANSWERS: list[tuple[int, str, str, str]] = [
    (200, "x", "ok", ""),
    (303, "x", "ok", ""),
    (405, "x", "ok", ""),
    (203, "AZURE_DEVOPS_EXT_PAT", "wrong", "or unset AZURE_DEVOPS_EXT_PAT"),
    (302, module.KEPT, "wrong", f"keyring del {FEED} VssSessionToken"),
    (
        401,
        "azure_cli",
        "wrong",
        "check the name 'contoso' in the URL, or ask the organization's administrator",
    ),
    (403, "x", "wrong", "ask an owner of the feed to make ada a reader"),
    (404, "x", "wrong", "check the names of organization, project and feed"),
    (400, "x", "wrong", "try again in a few minutes"),
]


@pytest.mark.parametrize(("status", "origin", "state", "mend"), ANSWERS)
def test_what_a_feeds_answer_means(status: int, origin: str, state: str, mend: str) -> None:
    topic, found, _, mended = module.judge_answer(parsed(), response(status), origin, "ada")
    assert (topic, found) == ("feed", state)
    assert mend in mended


FINDINGS = [
    ("version", "ok", "2.0.0", ""),
    ("uv", "note", "not used", "use it"),
    ("feed", "wrong", "refuses\x1b[2J it", "mend it"),
]
PLAIN = f"""\
ok     {"version":19}  2.0.0
-      {"uv":19}  not used
{"":26}  mend: use it
WRONG  {"feed":19}  refuses [2J it
{"":26}  mend: mend it

Next: mend it
"""


def test_findings_are_rendered() -> None:
    assert module.render(FINDINGS, False) == PLAIN
    coloured = module.render(FINDINGS, True)
    assert coloured.startswith("\033[32mok   \033[0m  version")
    assert re.sub(r"\033\[[\d;]*m", "", coloured) == PLAIN
    report = module.report(FINDINGS)
    assert report["findings"][1] == {"topic": "uv", "state": "note", "text": "not used", "mend": "use it"}
    assert {key: report[key] for key in ("version", "ok", "next")} == {
        "version": module.__version__,
        "ok": False,
        "next": "mend it",
    }


def test_every_source_and_given_credential_has_its_words() -> None:
    assert list(module.ABSENT) == [each.__name__ for each in module.SOURCES]
    assert list(module.GIVEN_BY) == [each.__name__ for each in module.GIVEN]


SOURCE_ROWS: dict[str, tuple[dict[str, object], str, dict[str, str], dict[str, tuple[str, str]]]] = {
    "a tool": (
        {"service_principal": None, "azure_cli": "a token"},
        "azure_cli",
        {},
        {
            "service_principal": ("note", module.ABSENT["service_principal"]),
            "azure_cli": ("ok", "gave the credential"),
            "browser": ("note", "not needed: azure_cli"),
        },
    ),
    "a variable": (
        {"from_pat": "an answer"},
        "AZURE_DEVOPS_EXT_PAT",
        {},
        {"azure_cli": ("note", "not needed: AZURE_DEVOPS_EXT_PAT")},
    ),
    "chosen": (
        {"browser": None},
        "",
        {"KEYRINGS_ARTIFACTS_SOURCES": "browser", "CI": "1"},
        {"browser": ("note", "CI is set"), "azure_cli": ("note", "left out by KEYRINGS_ARTIFACTS_SOURCES")},
    ),
    "failures": (
        {
            "azure_cli": module.ArtifactsError("azure_cli: no."),
            "refresh_token": module.ArtifactsError("over."),
        },
        "",
        {},
        {
            "azure_cli": ("wrong", "no."),
            "refresh_token": ("wrong", "over."),
            "service_principal": ("note", "not asked"),
            "browser": ("note", "not asked"),
        },
    ),
    "a failure that does not matter": (
        {"azure_cli": module.ArtifactsError("azure_cli: no."), "azure_powershell": "a token"},
        "azure_powershell",
        {},
        {"azure_cli": ("note", "no.")},
    ),
}


@pytest.mark.parametrize(("outcomes", "origin", "environ", "expected"), SOURCE_ROWS.values(), ids=SOURCE_ROWS)
def test_each_source_has_its_reason(
    outcomes: dict[str, object], origin: str, environ: dict[str, str], expected: dict[str, tuple[str, str]]
) -> None:
    found = list(module.judge_sources(a_challenge(), outcomes, origin, make_world(environ=environ)))
    assert [topic for topic, *_ in found] == [each.__name__ for each in module.SOURCES]
    assert {topic: (state, text) for topic, state, text, _ in found if topic in expected} == expected
    assert all(mend for _, state, _, mend in found if state == "wrong")


def test_the_doctor_goes_on_where_a_check_falls_over() -> None:
    """In this world nothing works but the store, which is not asked for more than its name."""
    found = list(module.diagnose(FEED, make_world(which=unexpected)))
    own = "an error of its own (AssertionError): please report it, with this output."
    topics = ["pip settings", "uv settings", "keyring settings", "feed"]
    assert [topic for topic, _, text, _ in found if text == own] == [
        each for each in topics if each != "uv settings" or sys.version_info >= (3, 11)
    ]
    assert {"version", "address"} < {topic for topic, *_ in found}
    assert module.report(found)["next"] == "please report it, with this output"


# --- effects ----------------------------------------------------------------------------------


def test_a_draft_that_somebody_laid_out_is_not_written_to(tmp_path: Path) -> None:
    files, elsewhere = module.Files(tmp_path / "folder"), tmp_path / "elsewhere"
    files.set("session/contoso", "old")
    draft = files.folder / f".{os.getpid()}-{threading.get_ident()}"
    draft.symlink_to(elsewhere)
    with pytest.raises(FileExistsError):
        files.set("session/contoso", "new")
    assert not elsewhere.exists()
    elsewhere.write_text("theirs")
    draft.unlink(missing_ok=True)
    os.link(elsewhere, draft)
    with pytest.raises(FileExistsError):
        files.set("session/contoso", "new")
    assert (elsewhere.read_text(), files.get("session/contoso")) == ("theirs", "old")
    files.set("session/contoso", "new")
    assert [path.name for path in files.folder.iterdir()] == ["session-contoso.json"]


def test_a_draft_that_fails_is_not_left(tmp_path: Path) -> None:
    files = module.Files(tmp_path / "folder")
    (files.folder / "session-contoso.json" / "x").mkdir(parents=True)  # nothing takes its place
    with pytest.raises(OSError, match="irectory"):
        files.set("session/contoso", "text")
    assert [path.name for path in files.folder.iterdir()] == ["session-contoso.json"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    module.open_lock("session/contoso").close()
    (lock,) = tmp_path.rglob("session-contoso.lock")
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        module.open_lock("session/contoso")
    assert not (tmp_path / "elsewhere").exists()
    with module.lock("session/contoso", 1, True) as turn:  # goes on without
        assert turn.stream is None


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert module.within(5, module.read_file, tmp_path / "pipe") == b""
    assert module.within(5, module.read_file, tmp_path / "pipe", True) == b""


def test_a_program_is_run_in_a_folder_that_stays_and_without_colours() -> None:
    done = module.run(["/bin/sh", "-c", 'pwd; echo "$AZURE_CORE_NO_COLOR $NO_COLOR"; cat'], 20)
    assert done == module.Completed(0, "/\ntrue 1\n", "")


def test_the_output_of_a_program_is_read_to_its_end_and_kept_in_part() -> None:
    script = f"import sys; print('x' * {3 * module.MAX_BODY}); print('y', file=sys.stderr)"
    done = module.run([sys.executable, "-c", script], 30)
    assert (done.returncode, len(done.stdout), done.stderr) == (0, module.MAX_BODY, "y\n")


@pytest.mark.parametrize(("beyond", "taken"), [(0, True), (1, False), (1 << 20, False)])
def test_an_answer_is_read_up_to_a_limit(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, beyond: int, taken: bool
) -> None:
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)
    size = module.MAX_BODY + beyond
    machine.services.faults.append(fault(Reply(200, [], b"x" * size), 9))
    request = module.Request("GET", "https://login.microsoftonline.com/x", {})
    if taken:
        assert len(module.send(request, 10).body) == size
    else:
        with pytest.raises(module.NetworkError, match="answered with far more than a token"):
            module.send(request, 10)


def test_a_refusal_of_any_length_stays_one(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in machine.environ.items():
        monkeypatch.setenv(name, value)
    machine.services.faults.append(fault(Reply(401, [], b"x" * (2 * module.MAX_BODY)), 9))
    request = module.Request("GET", "https://login.microsoftonline.com/x", {}, body_limit=0, why=True)
    assert module.send(request, 10).status == 401


@contextlib.contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """An address of this machine where whoever asks gets these bytes, and is hung up on."""

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"token": ',
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n{"token": ',
    ],
    ids=["nothing", "status line", "no headers", "half the headers", "half a body", "half a chunk"],
)
def test_an_answer_that_is_cut_off_is_a_drop(answer: bytes) -> None:
    with saying(answer) as url, pytest.raises(module.NetworkError, match="could not be reached") as caught:
        module.send(module.Request("GET", url, {}, direct=True), 10)
    assert caught.value.passing


def test_a_body_that_nobody_wants_may_be_cut_off() -> None:
    with saying(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 20\r\n\r\n") as url:
        request = module.Request("GET", url, {}, body_limit=0, direct=True)
        assert module.send(request, 10).status == 401


def test_an_answer_that_says_nothing_more_may_have_no_headers() -> None:
    with saying(b"HTTP/1.1 204 No Content\r\n\r\n") as url:
        assert module.send(module.Request("DELETE", url, {}, direct=True), 10).status == 204


# The port to which a browser brings the answer.


def say(port: int, text: str) -> bytes:
    """Send that to a port of this machine, and return what it answers within five seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(text.encode())
        answer = b""
        while part := connection.recv(4096):
            answer += part
    return answer


def test_a_form_that_does_not_end_is_answered() -> None:
    with module.Listener("S") as listener:
        head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n"
        assert say(listener.port, head + "x" * module.MAX_TOKEN).startswith(b"HTTP/1.0 400 ")
        for length, status in (("1e9", b"400"), ("-5", b"200"), ("nan", b"200"), ("x", b"200")):  # no form
            head = f"POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n"
            form = "x" * module.MAX_TOKEN if status == b"400" else ""
            assert say(listener.port, head + form).split(b" ")[1] == status
        assert listener.wait(0) is None


def test_a_browser_that_leaves_at_once_has_brought_the_answer() -> None:
    with module.Listener("S") as listener:
        for code in "abc":
            form = f"code={code}&state=S"
            with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as browser:
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                browser.sendall(f"POST / HTTP/1.1\r\nContent-Length: {len(form)}\r\n\r\n{form}".encode())
                time.sleep(0.1)  # what was sent is read; a reset takes the rest
            assert listener.wait(5) == {"code": code, "state": "S"}


def test_who_says_nothing_is_hung_up_on() -> None:
    """After ten seconds, of which this waits for one."""
    with module.Listener("S") as listener:
        door: Any = listener._server.RequestHandlerClass
        assert door.timeout == 10
        door.timeout = 1
        assert say(listener.port, "GET / HT") == b""


def test_the_last_page_is_waited_for() -> None:
    """A browser follows the redirect a moment after the answer has come."""
    pages: list[bytes] = []

    def browse(port: int) -> None:
        pages.append(say(port, "GET /?code=c&state=S HTTP/1.1\r\n\r\n"))
        time.sleep(0.7)
        pages.append(say(port, "GET /done HTTP/1.1\r\n\r\n"))

    with module.Listener("S") as listener:
        person = threading.Thread(target=browse, args=(listener.port,))
        person.start()
        assert listener.wait(5) == {"code": "c", "state": "S"}
        listener.finish()
    person.join()
    assert [page.split(b" ", 2)[1] for page in pages] == [b"303", b"200"]
    assert b"close this page" in pages[1]


# --- outside data -----------------------------------------------------------------------------

# Of what any service may answer: the names that are read, and values of all kinds for them.
READ_NAMES = [
    "access_token",
    "refresh_token",
    "id_token",
    "token",
    "patToken",
    "patTokenError",
    "validTo",
    "authorizationId",
    "message",
    "error",
    "error_description",
    "expires_in",
    "expires_on",
    "expiresOn",
    "device_code",
    "user_code",
    "verification_uri",
    "verification_url",
    "interval",
    "client_id",
    "value",
    "oidcToken",
    "kind",
    "checked",
    "expires",
]
PLAUSIBLE = st.sampled_from(
    [
        "t" * 40,
        jwt({"upn": "\x1b[2J\nada", "exp": "soon", "scp": []}),
        jwt({"exp": 1e308, "idtyp": {}, "preferred_username": ["x"]}),
        "2027-01-15T09:00:00.1234567Z",
        "0000-99-99T99:99:99Z",
        "9999-12-31T23:59:59-99:99",
        "99/99/9999 99:99:99 PM +00:00",
        "https://microsoft.com/devicelogin",
        "https://microsoft.com@evil.example/",
        "TF401444 AADSTS700082",
        "1e999",
        "nan",
        "-1",
        "expired_token",
        "invalid_grant",
    ]
)
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | PLAUSIBLE
ANYTHING = st.recursive(LEAF, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=5)
HEADER_NAMES = ("www-authenticate", "retry-after", "x-tfs-serviceerror", "x-vss-e2eid")
OBJECT = st.dictionaries(st.sampled_from(READ_NAMES), ANYTHING).map(lambda value: json.dumps(value).encode())
ANSWER = st.builds(
    module.Response,
    st.sampled_from([200, 200, 200, 204, 302, 400, 401, 403, 404, 500]) | st.integers(100, 599),
    st.lists(st.tuples(st.sampled_from(HEADER_NAMES), st.text() | PLAUSIBLE), max_size=3).map(tuple),
    OBJECT | st.binary(),
)


def answering(answer: module.Response) -> module.World:
    """A world in which every request is answered like that."""
    return make_world(send=lambda *_: answer, sleep=lambda seconds: None, environ={"AZURE_TENANT_ID": TENANT})


def read_bearer(found: module.Bearer) -> None:
    assert module.is_token(found.token)
    assert abs(found.expires) < 1e13
    assert found.account.isprintable()


def read_a_sign_in(answer: module.Response) -> None:
    world = answering(answer)
    read_bearer(module.signed_in("browser", a_challenge(), answer, world))
    for text in world.store.entries.values():  # type: ignore[attr-defined]  # of Kept
        assert module.is_token(json.loads(text)["refresh_token"])


def read_an_identity(answer: module.Response) -> None:
    for version in (module.ARC_VERSION, "2018-02-01"):
        request = module.local_get("http://127.0.0.1:9/token", version, {})
        read_bearer(module.identity_answer("managed_identity", request, answering(answer)))


def read_an_application(answer: module.Response) -> None:
    read_bearer(module.application("service_principal", answering(answer), a_challenge(), "robot"))


def read_an_issuer(answer: module.Response) -> None:
    request = module.Request("GET", "https://issuer.example/", {})
    assert module.is_token(module.issued("GitHub", "value", request, answering(answer)))


def read_a_pat(answer: module.Response) -> None:
    session = module.mint("pat", a_challenge(), ADA, module.Settings(), answering(answer))
    assert module.read_session(module.write_session(session)) == session
    assert re.fullmatch(r"[0-9a-f-]*", session.pat_id, re.IGNORECASE)


def read_a_device(answer: module.Response) -> None:
    found = module.read_device(a_challenge(), f"{ENTRA}/oauth2/v2.0/devicecode", answer)
    _, user_code, page, lives, interval = found
    assert urllib3.util.parse_url(page).host in module.DEVICE_HOSTS
    assert user_code.isprintable()
    assert 1 <= interval <= 60
    assert 0 < lives < 1e12


def read_a_pause(answer: module.Response) -> None:
    assert 0 <= module.retry_pause(2, answer, 0.5, NOW) <= module.MAX_RETRY_AFTER


READERS: dict[str, Callable[[module.Response], None]] = {
    each.__name__: each
    for each in (
        read_a_sign_in,
        read_an_identity,
        read_an_application,
        read_an_issuer,
        read_a_pat,
        read_a_device,
        read_a_pause,
    )
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@given(ANSWER)
def test_no_answer_is_misread(read: Callable[[module.Response], None], answer: module.Response) -> None:
    """It is what it should be, or the declared error, whose text a person can read."""
    said = ""
    try:
        read(answer)
    except module.ArtifactsError as error:
        said = str(error)
    assert all(line.isprintable() for line in said.split("\n"))


ADDRESS = st.text() | st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["https://", "http://", "//", ""]),
    st.sampled_from(["", "me@", "evil.example/", "evil.example#", "evil.example\\", "."])
    | st.text(max_size=4),
    st.sampled_from(
        ["login.microsoftonline.com", "microsoft.com", "localhost", "127.0.0.1", "dev.azure.com"]
    ),
    st.sampled_from(["", ":443", ":8443", ".", "@evil.example", ".evil.example", "\\@evil.example", "%2e"])
    | st.text(max_size=4),
)


@given(ADDRESS, st.sampled_from(["", "/devicelogin", f"/{TENANT}", f"/{TENANT}/oauth2/authorize", "/../x"]))
def test_no_address_is_taken_for_another(start: str, path: str) -> None:
    """What is trusted is what connections are opened to, as the parser that opens them has it."""
    address = start + path
    with contextlib.suppress(module.ArtifactsError):
        host, tenant = module.sign_in_address(parsed(), address)
        assert urllib3.util.parse_url(address).host == host in module.SIGN_IN_HOSTS
        assert re.fullmatch(r"[\w.-]+", tenant, re.ASCII)
    with contextlib.suppress(module.ArtifactsError):
        body = {"device_code": "d" * 40, "user_code": "A", "verification_uri": address}
        _, _, page, *_ = module.read_device(a_challenge(), ENTRA, response(200, body))
        assert urllib3.util.parse_url(page).host in module.DEVICE_HOSTS
    for variable in ("AZURE_AUTHORITY_HOST", "ARTIFACTS_CREDENTIALPROVIDER_MSAL_AUTHORITY"):
        environ = {variable: address, "AZURE_TENANT_ID": TENANT}
        for read in (module.application_authority, lambda told, them: module.authority(them, told)):
            with contextlib.suppress(module.ArtifactsError):
                base = urllib3.util.parse_url(read(environ, a_challenge()))
                assert (base.scheme, base.auth, base.query, base.fragment) == ("https", None, None, None)


NUMBERS = ["AZURE_DEVOPS_PAT_DURATION", "ARTIFACTS_CREDENTIALPROVIDER_SESSIONTIMEMINUTES"]
CHOICES = [
    "AZURE_DEVOPS_PAT_SCOPE",
    "KEYRINGS_ARTIFACTS_TOKEN_TYPE",
    "NUGET_CREDENTIALPROVIDER_VSTS_TOKENTYPE",
]
PLATFORM = (
    "IDENTITY_ENDPOINT IDENTITY_HEADER IDENTITY_SERVER_THUMBPRINT MSI_ENDPOINT MSI_SECRET IMDS_ENDPOINT"
)
VALUE = st.text() | st.sampled_from(
    ["1", "0", "-1", "1e999", "nan", "pat", "1_0", "\u0664", "true", "a;b", ";"]
)


@given(st.dictionaries(st.sampled_from(NUMBERS + CHOICES), VALUE))
def test_no_variable_is_misread(environ: dict[str, str]) -> None:
    with contextlib.suppress(module.ArtifactsError):
        found = module.parse_settings(environ)
        assert 0 <= found.pat_days <= module.MAX_PAT_DAYS
        assert 0 < found.session_days <= module.SESSION_DAYS
        assert found.token_type in ("", *module.LADDER)
        assert re.fullmatch(r"[\w. ]+", found.scope, re.ASCII)


@given(VALUE | ADDRESS)
def test_no_text_of_the_environment_raises_anything_else(text: str) -> None:
    servers = module.parse_servers({"KEYRINGS_ARTIFACTS_HOSTS": text})
    assert all(host and host == host.lower() for host in servers)
    assert module.collection_organization(text) is None or text
    assert module.comparable(text) == module.comparable(text).lower()
    command = module.browser_command({"BROWSER": text}, "linux", True, str) or []
    assert all(isinstance(word, str) for word in command)
    for read, name in (
        (module.chosen_sources, "KEYRINGS_ARTIFACTS_SOURCES"),
        (module.identity, "KEYRINGS_ARTIFACTS_SOURCES"),
        (module.sign_in_seconds, "ARTIFACTS_CREDENTIALPROVIDER_DEVICEFLOWTIMEOUTSECONDS"),
    ):
        with contextlib.suppress(module.ArtifactsError):
            assert read({name: text}) is not None


@given(st.dictionaries(st.sampled_from(PLATFORM.split()), VALUE | ADDRESS), st.booleans())
def test_no_platform_leads_beyond_this_machine(environ: dict[str, str], arc: bool) -> None:
    """Whatever its variables hold, who is asked is this machine, or has a certificate."""
    asked_for: list[str] = []

    def send(request: module.Request, seconds: float) -> module.Response:
        asked_for.append(request.url)
        return response(404)

    with contextlib.suppress(module.ArtifactsError):
        request = module.identity_request(environ, "robot", arc)
        if request is not None:
            module.identity_answer("managed_identity", request, make_world(send=send))
    for url in asked_for:
        with contextlib.suppress(urllib3.exceptions.LocationParseError):  # nobody is connected to
            parts = urllib3.util.parse_url(url)
            here = re.fullmatch(r"localhost|127\.[\d.]+|169\.254\.[\d.]+|\[::1\]", parts.host or "")
            assert parts.scheme == "https" or (here and parts.auth is None), url


@given(st.dictionaries(st.sampled_from(READ_NAMES), ANYTHING))
def test_no_stored_entry_is_misread(entry: dict[str, object]) -> None:
    for kind in (entry.get("kind"), "set", "session"):
        found = module.read_session(json.dumps({**entry, "kind": kind}))
        if found is not None:
            assert module.is_token(found.token)
            assert (found.account + found.tenant + found.pat_id + found.scope).isprintable()
            module.usable(found, module.Settings(), NOW)
            module.file_may_keep(found, NOW)


# --- end to end -------------------------------------------------------------------------------

BIN = Path(sys.executable).parent


STAND_INS = "the machine among the stand-ins is a Linux without a keyring: shell scripts, a terminal, D-Bus"


def needs_stand_ins() -> None:
    if sys.platform != "linux":
        pytest.skip(STAND_INS)
    if os.environ.get("STAND_INS") == "no":
        pytest.skip("STAND_INS=no")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    needs_stand_ins()
    folder = tmp_path / "services"
    folder.mkdir()
    with Services(folder) as running:
        yield running


def at_least(package: str, version: int) -> bool:
    return int(importlib.metadata.version(package).split(".")[0]) >= version


def needs_a_newer_program() -> None:
    """Skip where keyring's own program is one that asks a question to delete, and knows no --mode."""
    if not at_least("keyring", 25):
        pytest.skip("the program of keyring before 25 reads set and del from a terminal, and has no --mode")


@dataclasses.dataclass
class Machine:
    """A person's machine among the stand-in services: an environment, and what is run in it."""

    services: Services
    home: Path
    environ: dict[str, str]
    folder: Path  # programs of this machine alone, first on PATH
    said: list[tuple[str, str]] = dataclasses.field(default_factory=list, repr=False)  # by programs
    screens: list[Terminal] = dataclasses.field(default_factory=list, repr=False)

    def note(self, environ: Mapping[str, str], stdout: str | None, stderr: str | None) -> None:
        """Remember what a program of this machine was given and has said."""
        self.services.secrets.given(environ)
        self.said += [("stdout", unanswered(self.services.secrets, stdout or "")), ("stderr", stderr or "")]

    def run(self, *command: str, status: Any = 0, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a program; without a terminal, and with nothing to read."""
        done = subprocess.run(
            command,
            env={**self.environ, **changes},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            start_new_session=True,
        )
        self.note({**self.environ, **changes}, done.stdout, done.stderr)
        shown = hushed(self.services, done.stderr)
        assert status in (None, done.returncode), f"{command}: {done.returncode}\n{shown}"
        return done

    def keyring(self, *arguments: str, status: Any = 0, **changes: str) -> subprocess.CompletedProcess[str]:
        if arguments[0] != "get":
            needs_a_newer_program()
        return self.run(str(BIN / "keyring"), *arguments, status=status, **changes)

    def get(self, url: str = FEED, user: str = "VssSessionToken", **changes: str) -> str:
        """Return the password that `keyring get` prints, which has nothing else to say."""
        done = self.keyring("get", url, user, **changes)
        assert hushed(self.services, done.stderr) == ""
        assert re.fullmatch(r"\S+\n", done.stdout), "not one line"
        return done.stdout.strip()

    def fails(self, url: str = FEED, **changes: str) -> str:
        """Return the notice of a `keyring get` that fails as keyring expects."""
        done = self.keyring("get", url, "VssSessionToken", status=1, **changes)
        assert done.stdout == ""
        assert re.fullmatch(r"keyrings\.artifacts: [^\n]+\n", done.stderr)
        return done.stderr[len("keyrings.artifacts: ") : -1]

    def python(self, code: str, *arguments: str, **changes: str) -> str:
        done = self.run(sys.executable, "-c", code, *arguments, **changes)
        assert done.stderr == ""
        return done.stdout

    def az(self, account: str = "ada@contoso.example") -> None:
        fake_az(self.folder, self.services, self.services.accounts[account])

    def program(self, name: str, script: str) -> None:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / name
        path.write_text(script)
        path.chmod(0o755)

    def files(self) -> list[Path]:
        """The files below the home folder; locks, which hold nothing, aside."""
        return [p for p in self.home.rglob("*") if p.is_file() and p.suffix != ".lock"]

    def strays(self) -> list[str]:
        """The addresses beyond loopback that a Python of this machine would have connected to."""
        log = Path(self.environ["STAND_IN_LOG"])
        return log.read_text().split() if log.exists() else []

    def children(self) -> list[tuple[list[str], dict[str, str]]]:
        """Command line and environment of every program that a Python of this machine has started."""
        log = Path(self.environ["STAND_IN_CHILDREN"])
        return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []

    def leaks(self) -> list[str]:
        """Where a secret lies that should be nowhere, and of which kind it is."""
        found = self.services.secrets.found
        texts = [*self.said, *(("terminal", each.screen) for each in self.screens)]
        log = Path(self.environ["KEYRINGS_ARTIFACTS_LOGFILE"])
        texts.append(("log", log.read_text(errors="replace") if log.exists() else ""))
        for command, environ in self.children():
            texts.append(("command line", "\n".join(command)))
            if os.path.basename(command[0]) in OUR_CHILDREN:
                texts.append(("environment of a child", "\n".join(environ.values())))
        kinds = {(place, kind) for place, text in texts for kind in found(text)}
        kinds -= {("environment of a child", "needed")}
        for place in (self.home, self.home.parent / "tmp"):
            for path in place.rglob("*"):
                if path.is_file() and not path.is_symlink() and path.name != "small-keyring.json":
                    kept = ("session",) if self.is_session(path) else ()
                    name = path.relative_to(self.home.parent)
                    kinds |= {(str(name), kind) for kind in found(path.read_bytes().decode("latin-1"), *kept)}
        return sorted(f"{place}: {kind}" for place, kind in kinds)

    def is_session(self, path: Path) -> bool:
        """Whether a file may hold a token that opens packages for a day."""
        return path.parent.name == "keyrings_artifacts" and path.stat().st_mode & 0o777 == 0o600


# The change of environment of a machine whose person wants no log.
UNLOGGED = {"KEYRINGS_ARTIFACTS_LOGLEVEL": "", "KEYRINGS_ARTIFACTS_LOGFILE": ""}

# Programs that the module itself starts.
OUR_CHILDREN = ("az", "azd", "pwsh", "powershell", "browser", "ado-auth-helper")


def unanswered(known: Secrets, stdout: str) -> str:
    """What a program printed besides its answers: lines of nothing but tokens, and keyring's own JSON."""
    answers = ("entra", "pat", "session", "given", "needed", "password", "authorization")
    return "\n".join(
        line
        for line in stdout.splitlines()
        if not line.startswith('{"username": ')
        and not all(known.found(word) and not known.found(word, *answers) for word in line.split())
    )


@pytest.fixture(autouse=True)
def no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """In this process, that is; each machine looks for itself."""
    caplog.set_level("DEBUG", "keyrings_artifacts")
    yield
    for phase in ("setup", "call"):
        for entry in caplog.get_records(phase):
            assert MADE.found(entry.getMessage() + str(entry.exc_info)) == []


@pytest.fixture
def machine(services: Services, tmp_path: Path) -> Iterator[Machine]:
    """A machine without az, desktop, keyring or anything else, none of which gets past loopback.

    Whatever was secret is looked for afterwards in all that its programs have said and left behind.
    """
    made = set_up(services, tmp_path)
    yield made
    assert made.strays() == []
    assert made.leaks() == []


def set_up(services: Services, tmp_path: Path) -> Machine:
    home, folder = tmp_path / "home", tmp_path / "bin"
    for path in (home, tmp_path / "site", tmp_path / "tmp"):
        path.mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WATCH)
    environ = services.environ(home)
    environ["PATH"] = os.pathsep.join([str(folder), str(BIN), "/usr/bin", "/bin"])
    environ.update({k: v for k, v in os.environ.items() if k.startswith("COVERAGE_")})
    environ["PYTHONPATH"] = str(tmp_path / "site")
    environ["STAND_IN_LOG"] = str(tmp_path / "strays")
    environ["STAND_IN_CHILDREN"] = str(tmp_path / "children")
    environ["TMPDIR"] = str(tmp_path / "tmp")
    environ["KEYRINGS_ARTIFACTS_LOGLEVEL"] = "DEBUG"
    environ["KEYRINGS_ARTIFACTS_LOGFILE"] = str(tmp_path / "keyrings_artifacts.log")
    return Machine(services, home, environ, folder)


def opens(machine: Machine, token: str, organization: str = "contoso") -> bool:
    """Whether the services would let a token read the feeds of an organization."""
    live = machine.services.live(token)
    return live is not None and machine.services.organizations[organization].admits(live)


def asked(machine: Machine) -> list[str]:
    """What the services were asked since the last time, as method, host and first of the path."""
    seen = [f"{each.method} {each.host}" for each in machine.services.seen()]
    machine.services.forget()
    return seen


COLD = ["GET pkgs.dev.azure.com", "POST vssps.dev.azure.com"]


PLANT = """
import os, pathlib, subprocess, sys
secret = pathlib.Path(os.environ["HOME"], "..", "secret").read_text()
print("the token is", secret, "today")
print(secret, flush=True)  # an answer
print(secret[:60], file=sys.stderr)
pathlib.Path(os.environ["HOME"], "note.txt").write_text(f"x{secret}x")
pathlib.Path(os.environ["TMPDIR"], "draft").write_text(secret)
with open(os.environ["KEYRINGS_ARTIFACTS_LOGFILE"], "a") as log:
    log.write(secret)
environ = {**os.environ, "X": secret}
subprocess.run(["true", "--token=" + secret])
subprocess.run([os.environ["AZ"]], env=environ)
os.execve("/bin/true", ["true", secret], environ)
"""


@pytest.mark.parametrize("kind", ["entra", "pat"])
def test_what_looks_for_secrets_finds_them(machine: Machine, kind: str) -> None:
    """In each place where one may get to; and says where, and of which kind it is, and no more."""
    machine.az()
    ada = machine.services.accounts["ada@contoso.example"]
    mint = machine.services.mint_devops
    secret = machine.services.mint_entra(ada) if kind == "entra" else mint(ada, "contoso")
    beside(machine, "secret", secret)
    machine.run(sys.executable, "-c", PLANT, AZ=str(machine.folder / "az"), status=None)
    places = ["command line", "environment of a child", "home/note.txt", "log", "stderr", "stdout"]
    places.append("tmp/draft")
    if kind == "entra":  # the beginning of a JWT, which is no secret
        places.remove("stderr")
    assert machine.leaks() == [f"{place}: {kind}" for place in places]
    assert (secret in machine.said[0][1], len(machine.said[0][1].splitlines())) == (True, 1)
    machine.said.clear()
    for path in (machine.home / "note.txt", machine.home.parent / "tmp" / "draft"):
        path.unlink()
    for name in ("STAND_IN_CHILDREN", "KEYRINGS_ARTIFACTS_LOGFILE"):
        Path(machine.environ[name]).unlink()


def test_what_is_given_to_the_services_counts_as_secret() -> None:
    found = Secrets()
    pair = base64.b64encode(b"me:password-in-the-header").decode()
    headers = {"authorization": f"Basic {pair}", "x-identity-header": "header-of-the-platform"}
    body = urlencode({"code_verifier": "verifier-of-the-sign-in", "state": "state-of-the-sign-in"}).encode()
    found.sent(Recorded("https", "host", "POST", "/", {}, headers, body))
    found.given({"AZURE_CLIENT_SECRET": "secret-of-the-client", "MSI_SECRET": "secret-of-the-platform"})
    entry = '{"password": "password-of-a-feed"}'
    found.given({"VSS_NUGET_EXTERNAL_FEED_ENDPOINTS": entry, "HOME": "/home/someone"})
    said = f"{pair[:50]} password-in-the-header header-of-the-platform verifier-of-the-sign-in state"
    assert found.found(said) == ["authorization", "code_verifier", "password", "x-identity-header"]
    assert found.found("secret-of-the-client secret-of-the-platform") == ["given", "needed"]
    assert found.found("password-of-a-feed /home/someone given") == ["given"]


def test_a_given_pat_is_printed_without_a_network_and_kept_nowhere(machine: Machine) -> None:
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    pat = "s3cret" * 14
    assert machine.get(FEED, "any-user", AZURE_DEVOPS_EXT_PAT=pat, **offline) == pat
    assert asked(machine) == []
    assert not [path for path in machine.files() if pat.encode() in path.read_bytes()]


def test_the_log_shows_every_step_on_stderr(machine: Machine) -> None:
    machine.az()
    done = machine.keyring("get", FEED, "me", **{**UNLOGGED, "KEYRINGS_ARTIFACTS_LOGLEVEL": "debug"})
    assert opens(machine, done.stdout.strip())
    lines = [re.sub(r"^[\d: ,-]+ \d+ DEBUG ", "", line) for line in done.stderr.splitlines()]
    assert lines[0] == f"asked for {FEED}: organization 'contoso'"
    assert f"GET {FEED}: 401" in lines
    assert "codespaces: does not apply here" in lines
    assert "azure_cli: az ended with 0" in lines
    assert "azure_cli: a token for a person" in lines
    assert done.stdout.strip() not in done.stderr


def test_a_log_file_takes_all_and_stderr_nothing(machine: Machine) -> None:
    machine.az()
    path = machine.home / "artifacts.log"
    token = machine.get(KEYRINGS_ARTIFACTS_LOGFILE=str(path))
    machine.get(KEYRINGS_ARTIFACTS_LOGFILE=str(path))
    text = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert text.count(f"asked for {FEED}") == 2
    assert "stored: fresh" in text
    assert token not in text


def test_a_log_is_set_up_at_use_and_for_our_own_logger_alone(machine: Machine) -> None:
    machine.az()
    code = (
        "import logging, keyring, keyrings_artifacts as k\n"
        "assert not k.log.handlers and k.log.propagate and not k.log.filters\n"
        "keyring.get_password('https://example.com/', 'me')\n"
        "assert not k.log.handlers\n"
        "for _ in 1, 2: keyring.get_password(__import__('sys').argv[1], 'me')\n"
        "print(len(k.log.handlers), len(k.log.filters), k.log.propagate, k.log.level)\n"
        "print(len(logging.root.handlers), logging.root.level)"
    )
    path = str(machine.home / "log")
    done = machine.python(code, FEED, KEYRINGS_ARTIFACTS_LOGFILE=path, KEYRINGS_ARTIFACTS_LOGLEVEL="INFO")
    assert done == "1 1 False 20\n0 30\n"
    assert machine.python(code, FEED, **UNLOGGED) == "0 1 True 0\n0 30\n"


@pytest.mark.parametrize(
    ("changes", "notice"),
    [
        (
            {"KEYRINGS_ARTIFACTS_LOGLEVEL": "loud"},
            "KEYRINGS_ARTIFACTS_LOGLEVEL must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL.",
        ),
        (
            {"KEYRINGS_ARTIFACTS_LOGFILE": "/no/such/folder/log"},
            "KEYRINGS_ARTIFACTS_LOGFILE (/no/such/folder/log) cannot be written (No such file or directory): "
            "nothing is logged.",
        ),
    ],
    ids=["level", "file"],
)
def test_a_log_that_cannot_be_costs_one_notice(
    machine: Machine, changes: dict[str, str], notice: str
) -> None:
    machine.az()
    done = machine.keyring("get", FEED, "me", **changes)
    assert opens(machine, done.stdout.strip())
    assert done.stderr == f"keyrings.artifacts: {notice}\n"


def test_a_log_file_on_a_full_disk_is_no_matter(machine: Machine) -> None:
    """A limit of 0 to the size of files stands for a full disk."""
    machine.az()
    path = str(machine.home / "log")
    command = [sys.executable, "-c", NO_DISK, str(BIN / "keyring"), "get", FEED, "me"]
    done = machine.run(*command, KEYRINGS_ARTIFACTS_LOGFILE=path)
    assert opens(machine, done.stdout.strip())
    assert done.stderr.count("\n") == 1  # of the session that could not be kept


def test_the_variables_that_hold_secrets() -> None:
    given = {name for names in module.GIVEN_BY.values() for name in names if name.isupper()}
    others = {"AZURE_CLIENT_SECRET", "servicePrincipalKey", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "idToken"}
    assert (given - {"AZURE_DEVOPS_EXT_PAT_FILE"}) | others == module.SECRET_VARIABLES


@pytest.mark.parametrize("source", ["az", "browser"])
def test_no_program_of_ours_gets_a_secret_of_the_environments(machine: Machine, source: str) -> None:
    secrets = {name: f"s3cret-{name}" for name in module.SECRET_VARIABLES if name not in GIVEN_VARIABLES}
    secrets["KEYRINGS_ARTIFACTS_SOURCES"] = "azure_cli,browser"
    machine.program("az", f'#!/bin/sh\nenv > "{machine.home}/environment"\nexit 1\n')
    machine.program("firefox", f'#!/bin/sh\nenv > "{machine.home}/environment"\nexit 1\n')
    secrets["BROWSER"] = "firefox" if source == "browser" else "w3m"
    machine.fails(**secrets)
    seen = (machine.home / "environment").read_text()
    assert "HOME=" in seen
    assert "s3cret" not in seen


# Those that would be the answer themselves.
GIVEN_VARIABLES = {
    "ARTIFACTS_CREDENTIALPROVIDER_EXTERNAL_FEED_ENDPOINTS",
    "VSS_NUGET_EXTERNAL_FEED_ENDPOINTS",
    "AZURE_DEVOPS_EXT_PAT",
    "SYSTEM_ACCESSTOKEN",
}


def test_az_takes_two_requests_and_then_none(machine: Machine) -> None:
    machine.az()
    token = machine.get()
    assert opens(machine, token)
    assert asked(machine) == COLD
    for url in (
        FEED.rstrip("/"),
        UPLOAD,
        FEED.replace("contoso/", "Contoso/My%20Project/").replace("pyfeed", "projfeed"),
        "https://contoso.pkgs.visualstudio.com/_packaging/pyfeed/pypi/simple/",
        "contoso.pkgs.visualstudio.com",
    ):
        assert machine.get(url) == token
    assert asked(machine) == []


def test_another_organization_has_another_token(machine: Machine) -> None:
    ada = machine.services.accounts["ada@contoso.example"]
    ada.guest_of.add(FABRIKAM_TENANT)
    machine.services.organizations["fabrikam"].members.add(ada.upn)
    machine.az()
    assert opens(machine, machine.get())
    assert opens(machine, machine.get(OTHER), "fabrikam")
    assert not opens(machine, machine.get(OTHER))


def test_every_way_to_ask_is_answered(machine: Machine) -> None:
    machine.az()
    token = machine.get()
    done = machine.keyring("--mode", "creds", "--output", "json", "get", FEED)
    assert json.loads(done.stdout) == {"username": "VssSessionToken", "password": token}
    assert machine.keyring("--mode", "creds", "get", FEED, "me").stdout == f"me\n{token}\n"
    code = (
        "import keyring, sys\n"
        "found = keyring.get_credential(sys.argv[1], None)\n"
        "print(found.username, found.password, sep='\\n')\n"
        "print(keyring.get_password(sys.argv[1], '__token__'))\n"
        "print(keyring.get_credential(sys.argv[1], '').username)"
    )
    said = machine.python(code, FEED, AZURE_DEVOPS_USERNAME="build")
    assert said.split() == ["build", token, token, "build"]


def test_one_process_asks_once_whoever_asks_in_it(machine: Machine) -> None:
    """twine asks twice, pdm's workers ask instances of their own."""
    machine.az()
    code = (
        "import sys, keyrings_artifacts as k\n"
        "for _ in range(4):\n"
        "    print(k.ArtifactsKeyringBackend().get_password(sys.argv[1], 'x'))"
    )
    home = {"HOME": os.devnull, "XDG_DATA_HOME": f"{os.devnull}/x"}
    done = machine.run(sys.executable, "-c", code, FEED, **home)
    assert len(set(done.stdout.split())) == 1
    assert asked(machine) == COLD


EVERYTHING_SET = {
    "AZURE_DEVOPS_EXT_PAT": "p" * 52,
    "SYSTEM_ACCESSTOKEN": "s" * 52,
    "VSS_NUGET_ACCESSTOKEN": "n" * 52,
    "VSS_NUGET_URI_PREFIXES": "https://evil.example/;https://",
}


def test_what_is_not_ours_is_none_at_once_and_in_silence(machine: Machine) -> None:
    machine.az()
    code = (
        "import json, sys, keyring\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    for user in ('me', None):\n"
        "        assert keyring.get_credential(name, user) is None, name\n"
        "        assert user is None or keyring.get_password(name, user) is None, name"
    )
    names = [*NOT_OURS, *LOOK_ALIKES]
    assert machine.python(code, json.dumps(names), **EVERYTHING_SET) == ""
    for name in NOT_OURS:
        done = machine.keyring("get", name, "me", status=1, **EVERYTHING_SET)
        assert done.stdout + done.stderr == ""
    assert asked(machine) == []
    assert machine.services.tunnels == []


def plug_in(machine: Machine, name: str, code: str) -> dict[str, str]:
    """Install another keyring's backend, and return the change of environment that has it found."""
    folder = machine.home.parent / "plugins"
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[keyring.backends]\n{name} = {name}\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), machine.environ["PYTHONPATH"]])}


# A keyring like Windows': in a file, and with no room for more than 1,280 characters an entry.
SMALL_KEYRING = """
import json, os, pathlib
from keyring.backend import KeyringBackend
from keyring.errors import PasswordDeleteError

PATH = pathlib.Path(os.environ["HOME"], "small-keyring.json")

class Small(KeyringBackend):
    priority = 5
    def load(self):
        return json.loads(PATH.read_text()) if PATH.exists() else {}
    def save(self, data):  # in one step, as readers do not wait
        draft = PATH.with_name(f".small-keyring-{os.getpid()}")
        draft.write_text(json.dumps(data))
        draft.replace(PATH)
    def get_password(self, service, username):
        return self.load().get(f"{service}|{username}")
    def set_password(self, service, username, password):
        if len(password) > 1280:
            raise OSError(1783, "CredWrite", "The stub received bad data")
        self.save({**self.load(), f"{service}|{username}": password})
    def delete_password(self, service, username):
        data = self.load()
        if data.pop(f"{service}|{username}", None) is None:
            raise PasswordDeleteError(service)
        self.save(data)
"""


def set_password(
    machine: Machine, service: str, password: str, **changes: str
) -> subprocess.CompletedProcess[str]:
    """`keyring set`, which reads the password from standard input."""
    needs_a_newer_program()
    machine.services.secrets.add("password", password)
    done = subprocess.run(
        [str(BIN / "keyring"), "set", service, "me"],
        env={**machine.environ, **changes},
        input=password,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    machine.note({**machine.environ, **changes}, done.stdout, done.stderr)
    return done


def test_other_services_go_on_to_the_next_keyring(machine: Machine) -> None:
    chain = plug_in(machine, "small_keyring", SMALL_KEYRING)
    assert set_password(machine, "my-service", "mine", **chain).returncode == 0
    assert machine.keyring("get", "my-service", "me", **chain).stdout == "mine\n"
    machine.keyring("del", "my-service", "me", **chain)
    machine.keyring("get", "my-service", "me", status=1, **chain)
    assert (
        "PasswordDeleteError"
        in machine.keyring("del", "my-service", "me", status=1, **chain).stderr.splitlines()[-1]
    )


def test_alone_it_keeps_nothing_for_other_services(machine: Machine) -> None:
    done = set_password(machine, "my-service", "mine")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "keyrings_artifacts.NotOurs: keyrings.artifacts keeps credentials of Azure Artifacts feeds only."
    )
    code = (
        "import keyring, keyring.errors as e\n"
        "for call in (lambda: keyring.set_password('x', 'y', 'z'),\n"
        "             lambda: keyring.delete_password('x', 'y')):\n"
        "    try: call()\n"
        "    except NotImplementedError as error: print(isinstance(error, e.KeyringError))"
    )
    assert machine.python(code) == "True\nTrue\n"


PINNED = {"PYTHON_KEYRING_BACKEND": "keyrings_artifacts.ArtifactsKeyringBackend"}


def test_pinned_it_passes_other_services_on(machine: Machine) -> None:
    """keyring then knows no other backend, and asks ours for everything."""
    machine.az()
    chain = {**plug_in(machine, "small_keyring", SMALL_KEYRING), **PINNED}
    assert set_password(machine, "my-service", "mine", **chain).returncode == 0
    assert machine.keyring("get", "my-service", "me", **chain).stdout == "mine\n"
    creds = machine.keyring("--mode", "creds", "get", "my-service", "me", **chain)
    assert creds.stdout == "me\nmine\n"
    assert machine.keyring("get", "other-service", "me", status=1, **chain).stdout == ""
    token = machine.get(**chain)
    assert opens(machine, token)
    asked(machine)
    assert machine.get(**chain) == token
    assert asked(machine) == []
    machine.keyring("del", "my-service", "me", **chain)
    done = machine.keyring("del", "my-service", "me", status=1, **chain)
    assert "PasswordDeleteError" in done.stderr.splitlines()[-1]


LIVES_LONG = """
import subprocess, sys, time, keyring
program, url, own, *command = sys.argv[1:]
first = keyring.get_password(url, "me")
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
subprocess.run([program, *command], input=own, text=True, check=True, **quiet)
clock, ticks = time.time, time.monotonic
time.time, time.monotonic = (lambda: clock() + 3700), (lambda: ticks() + 3700)
second = keyring.get_password(url, "me")
print(first == second, second == own)
"""


@pytest.mark.parametrize(
    ("command", "printed"), [("set", "False True\n"), ("del", "False False\n"), ("get", "True False\n")]
)
def test_a_process_that_lives_long_notices_what_others_kept_and_forgot(
    machine: Machine, command: str, printed: str
) -> None:
    needs_a_newer_program()
    machine.az()
    chain = plug_in(machine, "small_keyring", SMALL_KEYRING)
    own = machine.services.mint_devops(machine.services.accounts["ada@contoso.example"], "contoso")
    program = str(BIN / "keyring")
    assert machine.python(LIVES_LONG, program, FEED, own, command, FEED, "me", **chain) == printed


LOCKED_FOR_A_WHILE = """
import os, sys, time, keyring
assert keyring.get_password(sys.argv[1], "me")
os.unlink("locked")
ticks = time.monotonic
time.monotonic = lambda: ticks() + 601
keyring.delete_password(sys.argv[1], "me")
"""


def test_a_keyring_that_was_locked_is_asked_again_later(machine: Machine) -> None:
    machine.az()
    (machine.home / "locked").touch()
    load = "    def load(self):\n"
    code = SMALL_KEYRING.replace(load, f'{load}        assert not os.path.exists("locked")\n')
    chain = plug_in(machine, "small_keyring", code)
    said = machine.run(sys.executable, "-c", LOCKED_FOR_A_WHILE, FEED, **chain).stderr.splitlines()
    assert [line.partition(" could not")[0] for line in said[:1]] == [
        "keyrings.artifacts: small_keyring.Small"
    ]
    assert said[1:] == [
        "keyrings.artifacts: Signed out of organization 'contoso'. Nothing else of it is left here."
    ]


def test_a_closed_stderr_is_no_terminal(machine: Machine) -> None:
    code = "import sys, keyring; sys.stderr.close(); print(keyring.get_password(sys.argv[1], 'me'))"
    assert machine.python(code, FEED) == "None\n"


def test_setting_a_pat_says_what_is_wrong_with_the_environment(machine: Machine) -> None:
    done = set_password(machine, FEED, "a" * 52, KEYRINGS_ARTIFACTS_SOURCES="azure_cli,psychic")
    assert done.stderr.splitlines()[-1].startswith(
        "keyring.errors.PasswordSetError: KEYRINGS_ARTIFACTS_SOURCES names no source with 'psychic': "
    )


def test_a_pat_that_could_not_be_set_is_not_used(machine: Machine) -> None:
    code = (
        "import sys, keyring, keyring.errors\n"
        "try: keyring.set_password(sys.argv[1], 'me', 'a' * 52)\n"
        "except keyring.errors.PasswordSetError as error: print(str(error)[:29])\n"
        "print(len(keyring.get_password(sys.argv[1], 'me')))"
    )
    machine.az()
    told, length = machine.python(code, FEED).splitlines()
    assert told == "There is no keyring here that"
    assert int(length) > 52


def test_a_lock_in_a_folder_of_somebody_elses_is_not_waited_for(machine: Machine) -> None:
    import fcntl

    if os.geteuid():
        pytest.skip("only root gives folders away")
    machine.az()
    machine.get()
    folder = next(machine.home.rglob("keyrings_artifacts"))
    (folder / "session-contoso.json").unlink()
    os.chown(folder, 12345, 12345)
    with (folder / "session-contoso.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = machine.keyring("get", FEED, "me")
    assert opens(machine, done.stdout.strip())


def test_pinned_and_alone_it_keeps_nothing_for_other_services(machine: Machine) -> None:
    assert machine.keyring("get", "my-service", "me", status=1, **PINNED).stderr == ""
    assert "NotOurs" in set_password(machine, "my-service", "mine", **PINNED).stderr


# A keyring that keeps nothing of its own kind: the next one is to be asked.
READ_ONLY_KEYRING = """
from keyring.backend import KeyringBackend

class ReadOnly(KeyringBackend):
    priority = 7
    def get_password(self, service, username):
        return "read" if service == "read-only" else None
    def set_password(self, service, username, password):
        raise NotImplementedError
    def delete_password(self, service, username):
        raise NotImplementedError
"""


def test_pinned_it_passes_on_as_the_chain_would(machine: Machine) -> None:
    plug_in(machine, "small_keyring", SMALL_KEYRING)
    chain = {**plug_in(machine, "read_only", READ_ONLY_KEYRING), **PINNED}
    assert set_password(machine, "read-only", "small", **chain).returncode == 0
    assert set_password(machine, "my-service", "small", **chain).returncode == 0
    assert machine.keyring("get", "read-only", "me", **chain).stdout == "read\n"
    assert machine.keyring("get", "my-service", "me", **chain).stdout == "small\n"
    machine.keyring("del", "my-service", "me", **chain)


def test_a_keyring_keeps_sessions_of_any_length(machine: Machine) -> None:
    machine.az()
    chain = plug_in(machine, "small_keyring", SMALL_KEYRING)
    token = machine.get(KEYRINGS_ARTIFACTS_TOKEN_TYPE="entra", **chain)
    asked(machine)
    assert machine.get(**chain, KEYRINGS_ARTIFACTS_TOKEN_TYPE="entra") == token
    assert asked(machine) == []
    machine.keyring("del", FEED, "anybody", **chain)
    assert json.loads((machine.home / "small-keyring.json").read_text()) == {}
    problem = machine.keyring("del", FEED, "anybody", status=1, **chain).stderr
    assert problem.splitlines()[-1] == (
        "keyring.errors.PasswordDeleteError: Nothing is kept for organization 'contoso'."
    )


def test_a_persons_own_pat_serves_the_whole_organization(machine: Machine) -> None:
    chain = plug_in(machine, "small_keyring", SMALL_KEYRING)
    ada = machine.services.accounts["ada@contoso.example"]
    own = machine.services.mint_devops(ada, "contoso")
    assert set_password(machine, FEED, own, **chain).stderr == ""
    assert machine.get(UPLOAD, "somebody", **chain) == own
    assert asked(machine) == ["GET pkgs.dev.azure.com"]
    assert machine.get(FEED, **chain) == own
    assert asked(machine) == []
    machine.keyring("del", UPLOAD, "me", **chain)
    assert "Nobody is signed in to organization 'contoso'" in machine.fails(**chain)


@pytest.mark.parametrize("spoiled", ["open to others", "a link", "garbage"])
def test_signing_out_deletes_a_file_that_is_not_read(machine: Machine, spoiled: str) -> None:
    needs_a_newer_program()
    machine.az()
    machine.get()
    (path,) = machine.home.rglob("session-contoso.json")
    if spoiled == "open to others":
        path.chmod(0o644)
    elif spoiled == "garbage":
        path.write_text("{")
    else:
        path.unlink()
        path.symlink_to(os.devnull)
    machine.keyring("del", FEED, "me")
    assert not os.path.lexists(path)
    assert "Nothing is kept" in machine.keyring("del", FEED, "me", status=1).stderr


def test_signing_out_says_when_a_keyring_will_not_let_go(machine: Machine) -> None:
    machine.az()
    stubborn = SMALL_KEYRING.replace(
        "    def delete_password", "    def refuses(self, *_):\n        raise OSError\n    def unused"
    )
    stubborn = stubborn.replace("    def refuses", "    def delete_password")
    chain = plug_in(machine, "small_keyring", stubborn)
    machine.get(**chain)
    done = machine.keyring("del", FEED, "me", status=1, **chain)
    assert done.stderr.splitlines()[-1] == (
        "keyring.errors.PasswordDeleteError: What is kept for organization 'contoso' could not all be "
        "deleted: unlock or repair the keyring, then run 'keyring del' again."
    )


def test_a_persons_own_pat_needs_a_keyring(machine: Machine) -> None:
    done = set_password(machine, FEED, "own-pat")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "keyring.errors.PasswordSetError: There is no keyring here that can keep a personal access "
        "token: put it in a file of your own and name that in AZURE_DEVOPS_EXT_PAT_FILE."
    )
    assert not machine.files()


def test_what_1_x_left_in_a_keyring_is_used(machine: Machine) -> None:
    chain = plug_in(machine, "small_keyring", SMALL_KEYRING)
    ada = machine.services.accounts["ada@contoso.example"]
    own = machine.services.mint_devops(ada, "contoso")
    (machine.home / "small-keyring.json").write_text(json.dumps({f"{FEED}|VssSessionToken": own}))
    assert machine.get(FEED, "VssSessionToken", **chain) == own
    assert asked(machine) == ["GET pkgs.dev.azure.com"]
    assert machine.get(FEED, "VssSessionToken", **chain) == own
    assert asked(machine) == []
    machine.keyring("del", FEED, "VssSessionToken", **chain)
    assert json.loads((machine.home / "small-keyring.json").read_text()) == {}


BROKEN_KEYRING = """
from keyring.backend import KeyringBackend

class Broken(KeyringBackend):
    priority = 5
    def get_password(self, service, username):
        raise ValueError("s3cret")
    set_password = delete_password = get_password
"""


PROVIDER = """
from keyring.backend import KeyringBackend

class Provider(KeyringBackend):
    priority = 9.9
    def get_password(self, service, username):
        if service.startswith("https://"):
            raise SystemExit("asked for a feed")
    def set_password(self, *_):
        raise NotImplementedError
    delete_password = set_password
"""


def test_a_provider_of_credentials_beside_is_not_asked_for_feeds(machine: Machine) -> None:
    """It may ask the person, or a service; ours is asked first, and answers."""
    machine.az()
    assert opens(machine, machine.get(**plug_in(machine, "provider", PROVIDER)))
    assert len(machine.files()) == 1


def test_a_token_of_another_type_replaces_and_revokes_a_pat(machine: Machine) -> None:
    machine.az()
    chain = plug_in(machine, "small_keyring", SMALL_KEYRING)
    pat = machine.get(**chain, KEYRINGS_ARTIFACTS_TOKEN_TYPE="pat")
    assert opens(machine, machine.get(**chain, KEYRINGS_ARTIFACTS_TOKEN_TYPE="session"))
    assert machine.services.live(pat) is None


def test_a_name_no_file_can_have(tmp_path: Path) -> None:
    files = module.Files(tmp_path)
    files.set("session/\u0434\u043e\u043c", "text")
    (path,) = tmp_path.iterdir()
    assert path.name.isascii()
    assert files.get("session/\u0434\u043e\u043c") == "text"


def test_a_file_that_is_no_text_is_replaced(machine: Machine) -> None:
    machine.az()
    machine.get()
    (path,) = machine.files()
    path.write_bytes(b"\xff")
    assert opens(machine, machine.get())
    asked(machine)
    machine.get()
    assert asked(machine) == []


def test_a_keyring_that_fails_costs_a_notice_and_nothing_else(machine: Machine) -> None:
    machine.az()
    chain = plug_in(machine, "broken_keyring", BROKEN_KEYRING)
    done = machine.keyring("get", FEED, "me", **chain)
    assert opens(machine, done.stdout.strip())
    assert done.stderr == (
        "keyrings.artifacts: broken_keyring.Broken could not be used (ValueError): this sign-in "
        "may not be remembered. Unlock or repair it, or go on without.\n"
    )
    asked(machine)
    assert machine.keyring("get", FEED, "me", **chain).stdout == done.stdout
    assert asked(machine) == []


@pytest.fixture
def desktop(machine: Machine) -> Iterator[Machine]:
    """A machine with a Secret Service: gnome-keyring on a message bus of its own, unlocked."""
    if not shutil.which("gnome-keyring-daemon") or not shutil.which("dbus-daemon"):
        reason = "needs gnome-keyring-daemon and dbus-daemon"
        pytest.fail(reason) if "CI" in os.environ else pytest.skip(reason)
    runtime = machine.home / "run"
    runtime.mkdir(mode=0o700)
    machine.environ["XDG_RUNTIME_DIR"] = str(runtime)
    command = ["dbus-daemon", "--session", "--nofork", "--print-address"]
    bus = subprocess.Popen(command, stdout=subprocess.PIPE, env=machine.environ)
    assert bus.stdout is not None
    machine.environ["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().decode().strip()
    password = machine.home.parent / "password"
    password.write_text("password")
    command = ["gnome-keyring-daemon", "--unlock", "--foreground", "--components=secrets"]
    with password.open() as stdin, open(os.devnull, "w") as null:
        daemon = subprocess.Popen(command, stdin=stdin, stdout=null, stderr=null, env=machine.environ)
    alone = {"PYTHON_KEYRING_BACKEND": "keyring.backends.SecretService.Keyring"}
    for _ in range(50):  # it is on the bus before its collection is open
        if set_password(machine, "probe", "probe", **alone).returncode == 0:
            break
        time.sleep(0.1)
    machine.keyring("del", "probe", "me", **alone)
    yield machine
    for process in (daemon, bus):
        process.kill()
        process.wait()
    bus.stdout.close()


def test_a_secret_service_keeps_the_session_across_processes(desktop: Machine) -> None:
    desktop.az()
    token = desktop.get(KEYRINGS_ARTIFACTS_TOKEN_TYPE="pat")
    assert opens(desktop, token)
    assert asked(desktop) == COLD
    assert desktop.get(KEYRINGS_ARTIFACTS_TOKEN_TYPE="pat") == token
    assert asked(desktop) == []
    ours = [path for path in desktop.files() if "keyrings_artifacts" in str(path)]
    assert not ours
    desktop.keyring("del", FEED, "me")
    assert desktop.services.live(token) is None
    assert asked(desktop) == ["DELETE vssps.dev.azure.com"]
    assert opens(desktop, desktop.get())


def test_without_a_keyring_a_file_keeps_the_session(machine: Machine) -> None:
    machine.az()
    token = machine.get()
    (path,) = machine.files()
    assert path == machine.home / ".local/share/python_keyring/keyrings_artifacts" / ("session-contoso.json")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert json.loads(path.read_text())["token"] == token


@pytest.mark.parametrize("token_type", ["pat", "entra"])
def test_without_a_keyring_nothing_that_outlives_a_day_is_kept(machine: Machine, token_type: str) -> None:
    machine.az()
    assert opens(machine, machine.get(KEYRINGS_ARTIFACTS_TOKEN_TYPE=token_type))
    assert not machine.files()


def test_the_answer_does_not_need_a_place_to_keep_it(machine: Machine) -> None:
    machine.az()
    machine.home.chmod(0o500)
    nowhere = {"XDG_DATA_HOME": "/proc/nowhere"}
    done = machine.keyring("get", FEED, "me", **nowhere)
    machine.home.chmod(0o700)
    assert opens(machine, done.stdout.strip())
    assert done.stderr == (
        "keyrings.artifacts: The folder /proc/nowhere/python_keyring/keyrings_artifacts could not "
        "be used (FileNotFoundError): this sign-in may not be remembered. Unlock or repair it, or "
        "go on without.\n"
    )


def test_a_session_is_replaced_when_the_service_refuses_it(machine: Machine) -> None:
    machine.az()
    token = machine.get()
    machine.services.revoke(token)
    asked(machine)
    assert machine.get() == token  # not asked within the hour
    later = moved_clock(machine, 3700)
    machine.services.clock = 3700
    assert opens(machine, machine.get(**later))
    assert asked(machine) == ["GET pkgs.dev.azure.com", *COLD]


def moved_clock(machine: Machine, seconds: float) -> dict[str, str]:
    """Return the change of environment that moves the clock of a Python process."""
    return {"STAND_IN_CLOCK": str(seconds)}


def test_a_public_feed_needs_nobody(machine: Machine) -> None:
    url = FEED.replace("contoso", "publica")
    done = machine.keyring("get", url, "me", status=1)
    assert done.stdout + done.stderr == ""
    assert asked(machine) == ["GET pkgs.dev.azure.com"]
    machine.az()
    assert opens(machine, machine.get(UPLOAD.replace("contoso", "publica")), "publica")


def test_an_organization_of_personal_accounts(machine: Machine) -> None:
    machine.az("pia@outlook.example")
    token = machine.get(FEED.replace("contoso", "personal"))
    assert opens(machine, token, "personal")


def test_a_bare_host_name_fails_in_silence(machine: Machine) -> None:
    """pip and uv have just asked by URL, and the person has read why that failed."""
    done = machine.keyring("get", "contoso.pkgs.visualstudio.com", "me", status=1)
    assert done.stdout + done.stderr == ""


def test_failures_are_one_sentence_and_status_1(machine: Machine) -> None:
    assert machine.fails(AZURE_DEVOPS_EXT_PAT="") == (
        "AZURE_DEVOPS_EXT_PAT is set but empty: set it to a token, or unset it."
    )
    assert machine.fails(FEED.replace("contoso", "nobody")).startswith(
        "pkgs.dev.azure.com knows no such feed"
    )
    assert machine.fails(AZURE_DEVOPS_PAT_DURATION="ten").startswith("AZURE_DEVOPS_PAT_DURATION is")
    assert machine.fails().startswith("Nobody is signed in to organization 'contoso', and nobody")


LOGGED_OUT = "#!/bin/sh\necho \"ERROR: Please run 'az login' to setup account.\" >&2\nexit 1\n"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (LOGGED_OUT, "nobody is signed in to the Azure CLI: run 'az login --tenant "),
        ("#!/bin/sh\necho garbage\n", "az printed something that is not a token."),
        ("#!/nonexistent\n", "az could not be started (No such file or directory)"),
        ("#!/bin/sh\nkill -9 $$\n", "az failed."),
    ],
    ids=["logged out", "garbage", "no interpreter", "killed"],
)
def test_an_az_that_does_not_work(machine: Machine, script: str, problem: str) -> None:
    machine.program("az", script)
    assert machine.fails().startswith(f"azure_cli: {problem}")


@POSIX
def test_an_az_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "az"
    script.write_text(f"#!/bin/sh\nsleep 600 & echo $! > {tmp_path}/pid; wait\n")
    script.chmod(0o755)
    with pytest.raises(TimeoutError):
        module.run([str(script)], 0.5)
    child = int((tmp_path / "pid").read_text())
    for _ in range(50):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the child of az goes on")


@POSIX
def test_an_az_that_leaves_a_child_behind_is_not_waited_for(tmp_path: Path) -> None:
    script = tmp_path / "az"
    script.write_text("#!/bin/sh\nsleep 60 &\necho answer\n")
    script.chmod(0o755)
    began = time.monotonic()
    assert module.run([str(script)], 30) == module.Completed(0, "answer\n", "")
    assert time.monotonic() - began < 20


def test_a_program_in_the_current_folder_is_not_run(machine: Machine) -> None:
    (machine.home / "az").write_text("#!/bin/sh\ntouch was-run\n")
    (machine.home / "az").chmod(0o755)
    for path in ("", ".", str(machine.home)):
        path = os.pathsep.join([path, machine.environ["PATH"]])
        assert machine.fails(PATH=path).startswith("Nobody is signed in")
    assert not (machine.home / "was-run").exists()


def test_a_current_folder_that_is_gone(machine: Machine) -> None:
    machine.az()
    script = f'mkdir gone; cd gone; rmdir ../gone; exec "$0" get {FEED} me'
    done = machine.run("/bin/sh", "-c", script, str(BIN / "keyring"))
    assert opens(machine, done.stdout.strip())


def test_tf401444_names_the_page_to_open(machine: Machine) -> None:
    machine.az()
    machine.services.organizations["contoso"].never_signed_in.add("ada@contoso.example")
    machine.services.organizations["contoso"].members.clear()
    assert machine.fails() == TF401444


@pytest.mark.parametrize(
    ("policies", "token_type", "kind"),
    [
        ({}, "pat", "pat"),
        ({"max_pat_days": 7}, "pat", "pat"),
        ({"max_pat_days": 7, "policy_status": 400}, "pat", "pat"),
        ({"forbid_pats": True}, "pat", "session"),
        ({"forbid_pats": True, "forbid_sessions": True}, "pat", "entra"),
        ({"max_session_hours": 2}, "session", "session"),
        ({"forbid_sessions": True}, "session", "entra"),
        ({}, "entra", "entra"),
    ],
    ids=str,
)
def test_policies_lead_down_the_ladder(
    machine: Machine, policies: dict[str, Any], token_type: str, kind: str
) -> None:
    machine.az()
    for name, value in policies.items():
        setattr(machine.services.organizations["contoso"], name, value)
    token = machine.get(KEYRINGS_ARTIFACTS_TOKEN_TYPE=token_type)
    assert opens(machine, token)
    assert machine.services.tokens[token].kind == kind


@pytest.mark.parametrize("reply", [Reply(503), Reply(0), Reply(429, [("Retry-After", "1")])])
@pytest.mark.parametrize("path", ["/pypi/simple/", "/_apis/"])
def test_a_passing_fault_is_passed_over(machine: Machine, reply: Reply, path: str) -> None:
    machine.az()
    machine.services.faults.append(fault(reply, path_contains=path))
    assert opens(machine, machine.get())


def test_network_proxy_and_certificate_are_told_apart(machine: Machine) -> None:
    machine.services.faults.append(fault(Reply(0), times=9))
    assert machine.fails().startswith("pkgs.dev.azure.com could not be reached (")
    dead = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    assert machine.fails(**dead).startswith("The proxy did not let us through to pkgs.dev.azure.com")
    strangers = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT"), os.devnull)
    assert "CA file" in machine.fails(**{**strangers, "CURL_CA_BUNDLE": os.devnull})
    assert machine.fails(SSL_CERT_FILE="/gone").startswith(
        "SSL_CERT_FILE names /gone, which does not exist: mend or unset SSL_CERT_FILE."
    )
    for name in (*strangers, "CURL_CA_BUNDLE"):
        machine.environ.pop(name)
    assert machine.fails().startswith("The certificate of pkgs.dev.azure.com is not trusted")


def test_a_proxy_that_wants_a_name_and_a_password(machine: Machine) -> None:
    machine.az()
    machine.services.proxy_login = "me:p@ss"
    assert machine.fails().startswith("The proxy did not let us through to pkgs.dev.azure.com")
    url = machine.services.proxy_url
    assert opens(machine, machine.get(HTTPS_PROXY=url, https_proxy=url))


@pytest.mark.parametrize("name", ["authorization_endpoint", "authorization_uri"])
def test_a_rogue_header_gets_no_secret(machine: Machine, name: str) -> None:
    machine.az()
    setattr(machine.services.organizations["contoso"], name, "https://evil.example/contoso")
    assert "evil.example" in machine.fails()
    assert asked(machine) == ["GET pkgs.dev.azure.com"]


def test_a_redirect_is_not_followed(machine: Machine) -> None:
    machine.az()
    evil = Reply(307, [("Location", "https://evil.example/")])
    machine.services.faults.append(fault(evil, times=9, path_contains="/_apis/"))
    assert machine.fails().startswith("azure_cli: organization 'contoso' does not accept account")
    assert not machine.services.seen(host="evil.example")


def test_the_index_page_is_not_downloaded(machine: Machine) -> None:
    """One byte a second would take all day; the headers are there at once."""
    page = Reply(200, body=b"x" * 60_000_000, drip=1.0)
    machine.services.faults.append(fault(page, path_contains="/simple/"))
    done = machine.keyring("get", FEED, "me", status=1)
    assert done.stdout + done.stderr == ""


# --- signing in, end to end -------------------------------------------------------------------

# A person's browser: opens the page it is told to, sends on what the page has it send, and writes
# down what the address line and the page say in the end. What it does besides is in its settings.
BROWSER = """#!{python}
import html, json, os, re, sys, time, urllib.error, urllib.parse, urllib.request
folder = {folder!r}
does = json.load(open(os.path.join(folder, "browser.json")))
with open(os.path.join(folder, "browser.opened"), "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
url = sys.argv[-1]
query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
def fetch(url, data=None):
    try:
        return urllib.request.urlopen(url, data, timeout=20)
    except urllib.error.HTTPError as error:
        return error
if does.get("closes"):
    sys.exit()
time.sleep(does.get("thinks", 0))
back = query["redirect_uri"]
for stray in does.get("strays", ()):
    fetch(back + stray)
    fetch(back, b"code=guess&state=guess")
if does.get("mode"):
    url = url.replace("form_post", does["mode"])
page = fetch(url)
text = page.read().decode()
form = re.search('<form[^>]*action="([^"]*)"', text)
if form:
    fields = re.findall('name="([^"]*)" value="([^"]*)"', text)
    data = {{name: html.unescape(value) for name, value in fields}}
    if does.get("twice"):
        fetch("https://login.microsoftonline.com/spy", urllib.parse.urlencode(data).encode())
    page = fetch(html.unescape(form[1]), urllib.parse.urlencode(data).encode())
    text = page.read().decode()
with open(os.path.join(folder, "browser.closed"), "w") as log:
    log.write(page.geturl() + "\\n" + text)
"""


def open_browser(machine: Machine, **does: Any) -> None:
    """Give a machine a browser, and a person who uses it."""
    folder = str(machine.home.parent)
    machine.program("browser", BROWSER.format(python=sys.executable, folder=folder))
    (machine.home.parent / "browser.json").write_text(json.dumps(does))
    machine.environ["BROWSER"] = str(machine.folder / "browser")


def opened(machine: Machine) -> list[list[str]]:
    """The command lines of the browsers that were opened."""
    log = machine.home.parent / "browser.opened"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


SIGN_IN = ["GET login.microsoftonline.com", "POST login.microsoftonline.com"]
CHECKED = ["GET pkgs.dev.azure.com"]
REFRESHED = ["GET pkgs.dev.azure.com", "POST login.microsoftonline.com", "POST vssps.dev.azure.com"]


def secrets_of(machine: Machine) -> list[str]:
    """All that was secret among the services up to now."""
    services = machine.services
    found = [*services.tokens, *services.codes, *services.devices]
    for account in services.accounts.values():
        found += [*account.refresh_tokens, account.secret]
    for request in services.requests:
        found += [request.form.get(name, "") for name in ("code", "code_verifier", "device_code")]
    return [secret for secret in found if secret]


@pytest.mark.parametrize("mode", ["", "query"])
def test_a_browser_signs_in_once(machine: Machine, mode: str) -> None:
    open_browser(machine, mode=mode, strays=["/favicon.ico", "/?state=x", "/?code=c&state=s"])
    machine.environ.update(plug_in(machine, "small_keyring", SMALL_KEYRING))
    token = machine.get()
    assert opens(machine, token)
    assert machine.services.tokens[token].kind == "pat"
    seen = asked(machine)
    assert [each for each in seen if "login" in each] == SIGN_IN
    assert [each for each in seen if "login" not in each] == COLD
    assert machine.get(UPLOAD) == token
    assert asked(machine) == []
    address, _, page = (machine.home.parent / "browser.closed").read_text().partition("\n")
    assert re.fullmatch(r"http://localhost:\d+/?(done)?", address)
    assert "You are signed in at Microsoft. You can close this page" in page
    (command,) = opened(machine)
    assert machine.services.secrets.found(" ".join(command) + page) == []
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", urlsplit(address).port or 0), timeout=5).close()


def test_a_browser_where_no_keyring_is(machine: Machine) -> None:
    open_browser(machine)
    token = machine.get()
    assert machine.services.tokens[token].kind == "session"
    asked(machine)
    assert machine.get() == token
    assert asked(machine) == []


def test_another_organization_of_the_tenant_needs_no_second_sign_in(desktop: Machine) -> None:
    open_browser(desktop)
    desktop.services.organization("sister", CONTOSO_TENANT).add_feed("pyfeed")
    desktop.services.organizations["sister"].members.add("ada@contoso.example")
    desktop.get()
    asked(desktop)
    assert opens(desktop, desktop.get(FEED.replace("contoso", "sister")), "sister")
    assert asked(desktop) == REFRESHED
    assert len(opened(desktop)) == 1


TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Terminal:
    """A program on a terminal of its own: what it prints, and what a person sees."""

    def __init__(self, machine: Machine, *command: str, hides_stderr: bool = False, **changes: str) -> None:
        import pty  # not on Windows

        self.ours, theirs = pty.openpty()
        self.screen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, str(theirs), *command],
            env={**machine.environ, **changes},
            cwd=machine.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if hides_stderr else theirs,
            pass_fds=(theirs,),
            start_new_session=True,
            text=True,
        )
        os.close(theirs)
        self.machine = machine
        machine.screens.append(self)
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self) -> None:
        with contextlib.suppress(OSError):  # which is how a terminal ends
            while data := os.read(self.ours, 4096):
                self.screen += data.decode()

    def wait_for(self, pattern: str) -> re.Match[str]:
        for _ in range(200):
            match = re.search(pattern, self.screen)
            if match:
                return match
            time.sleep(0.1)
        raise AssertionError(f"{pattern} is not on the screen: {self.screen}")

    def end(self) -> tuple[int, str]:
        """Return exit status and standard output."""
        output, errors = self.process.communicate(timeout=60)
        self.machine.note({}, output, errors)
        return self.process.returncode, output

    def said(self) -> list[str]:
        """What stays on the screen: lines that were not written over."""
        lines = [line.split("\r")[-1] for line in self.screen.replace("\r\n", "\n").split("\n")]
        return [line for line in lines if line.strip()]


KEYRING_GET = (str(BIN / "keyring"), "get", FEED, "me")
ENTER = "open https://microsoft.com/devicelogin and enter the code ([A-Z0-9-]+) within 3 min"


@pytest.mark.parametrize("hides_stderr", [False, True], ids=["stderr", "stderr thrown away"])
def test_a_terminal_shows_the_device_code_once(machine: Machine, hides_stderr: bool) -> None:
    machine.services.device_interval = 1.0
    terminal = Terminal(machine, *KEYRING_GET, hides_stderr=hides_stderr)
    code = terminal.wait_for(ENTER)[1]
    terminal.wait_for("Waiting for you to sign in to contoso: 17[0-9] s")
    machine.services.approve_device(code, machine.services.accounts["ada@contoso.example"])
    status, output = terminal.end()
    assert status == 0
    assert opens(machine, output.strip())
    assert re.fullmatch(r"\S+\n", output)
    (line,) = terminal.said()
    assert line.startswith("keyrings.artifacts: To sign in to organization 'contoso', open")
    asked(machine)
    assert machine.get() == output.strip()
    assert asked(machine) == []


def test_a_declined_device_code(machine: Machine) -> None:
    machine.services.device_interval = 1.0
    terminal = Terminal(machine, *KEYRING_GET)
    machine.services.decline_device(terminal.wait_for(ENTER)[1])
    assert terminal.end() == (1, "")
    assert "device_code: the sign-in was declined" in terminal.said()[1]
    assert len(terminal.said()) == 2
    assert not machine.files()


def test_ctrl_c_ends_the_wait(machine: Machine) -> None:
    terminal = Terminal(machine, *KEYRING_GET)
    terminal.wait_for(ENTER)
    os.write(terminal.ours, b"\x03")
    assert terminal.end() == (130, "")
    assert "Traceback" not in terminal.screen
    open_browser(machine)
    assert opens(machine, machine.get())  # and the next has its turn at once


NOBODY_IS_ASKED = [
    ({}, "there is neither a browser nor a terminal"),
    ({"CI": "true"}, "CI is set"),
    ({"TF_BUILD": "True"}, "TF_BUILD is set"),
    ({"GITHUB_ACTIONS": "true"}, "GITHUB_ACTIONS is set"),
    ({"ARTIFACTS_KEYRING_NONINTERACTIVE_MODE": "true"}, "ARTIFACTS_KEYRING_NONINTERACTIVE_MODE is set"),
    ({"PIP_NO_INPUT": "1"}, "PIP_NO_INPUT is set"),
]


@pytest.mark.parametrize(("environ", "reason"), NOBODY_IS_ASKED, ids=[r for _, r in NOBODY_IS_ASKED])
def test_nobody_is_asked_who_could_not_answer(machine: Machine, environ: dict[str, str], reason: str) -> None:
    if environ:
        open_browser(machine)
    assert machine.fails(**environ) == NOBODY.format(reason, CONTOSO_TENANT)
    assert asked(machine) == ["GET pkgs.dev.azure.com"]
    assert not opened(machine)


def test_a_text_browser_is_not_opened(machine: Machine) -> None:
    machine.program("lynx", "#!/bin/sh\ntouch was-run\n")
    machine.fails(BROWSER="lynx")
    assert not (machine.home / "was-run").exists()


def test_a_browser_that_does_not_start_leaves_the_terminal(machine: Machine) -> None:
    machine.program("browser", "#!/bin/sh\nexit 3\n")
    machine.services.device_interval = 1.0
    terminal = Terminal(machine, *KEYRING_GET, BROWSER=str(machine.folder / "browser"))
    code = terminal.wait_for(ENTER)[1]
    machine.services.approve_device(code, machine.services.accounts["ada@contoso.example"])
    assert terminal.end()[0] == 0


def in_parallel(
    machine: Machine, *urls: str, program: str = str(BIN / "keyring"), **changes: str
) -> list[str]:
    """What `keyring get` prints in as many processes at once; none of which fails."""
    processes = [
        subprocess.Popen(
            [program, "get", url, "me"],
            env={**machine.environ, **changes},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for url in urls
    ]
    answers = [process.communicate(timeout=120) for process in processes]
    for answer in answers:
        machine.note({**machine.environ, **changes}, *answer)
    assert [errors for _, errors in answers if errors] == []
    assert [process.returncode for process in processes] == [0] * len(urls)
    return [output.strip() for output, _ in answers]


SPELLINGS = (
    FEED,
    UPLOAD,
    FEED.rstrip("/"),
    "https://contoso.pkgs.visualstudio.com/_packaging/pyfeed/pypi/simple/",
)


def test_of_eight_processes_one_signs_in(machine: Machine) -> None:
    open_browser(machine, thinks=1)
    tokens = in_parallel(machine, *SPELLINGS, *SPELLINGS)
    assert len(set(tokens)) == 1
    assert len(opened(machine)) == 1
    seen = asked(machine)
    assert seen.count("POST login.microsoftonline.com") == 1
    assert seen.count("POST vssps.dev.azure.com") == 1


def test_of_eight_threads_one_signs_in(machine: Machine) -> None:
    open_browser(machine, thinks=1)
    code = (
        "import sys, concurrent.futures as f, keyrings_artifacts as k\n"
        "backends = [k.ArtifactsKeyringBackend() for _ in range(4)]\n"
        "with f.ThreadPoolExecutor(8) as pool:\n"
        "    ask = lambda i: backends[i % 4].get_password(sys.argv[1 + i % 4], 'me')\n"
        "    print(*pool.map(ask, range(8)))"
    )
    tokens = machine.python(code, *SPELLINGS).split()
    assert len(tokens) == 8
    assert len(set(tokens)) == 1
    assert asked(machine).count("POST vssps.dev.azure.com") == 1
    assert len(opened(machine)) == 1


def test_a_killed_process_gives_up_its_turn(machine: Machine) -> None:
    open_browser(machine, closes=True)
    command = [str(BIN / "keyring"), "get", FEED, "me"]
    holder = subprocess.Popen(command, env=machine.environ, stdin=subprocess.DEVNULL, start_new_session=True)
    for _ in range(100):
        if opened(machine):
            break
        time.sleep(0.1)
    holder.kill()
    holder.wait()
    open_browser(machine)
    assert opens(machine, machine.get())


def test_a_browser_that_fails_late_leaves_the_terminal(machine: Machine) -> None:
    machine.program("browser", "#!/bin/sh\nsleep 2\nexit 3\n")
    terminal = Terminal(machine, *KEYRING_GET, BROWSER=str(machine.folder / "browser"))
    terminal.wait_for(ENTER)
    os.write(terminal.ours, b"\x03")
    assert terminal.end()[0] == 130


def test_one_process_is_turned_down_once(machine: Machine) -> None:
    open_browser(machine)
    machine.services.sign_in_outcome = "access_denied"
    code = "import sys, keyring\nfor _ in range(3): assert keyring.get_credential(sys.argv[1], None) is None"
    done = machine.run(sys.executable, "-c", code, FEED)
    assert "browser: the sign-in was declined" in done.stderr
    assert len(opened(machine)) == 1


def test_a_clock_that_was_ahead_does_not_silence_the_next_sign_in(machine: Machine) -> None:
    open_browser(machine)
    machine.services.sign_in_outcome = "access_denied"
    machine.fails(**moved_clock(machine, 10 * DAY))
    machine.services.sign_in_outcome = ""
    assert opens(machine, machine.get())


def test_when_a_person_turns_it_down_the_others_do_not_ask_again(machine: Machine) -> None:
    open_browser(machine, thinks=2)
    machine.services.sign_in_outcome = "access_denied"
    command = [str(BIN / "keyring"), "get", FEED, "me"]
    quiet = {"stdin": subprocess.DEVNULL, "start_new_session": True, "text": True}
    processes = [
        subprocess.Popen(command, env=machine.environ, stderr=subprocess.PIPE, **quiet)  # type: ignore[call-overload]  # keywords in a dictionary
        for _ in range(3)
    ]
    said = sorted(process.communicate(timeout=60)[1] for process in processes)
    machine.note({}, "", "".join(said))
    assert len(opened(machine)) == 1
    came_to_nothing = (
        "keyrings.artifacts: The sign-in to organization 'contoso' that was waited for came to nothing: "
        "run the command again.\n"
    )
    assert said[:2] == [came_to_nothing] * 2
    assert said[2].startswith("keyrings.artifacts: browser: the sign-in was declined")


def test_400_days_later_nobody_is_asked_while_the_refresh_token_lives(desktop: Machine) -> None:
    open_browser(desktop)
    desktop.get()
    later = moved_clock(desktop, 400 * DAY)
    desktop.services.clock = 400 * DAY
    ada = desktop.services.accounts["ada@contoso.example"]
    ada.refresh_tokens = dict.fromkeys(ada.refresh_tokens, desktop.services.now())
    asked(desktop)
    assert opens(desktop, desktop.get(**later))
    assert asked(desktop) == REFRESHED
    assert len(opened(desktop)) == 1


def test_400_days_later_somebody_is_asked_once_when_it_does_not(desktop: Machine) -> None:
    open_browser(desktop)
    desktop.get()
    later = moved_clock(desktop, 400 * DAY)
    desktop.services.clock = 400 * DAY
    done = desktop.keyring("get", FEED, "me", **later)
    assert opens(desktop, done.stdout.strip())
    assert done.stderr == "keyrings.artifacts: The earlier sign-in to organization 'contoso' is over.\n"
    assert len(opened(desktop)) == 2
    assert desktop.get(**later) == done.stdout.strip()
    assert len(opened(desktop)) == 2


def test_a_refresh_token_is_used_before_it_ends_of_idleness(desktop: Machine) -> None:
    """Both last 90 days: used for nothing else, it would be gone when the PAT is."""
    open_browser(desktop)
    token = desktop.get()
    asked(desktop)
    for days, requests in ((20, CHECKED), (40, [*CHECKED, "POST login.microsoftonline.com"]), (60, CHECKED)):
        desktop.services.clock = days * DAY
        assert desktop.get(**moved_clock(desktop, days * DAY)) == token
        assert asked(desktop) == requests
    desktop.services.clock = 95 * DAY
    assert opens(desktop, desktop.get(**moved_clock(desktop, 95 * DAY)))
    assert len(opened(desktop)) == 1


def test_a_revoked_session_is_renewed_in_silence(desktop: Machine) -> None:
    open_browser(desktop)
    desktop.services.revoke(desktop.get())
    asked(desktop)
    desktop.services.clock = 3700
    assert opens(desktop, desktop.get(**moved_clock(desktop, 3700)))
    assert asked(desktop) == ["GET pkgs.dev.azure.com", *REFRESHED]
    assert len(opened(desktop)) == 1


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ({"closes": True}, "Nobody signed in to organization 'contoso' within 2 seconds"),
        ({"outcome": "access_denied"}, "browser: the sign-in was declined"),
        ({"outcome": "server_error"}, "browser: Entra has trouble (server_error): try again"),
        ({"used": True}, "browser: Entra did not accept the sign-in (AADSTS54005)"),
    ],
    ids=["window closed", "declined", "trouble", "code redeemed before"],
)
def test_a_sign_in_that_comes_to_nothing(machine: Machine, does: dict[str, Any], said: str) -> None:
    open_browser(machine, **does)
    machine.services.sign_in_outcome = does.get("outcome", "")

    def redeem_first(request: Recorded) -> Reply | None:
        for code in machine.services.codes.values() if does.get("used") else ():
            code.used = code.used or "authorization_code" in request.form.values()
        return None

    machine.services.faults.append(redeem_first)
    assert machine.fails(**{TIMEOUT: "2"}).startswith(said)
    assert not machine.files()
    machine.services.sign_in_outcome = ""
    machine.services.faults.clear()
    open_browser(machine)
    assert opens(machine, machine.get())


@pytest.mark.parametrize("hours", [-1, 1], ids=["slow", "fast"])
def test_a_clock_an_hour_wrong(machine: Machine, hours: int) -> None:
    open_browser(machine)
    wrong = moved_clock(machine, hours * HOUR)
    token = machine.get(**wrong)
    assert opens(machine, token)


def test_signing_out_revokes_the_pat_and_leaves_nothing(desktop: Machine) -> None:
    open_browser(desktop)
    token = desktop.get()
    asked(desktop)
    done = desktop.keyring("del", FEED, "me")
    assert done.stderr == (
        "keyrings.artifacts: Signed out of organization 'contoso'. Nothing else of it is left here.\n"
    )
    assert asked(desktop) == ["POST login.microsoftonline.com", "DELETE vssps.dev.azure.com"]
    assert desktop.services.live(token) is None
    assert "Nothing is kept" in desktop.keyring("del", FEED, "me", status=1).stderr.splitlines()[-1]
    desktop.get()
    assert len(opened(desktop)) == 2


def test_signing_out_says_when_only_the_feed_could_tell_what_is_left(machine: Machine) -> None:
    chain = plug_in(machine, "small_keyring", SMALL_KEYRING)
    open_browser(machine)
    machine.get(**chain)
    path = machine.home / "small-keyring.json"
    kept = json.loads(path.read_text())
    (name,) = (name for name in kept if name.startswith("keyrings.artifacts/session/"))
    path.write_text(json.dumps({**kept, name: "spoiled"}))
    dead = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    said = machine.keyring("del", FEED, "me", **chain, **dead).stderr
    assert said.startswith(
        "keyrings.artifacts: Signed out of organization 'contoso'. An earlier sign-in may be left, of which "
        "only the feed can tell. The proxy did not let us through"
    )
    said = machine.keyring("del", FEED, "me", status=1, **chain, **dead).stderr
    assert "PasswordDeleteError: Nothing was found of organization 'contoso'. An earlier sign-in" in said
    assert machine.keyring("del", FEED, "me", **chain).stderr == (
        "keyrings.artifacts: Signed out of organization 'contoso'. Nothing else of it is left here.\n"
    )
    assert json.loads(path.read_text()) == {}


@pytest.mark.parametrize("spoiled", ["refused", "a sign-in page"])
def test_signing_out_says_when_a_pat_could_not_be_revoked(desktop: Machine, spoiled: str) -> None:
    open_browser(desktop)
    desktop.get()
    if spoiled == "refused":
        desktop.services.accounts["ada@contoso.example"].refresh_tokens.clear()
    else:
        page = Reply(203, [("Content-Type", "text/html")], b"<html>")
        desktop.services.faults.append(fault(page, 9, path_contains="tokens/pats"))
    done = desktop.keyring("del", FEED, "me")
    assert re.fullmatch(
        r"keyrings.artifacts: Signed out of organization 'contoso'. Its PAT 'keyrings.artifacts on \S+' "
        r"could not be revoked: do so at https://dev.azure.com/contoso/_usersSettings/tokens. Nothing "
        r"else of it is left here.\n",
        done.stderr,
    )
    assert len(opened(desktop)) == 1


def test_no_secret_is_in_the_log(machine: Machine) -> None:
    open_browser(machine)
    code = (
        "import logging, sys, keyring\n"
        "logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)\n"
        "assert keyring.get_password(sys.argv[1], 'me')"
    )
    log = machine.python(code, FEED, **UNLOGGED)
    assert "DEBUG:keyrings_artifacts:" in log
    assert machine.services.secrets.found(log) == []


# --- clients ----------------------------------------------------------------------------------

SOURCE = Path(__file__).parent
OURS = "keyrings.artifacts"  # among requirements: the wheel of this project
WITH_USER = FEED.replace("https://", "https://VssSessionToken@")
ALONE = ("keyring", OURS)  # as README's `uv tool install` makes it
SERVED = {"pkgs.dev.azure.com:443", "pkgsprodsu3weu.blob.core.windows.net:443", "vssps.dev.azure.com:443"}


class Clients:
    """Programs as people install them: each in an environment of its own, made at first use.

    That happens outside of the stand-in's environment, with the package index of this machine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environments: dict[tuple[str, ...], Path] = {}
        found = shutil.which("uv", path=str(BIN)) or shutil.which("uv")
        assert found, "uv is missing: pip install '.[test]'"
        self.uv = found

    def run(self, *command: str, **changes: str) -> None:
        done = subprocess.run(
            command,
            env={**os.environ, **changes},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"

    @functools.cached_property
    def wheel(self) -> Path:
        """The project's wheel; the editable installation that runs the tests is no client's."""
        dist = self.folder / "dist"
        python = ("--python", sys.executable)
        self.run(self.uv, "build", "--wheel", *python, "--out-dir", str(dist), str(SOURCE))
        (wheel,) = dist.glob("*.whl")
        return wheel

    def programs(self, *requirements: str) -> Path:
        """The folder of programs of an environment with these packages."""
        if requirements not in self.environments:
            venv = self.folder / f"venv-{len(self.environments)}"
            self.run(self.uv, "venv", "--python", sys.executable, str(venv))
            packages = [str(self.wheel) if each == OURS else each for each in requirements]
            self.run(self.uv, "pip", "install", "--python", str(venv), *packages)
            self.environments[requirements] = venv / BIN.name
        return self.environments[requirements]


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(tmp_path_factory.mktemp("clients"))


def set_path(machine: Machine, *folders: Path) -> None:
    """Put these folders on PATH, and the programs of the machine; not those of the tests."""
    system = ["/usr/bin", "/bin"]
    machine.environ["PATH"] = os.pathsep.join([str(machine.folder), *map(str, folders), *system])


# The extra `encrypted-file`, in an environment of its own: keyrings.alt's own keyrings are found by keyring.
SEALED = (*ALONE, "keyrings.alt", "pycryptodomex")


def sealed_get(machine: Machine, clients: Clients, **changes: str) -> str:
    set_path(machine, clients.programs(*SEALED))
    done = machine.run("keyring", "get", FEED, "me", **changes)
    assert done.stderr == ""
    return done.stdout.strip()


def test_an_encrypted_file_keeps_what_a_keyring_would(machine: Machine, clients: Clients) -> None:
    """A browser's sign-in gives a PAT and a refresh token, which no plain file may have."""
    set_path(machine, clients.programs(*SEALED))
    open_browser(machine)
    token = sealed_get(machine, clients)
    assert machine.services.tokens[token].kind == "pat"
    secrets = secrets_of(machine)
    asked(machine)
    assert sealed_get(machine, clients) == token
    assert asked(machine) == []
    folder = next(machine.home.rglob("keyrings_artifacts"))
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")
    assert names == ["key", f"refresh-{CONTOSO_TENANT}.sealed", "session-contoso.sealed"]
    assert len((folder / "key").read_bytes()) == 32
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    contents = [path.read_bytes() for path in machine.files()]
    assert not [secret for secret in secrets if any(secret.encode() in each for each in contents)]
    assert not list(machine.home.rglob("*.cfg"))  # keyrings.alt's own files


def test_an_encrypted_file_that_is_spoiled_is_replaced(machine: Machine, clients: Clients) -> None:
    machine.az()
    token = sealed_get(machine, clients)
    folder = next(machine.home.rglob("keyrings_artifacts"))
    for spoil in (
        lambda: (folder / "key").write_bytes(b"short"),
        lambda: (folder / "key").unlink(),
        lambda: (folder / "key").chmod(0o644),
        lambda: (folder / "key").write_bytes(os.urandom(32)),
        lambda: (folder / "session-contoso.sealed").write_bytes(b"{}"),
        lambda: (folder / "session-contoso.sealed").write_bytes(b"\xff\x00"),
    ):
        spoil()
        asked(machine)
        token = sealed_get(machine, clients)
        assert opens(machine, token)
        assert asked(machine) == COLD
        assert sealed_get(machine, clients) == token
        assert asked(machine) == []


def test_two_at_once_agree_on_a_key(machine: Machine, clients: Clients) -> None:
    machine.az()
    set_path(machine, clients.programs(*SEALED))
    feeds = [FEED, UPLOAD] * 3
    command = str(clients.programs(*SEALED) / "keyring")
    printed = in_parallel(machine, *feeds, program=command)
    asked(machine)
    for feed, token in zip(feeds, printed):
        assert machine.run(command, "get", feed, "me").stdout.strip() == token
    assert asked(machine) == []


def test_an_encrypted_file_is_for_feeds_alone(machine: Machine, clients: Clients) -> None:
    programs = clients.programs(*SEALED)
    machine.az()
    sealed_get(machine, clients)
    listed = machine.run(str(programs / "keyring"), "--list-backends").stdout
    assert "keyrings_artifacts.ArtifactsKeyringBackend" in listed
    assert "Sealed" not in listed
    assert machine.run(str(programs / "keyring"), "get", "other", "me", status=1).stdout == ""


def test_an_identitys_token_lies_in_no_encrypted_file_either(machine: Machine, clients: Clients) -> None:
    set_path(machine, clients.programs(*SEALED))
    environ = with_secret(machine)
    assert opens(machine, sealed_get(machine, clients, **environ))
    assert not list(machine.home.rglob("*.sealed"))


def test_the_wheel_is_one_module(clients: Clients) -> None:
    """Pure Python, and nothing but metadata beside it."""
    assert clients.wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(clients.wheel) as archive:
        names = [each for each in archive.namelist() if ".dist-info/" not in each]
    assert names == ["keyrings_artifacts.py"]


def test_under_pip_the_device_code_is_seen_once_and_the_installation_goes_on(
    machine: Machine, clients: Clients
) -> None:
    """pip 26.2 and newer throws away what the program `keyring` says on stderr."""
    machine.services.device_interval = 1.0
    set_path(machine, clients.programs(*ALONE))
    pip = str(clients.programs("pip") / "pip")
    target = str(machine.home / "site")
    command = (pip, "install", "--keyring-provider", "subprocess", "--target", target)
    terminal = Terminal(machine, *command, "--index-url", WITH_USER, "contoso-greeting")
    code = terminal.wait_for(ENTER)[1]
    machine.services.approve_device(code, machine.services.accounts["ada@contoso.example"])
    status, _ = terminal.end()
    assert status == 0
    assert (Path(target) / "contoso_greeting.py").exists()
    assert len(re.findall(ENTER, terminal.screen)) == 1
    assert len(machine.services.seen(path_contains="/devicecode")) == 1


class Client(NamedTuple):
    """How a program is called in an empty folder, and what it finds there and on PATH.

    The blocks of the README say the same, and are typed in tests below.
    """

    command: str
    packages: tuple[str, ...] = ()  # of the program's own environment; none: that of uv
    on_path: tuple[str, ...] = ()
    project: str = ""  # pyproject.toml
    environ: Mapping[str, str] = {}
    takes_proxy: bool = True


PACKAGES = "contoso-greeting contoso-two contoso-three"  # more than one, to be fetched at once
PIP = "pip install --target {folder}/site --index-url "
PIP_SUBPROCESS = {"PIP_KEYRING_PROVIDER": "subprocess"}
PIP_IMPORT = {"PIP_KEYRING_PROVIDER": "import"}
UV = {"UV_KEYRING_PROVIDER": "subprocess", "UV_PYTHON": sys.executable, "UV_PYTHON_DOWNLOADS": "never"}
PROJECT = f"""
[project]
name = "project"
version = "1.0"
requires-python = ">=3.9"
dependencies = {json.dumps(PACKAGES.split())}
"""
# Two feeds of one organization: uv runs two `keyring` at the same time.
UV_INDEX = f"""
[[tool.uv.index]]
name = "contoso"
url = "{FEED}"
authenticate = "always"
default = true

[[tool.uv.index]]
name = "project"
url = "{FEED.replace("contoso/", "contoso/My%20Project/").replace("pyfeed", "projfeed")}"
authenticate = "always"
explicit = true

[tool.uv.sources]
contoso-two = {{ index = "project" }}
"""
POETRY_SOURCE = f"""
[[tool.poetry.source]]
name = "contoso"
url = "{FEED}"
priority = "primary"
"""
POETRY = {"POETRY_VIRTUALENVS_IN_PROJECT": "true"}
PDM_SOURCE = f"""
[[tool.pdm.source]]
name = "pypi"
url = "{FEED}"
"""
PDM_INSTALL = "pdm install --no-self --project {folder}"
PDM = {"PDM_CHECK_UPDATE": "false"}  # which is asked for at pypi.org

INSTALLERS = {
    "pip-23-subprocess": Client(
        f"{PIP}{WITH_USER} {PACKAGES}", ("pip==23.*",), ALONE, environ=PIP_SUBPROCESS
    ),
    "pip-23-import": Client(f"{PIP}{FEED} {PACKAGES}", ("pip==23.*", *ALONE), environ=PIP_IMPORT),
    "pip-subprocess": Client(f"{PIP}{WITH_USER} {PACKAGES}", ("pip",), ALONE, environ=PIP_SUBPROCESS),
    "pip-import": Client(f"{PIP}{FEED} {PACKAGES}", ("pip", *ALONE), environ=PIP_IMPORT),
    "uv-user": Client(
        f"uv pip install --target {{folder}}/site --default-index {WITH_USER} {PACKAGES}",
        on_path=ALONE,
        environ=UV,
    ),
    "uv-always": Client("uv sync --directory {folder}", (), ALONE, PROJECT + UV_INDEX, UV),
    "poetry": Client(
        "poetry install --no-root --directory {folder}",
        ("poetry", OURS),
        project=PROJECT + POETRY_SOURCE,
        environ=POETRY,
    ),
    "pdm": Client(PDM_INSTALL, ("pdm[locked]", *ALONE), (), PROJECT + PDM_SOURCE, PDM),
    "pdm-path": Client(PDM_INSTALL, ("pdm[locked]",), ALONE, PROJECT + PDM_SOURCE, PDM),
}
PUBLISHERS = {
    "twine": Client(f"twine upload --non-interactive --repository-url {UPLOAD} {{wheels}}", ("twine", OURS)),
    "uv": Client(
        f"uv publish --publish-url {UPLOAD} --username VssSessionToken {{wheels}}", on_path=ALONE, environ=UV
    ),
    "hatch": Client(
        f"hatch publish --no-prompt --repo {UPLOAD} --user VssSessionToken {{wheels}}",
        ("hatch", OURS),
        takes_proxy=False,
    ),
}


def without_proxy(machine: Machine) -> dict[str, str]:
    """Return the change of environment that leads a Python program that uses no proxy to us."""
    folder = machine.home.parent / "names"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import socket\n"
        "real = socket.create_connection\n"
        "def ours(address, *more, **options):\n"
        f"    here = ('127.0.0.1', {machine.services.tls_port})\n"
        "    return real(here if address[1] == 443 else address, *more, **options)\n"
        "socket.create_connection = ours\n"
    )
    return {"PYTHONPATH": str(folder)}


def call(
    machine: Machine, clients: Clients, client: Client, folder: Path, status: int = 0, **names: object
) -> None:
    """Run a client in a folder, with what it needs on PATH and in its own environment."""
    if client.project:
        (folder / "pyproject.toml").write_text(client.project)
    program, *arguments = client.command.format(folder=folder, **names).split()
    own = clients.programs(*client.packages) if client.packages else Path(clients.uv).parent
    set_path(machine, *([clients.programs(*client.on_path)] if client.on_path else []))
    machine.environ.pop("UV_NO_CONFIG", None)  # under which uv does not read pyproject.toml either
    environ = {**client.environ, **({} if client.takes_proxy else without_proxy(machine))}
    machine.run(str(own / program), *arguments, status=status, **environ)


def visits(machine: Machine) -> tuple[set[str], int]:
    """The kinds of token that opened a feed, and how many were exchanged for, since last time."""
    services = machine.services
    assert {tunnel.target for tunnel in services.tunnels} <= SERVED
    assert {request.scheme for request in services.seen()} <= {"https"}
    opened = [each for each in services.seen(host="pkgs.dev.azure.com") if each.status < 400]
    tokens = [services.tokens.get(presented(each)[1]) for each in opened]
    exchanges = services.seen(host="vssps.dev.azure.com", method="POST")
    services.forget()
    return {token.kind if token else "none" for token in tokens}, len(exchanges)


def greetings(machine: Machine, folder: Path) -> list[str]:
    """What the packages say, once imported, that a client has installed below a folder."""
    (site,) = {path.parent for path in folder.rglob("contoso_*.py")}
    code = "import importlib, sys\nfor name in sys.argv[1:]:\n"
    code += "    print(importlib.import_module(name.replace('-', '_')).hello())"
    return machine.python(code, *PACKAGES.split(), PYTHONPATH=str(site)).splitlines()


@pytest.mark.parametrize("name", INSTALLERS)
def test_a_client_installs(machine: Machine, clients: Clients, name: str) -> None:
    """Cold, one token is exchanged for, however often the client asks; and then none."""
    machine.az()
    contoso = machine.services.organizations["contoso"]
    for package in PACKAGES.split():
        contoso.add_package("pyfeed", package, "1.0")
    contoso.add_package("projfeed", "contoso-two", "1.0")
    for exchanges in (1, 0):
        folder = machine.home / f"project-{exchanges}"
        folder.mkdir()
        call(machine, clients, INSTALLERS[name], folder)
        assert visits(machine) == ({"session"}, exchanges)
        assert greetings(machine, folder) == [f"Hello from {each} 1.0" for each in PACKAGES.split()]
        shutil.rmtree(machine.home / ".cache", ignore_errors=True)


@pytest.mark.parametrize("name", PUBLISHERS)
def test_a_client_publishes(machine: Machine, clients: Clients, name: str) -> None:
    machine.az()
    feed = machine.services.organizations["contoso"].feed("pyfeed")
    assert feed
    for exchanges in (1, 0):
        made = [build_wheel(name, f"1.{exchanges}") for name in ("contoso-hail", "contoso-bye")]
        for filename, content in made:
            (machine.home / filename).write_bytes(content)
        wheels = " ".join(str(machine.home / filename) for filename, _ in made)
        call(machine, clients, PUBLISHERS[name], machine.home, wheels=wheels)
        assert visits(machine) == ({"session"}, exchanges)
        assert all(feed.has(filename) for filename, _ in made)


@pytest.mark.parametrize("pip", ["pip==23.*", "pip"])
def test_pip_s_subprocess_mode_needs_a_user_name_before_26_2(
    machine: Machine, clients: Clients, pip: str
) -> None:
    machine.az()
    version = machine.run(str(clients.programs(pip) / "pip"), "--version").stdout.split()[1]
    asks = tuple(map(int, version.split(".")[:2])) >= (26, 2)
    command = PIP + FEED + " --no-input contoso-greeting"
    client = Client(command, (pip,), ALONE, environ=PIP_SUBPROCESS)
    call(machine, clients, client, machine.home, status=0 if asks else 1)
    assert visits(machine) == (({"session"}, 1) if asks else (set(), 0))


# A project that is built with a package of the feed.
NESTED = """
[build-system]
requires = ["contoso-greeting"]
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import pathlib, contoso_greeting
def build_wheel(folder, *_):
    (wheel,) = pathlib.Path().glob("*.whl")
    wheel.rename(pathlib.Path(folder, wheel.name))
    return wheel.name
"""


@pytest.mark.parametrize("pip", ["pip==23.*", "pip"])
def test_pip_s_nested_builds_need_the_variable(machine: Machine, clients: Clients, pip: str) -> None:
    """pip does not pass the option --keyring-provider on to them."""
    machine.az()
    filename, content = build_wheel("nested", "1.0")
    command = f"{PIP}{WITH_USER} --no-input {{option}} {{folder}}"
    client = Client(command, (pip,), ALONE, NESTED)
    option = "--keyring-provider=subprocess"
    for status, exchanges, environ in ((1, 0, {}), (0, 1, PIP_SUBPROCESS), (0, 0, PIP_SUBPROCESS)):
        (machine.home / filename).write_bytes(content)
        (machine.home / "backend.py").write_text(BACKEND)
        shutil.rmtree(machine.home / "site", ignore_errors=True)
        client = client._replace(environ=environ)
        call(machine, clients, client, machine.home, status, option="" if environ else option)
        assert visits(machine) == (set() if status else {"session"}, exchanges)
        assert (machine.home / "site" / "nested.py").exists() == (status == 0)


def printed(machine: Machine, **changes: str) -> str:
    """The kind of the token that the first `keyring` on PATH prints; none if it opens no feed."""
    done = machine.run("keyring", "get", FEED, "VssSessionToken", **changes)
    token = machine.services.live(done.stdout.strip())
    admitted = token and machine.services.organizations["contoso"].admits(token)
    return token.kind if token and admitted else "none"


def test_pipx_injects_it_into_keyring(machine: Machine, clients: Clients) -> None:
    home = machine.home.parent / "pipx"
    places = {
        "PIPX_HOME": str(home),
        "PIPX_BIN_DIR": str(home / "bin"),
        "PIPX_MAN_DIR": str(home / "man"),
        "PIPX_DEFAULT_PYTHON": sys.executable,
    }
    pipx = str(clients.programs("pipx") / "pipx")
    clients.run(pipx, "install", "keyring", **places)
    clients.run(pipx, "inject", "keyring", str(clients.wheel), **places)
    machine.az()
    set_path(machine, home / "bin")
    for exchanges in (1, 0):
        assert printed(machine) == "session"
        assert visits(machine) == (set(), exchanges)


@pytest.mark.parametrize(
    "packages", [("keyring==23.13.*", "urllib3==1.26.*"), ("keyring", "urllib3")], ids=["oldest", "newest"]
)
def test_the_copied_file_works_alone(machine: Machine, clients: Clients, packages: tuple[str, ...]) -> None:
    """Beside the oldest keyring and urllib3 that we support and beside the newest."""
    folder = machine.home.parent / "copy"
    folder.mkdir()
    shutil.copy(SOURCE / "keyrings_artifacts.py", folder)
    set_path(machine, clients.programs(*packages))
    machine.environ["PYTHONPATH"] = str(folder)
    machine.environ["PYTHON_KEYRING_BACKEND"] = "keyrings_artifacts.ArtifactsKeyringBackend"
    pat = folder / "pat"
    ada = machine.services.accounts["ada@contoso.example"]
    pat.write_text(machine.services.mint_devops(ada, "contoso"))
    assert printed(machine, AZURE_DEVOPS_EXT_PAT_FILE=str(pat)) == "pat"
    assert visits(machine) == (set(), 0)
    machine.az()
    for exchanges in (1, 0):
        assert printed(machine) == "session"
        assert visits(machine) == (set(), exchanges)


# --- machines, end to end ---------------------------------------------------------------------

# A machine with an identity asks for a token, and shows it to the feed; it needs no discovery.
TOKEN, CHECK = "POST login.microsoftonline.com", "GET pkgs.dev.azure.com"
GITHUB, PIPELINES = "GET pipelines.actions.githubusercontent.com", "POST dev.azure.com"
ASSERTION = {"client_assertion_type": JWT_BEARER, "grant_type": "client_credentials", "scope": DEFAULT_SCOPE}

Way = Callable[[Machine], "dict[str, str]"]


@pytest.fixture
def worker(machine: Machine) -> Machine:
    """A machine without people, whose proxy is for everything: nothing local may go there."""
    machine.environ.pop("NO_PROXY")
    machine.services.identities.system = machine.services.accounts["robot"]
    return machine


def robot(machine: Machine) -> Account:
    return machine.services.accounts["robot"]


def beside(machine: Machine, name: str, content: str | bytes) -> str:
    """Write a file that is not in the home folder, and return its path."""
    path = machine.home.parent / name
    path.touch(mode=0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def known(machine: Machine) -> dict[str, str]:
    return {"AZURE_TENANT_ID": CONTOSO_TENANT, "AZURE_CLIENT_ID": robot(machine).client_id}


def with_secret(machine: Machine) -> dict[str, str]:
    return {**known(machine), "AZURE_CLIENT_SECRET": robot(machine).secret}


def with_certificate(machine: Machine) -> dict[str, str]:
    certificate = make_certificate()
    robot(machine).certificates.append(certificate.leaf)
    path = beside(machine, "client.pem", certificate.pem())
    return {**known(machine), "AZURE_CLIENT_CERTIFICATE_PATH": path}


def with_pfx(machine: Machine) -> dict[str, str]:
    certificate = make_certificate()
    robot(machine).certificates.append(certificate.leaf)
    path = beside(machine, "client.pfx", certificate.pfx("pass word"))
    password = {"AZURE_CLIENT_CERTIFICATE_PASSWORD": "pass word"}
    return {**known(machine), "AZURE_CLIENT_CERTIFICATE_PATH": path, **password}


def in_cluster(machine: Machine) -> dict[str, str]:
    """Kubernetes, whose tokens lie in a file."""
    robot(machine).trusts.add((CLUSTER_ISSUER, CLUSTER_SUBJECT))
    token = federated_token(machine.services, CLUSTER_ISSUER, CLUSTER_SUBJECT, lifetime=DAY)
    path = beside(machine, "azure-identity-token", token)
    return {**known(machine), "AZURE_FEDERATED_TOKEN_FILE": path, "AZURE_AUTHORITY_HOST": AUTHORITY_HOST}


AUTHORITY_HOST = "https://login.microsoftonline.com/"  # as Kubernetes sets it, with a slash


def on_github(machine: Machine) -> dict[str, str]:
    robot(machine).trusts.add((GITHUB_ISSUER, GITHUB_SUBJECT))
    token = machine.services.pipeline.runner_token
    job = {"ACTIONS_ID_TOKEN_REQUEST_URL": GITHUB_URL, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": token}
    return {**known(machine), **job, "GITHUB_ACTIONS": "true", "CI": "true"}


def in_azure_pipelines(machine: Machine) -> dict[str, str]:
    """Another organization's pipeline: the token of its own job opens nothing here."""
    robot(machine).trusts.add((PIPELINE_ISSUER, PIPELINE_SUBJECT))
    return {
        "AZURESUBSCRIPTION_CLIENT_ID": robot(machine).client_id,
        "AZURESUBSCRIPTION_TENANT_ID": CONTOSO_TENANT,
        "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID": machine.services.pipeline.connection,
        "SYSTEM_OIDCREQUESTURI": PIPELINE_URL,
        "SYSTEM_ACCESSTOKEN": machine.services.pipeline.job_token,
        "SYSTEM_COLLECTIONURI": "https://dev.azure.com/fabrikam/",
        "TF_BUILD": "True",
    }


def in_task(machine: Machine) -> dict[str, str]:
    """AzureCLI@2 with addSpnToEnvironment, whose service connection has a secret."""
    names = {"servicePrincipalId": robot(machine).client_id, "servicePrincipalKey": robot(machine).secret}
    return {**names, "tenantId": CONTOSO_TENANT, "TF_BUILD": "True"}


def in_federated_task(machine: Machine) -> dict[str, str]:
    """The same, whose service connection has none."""
    robot(machine).trusts.add((PIPELINE_ISSUER, PIPELINE_SUBJECT))
    token = federated_token(machine.services, PIPELINE_ISSUER, PIPELINE_SUBJECT, lifetime=DAY)
    names = {"servicePrincipalId": robot(machine).client_id, "idToken": token}
    return {**names, "tenantId": CONTOSO_TENANT, "TF_BUILD": "True"}


def localhost(machine: Machine) -> str:
    return machine.services.local_url.replace("127.0.0.1", "localhost")


def on_app_service(machine: Machine) -> dict[str, str]:
    url, header = machine.services.local_url + APP_SERVICE, machine.services.identities.header
    # App Service sets the older pair too.
    older = {"MSI_ENDPOINT": url, "MSI_SECRET": header}
    return {"IDENTITY_ENDPOINT": url, "IDENTITY_HEADER": header, **older}


def on_container_apps(machine: Machine) -> dict[str, str]:
    header = machine.services.identities.header
    return {"IDENTITY_ENDPOINT": localhost(machine) + "/msi/token", "IDENTITY_HEADER": header}


def on_machine_learning(machine: Machine) -> dict[str, str]:
    header = machine.services.identities.header
    return {"MSI_ENDPOINT": machine.services.local_url + MACHINE_LEARNING, "MSI_SECRET": header}


def on_arc(machine: Machine) -> dict[str, str]:
    url = localhost(machine)
    folder = str(machine.services.folder / "azcmagent")
    return {"IDENTITY_ENDPOINT": url + INSTANCE, "IMDS_ENDPOINT": url, "STAND_IN_ARC": folder}


def on_fabric(machine: Machine) -> dict[str, str]:
    server = machine.services.open_fabric()
    header = machine.services.identities.header
    pin = {"IDENTITY_SERVER_THUMBPRINT": server.thumbprint}
    return {"IDENTITY_ENDPOINT": server.url, "IDENTITY_HEADER": header, **pin}


def on_instance(machine: Machine) -> dict[str, str]:
    """A virtual machine, whose endpoint is at another address than the real one's."""
    return {"AZURE_POD_IDENTITY_AUTHORITY_HOST": machine.services.local_url}


def for_feed(machine: Machine, **entry: str) -> dict[str, str]:
    text = json.dumps({"endpointCredentials": [{"endpoint": FEED, **entry}]})
    return {"ARTIFACTS_CREDENTIALPROVIDER_FEED_ENDPOINTS": text}


def feed_with_system(machine: Machine) -> dict[str, str]:
    return {**for_feed(machine, clientId="system"), **on_instance(machine)}


def feed_with_identity(machine: Machine) -> dict[str, str]:
    own = machine.services.identities
    own.system, own.assigned = None, [robot(machine), other_app(machine)]
    return {**for_feed(machine, clientId=robot(machine).client_id), **on_app_service(machine)}


def feed_with_certificate(machine: Machine) -> dict[str, str]:
    path = with_certificate(machine)["AZURE_CLIENT_CERTIFICATE_PATH"]
    return for_feed(machine, clientId=robot(machine).client_id, clientCertificateFilePath=path)


WAYS: dict[str, tuple[Way, list[str]]] = {
    "secret": (with_secret, [TOKEN, CHECK]),
    "certificate": (with_certificate, [TOKEN, CHECK]),
    "certificate in PFX": (with_pfx, [TOKEN, CHECK]),
    "token file": (in_cluster, [TOKEN, CHECK]),
    "GitHub Actions": (on_github, [GITHUB, TOKEN, CHECK]),
    "Azure Pipelines": (in_azure_pipelines, [PIPELINES, TOKEN, CHECK]),
    "AzureCLI@2 with a secret": (in_task, [TOKEN, CHECK]),
    "AzureCLI@2 with a token": (in_federated_task, [TOKEN, CHECK]),
    "App Service": (on_app_service, ["GET 127.0.0.1", CHECK]),
    "Container Apps": (on_container_apps, ["GET localhost", CHECK]),
    "Azure ML": (on_machine_learning, ["GET 127.0.0.1", CHECK]),
    "Arc": (on_arc, ["GET localhost", "GET localhost", CHECK]),
    "Service Fabric": (on_fabric, ["GET 127.0.0.1", CHECK]),
    "virtual machine": (on_instance, ["GET 127.0.0.1", CHECK]),
    "feed endpoint, system": (feed_with_system, ["GET 127.0.0.1", CHECK]),
    "feed endpoint, assigned": (feed_with_identity, ["GET 127.0.0.1", CHECK]),
    # Whose tenant the feed alone knows.
    "feed endpoint, certificate": (feed_with_certificate, [CHECK, TOKEN, CHECK]),
}
EVERY_WAY = pytest.mark.parametrize(("way", "cold"), WAYS.values(), ids=WAYS)


def owner(machine: Machine, token: str) -> str:
    """Whose token that is, and of which kind; a password that opens nothing is nobody's."""
    found = machine.services.live(token)
    if found is None or not machine.services.organizations["contoso"].admits(found):
        return "nobody"
    return f"{found.kind} of {found.account.upn}"


def gets(machine: Machine, whose: str, **changes: str) -> str:
    """Look the feed's password up, which has to be that; return it."""
    token = machine.get(**changes)
    found = owner(machine, token)
    assert found == whose
    return token


def other_app(machine: Machine) -> Account:
    """A second application that may read the feeds."""
    found = machine.services.accounts.get("drone")
    return found or machine.services.add_account("drone", CONTOSO_TENANT, "contoso", kind="app")


def later(machine: Machine, minutes: float) -> dict[str, str]:
    machine.services.clock = minutes * 60
    return moved_clock(machine, minutes * 60)


@EVERY_WAY
def test_an_application_signs_in_by_itself_and_leaves_no_trace(
    worker: Machine, way: Way, cold: list[str]
) -> None:
    environ = way(worker)
    for _ in range(2):
        gets(worker, "entra of robot", **environ)
        assert asked(worker) == cold
        assert worker.files() == []
        assert not list(worker.home.rglob("*.lock"))


@EVERY_WAY
def test_a_keyring_keeps_the_token_of_an_application_while_it_lives(
    worker: Machine, way: Way, cold: list[str]
) -> None:
    environ = {**way(worker), **plug_in(worker, "small_keyring", SMALL_KEYRING)}
    token = worker.get(**environ)
    asked(worker)
    again = worker.get(UPLOAD, **environ, **later(worker, 50))
    assert again == token
    assert asked(worker) == []
    gets(worker, "entra of robot", **environ, **later(worker, 62))
    assert cold[-2:] == asked(worker)[-2:]
    assert [path.name for path in worker.files()] == ["small-keyring.json"]


@pytest.mark.parametrize("way", [with_secret, on_instance])
def test_a_secret_service_keeps_the_token_of_an_application(desktop: Machine, way: Way) -> None:
    desktop.services.identities.system = robot(desktop)
    environ = way(desktop)
    token = desktop.get(**environ)
    asked(desktop)
    again = desktop.get(**environ)
    assert again == token
    assert asked(desktop) == []
    desktop.keyring("del", FEED, "me", **environ)
    again = desktop.get(**environ)
    assert again != token


def test_of_eight_processes_one_asks_for_the_application(worker: Machine) -> None:
    environ = {**with_secret(worker), **plug_in(worker, "small_keyring", SMALL_KEYRING)}
    assert len(set(in_parallel(worker, *SPELLINGS, *SPELLINGS, **environ))) == 1
    seen = asked(worker)
    assert (seen[0], len(seen)) == (TOKEN, 2)  # and a check, at the spelling of whoever was first


# What an identity endpoint may look at; the other headers are everybody's.
TELLING = ("authorization", "metadata", "secret", "x-identity-header", "x-tfs-fedauthredirect")


def whole(request: Recorded, **hidden: str) -> dict[str, Any]:
    """All that a request says, with the names of secrets in their place."""
    headers = {name: request.headers[name] for name in TELLING if name in request.headers}
    said = [request.method, f"{request.scheme}://{request.host}{request.path}", request.query, request.form]
    text = json.dumps([*said, headers])
    for name, value in hidden.items():
        text = text.replace(value, f"<{name}>")
    method, url, query, form, headers = json.loads(text)
    found = {"request": f"{method} {url}", "query": query, "form": form, "headers": headers}
    return {name: value for name, value in found.items() if value}


REDEEM = f"POST https://login.microsoftonline.com/{CONTOSO_TENANT}/oauth2/v2.0/token"
SUPPRESS = {"x-tfs-fedauthredirect": "Suppress"}  # which Entra does not know, and does not mind


def test_the_request_with_a_secret(worker: Machine) -> None:
    worker.get(**with_secret(worker))
    (request,) = worker.services.seen(host="login.microsoftonline.com")
    assert whole(request, secret=robot(worker).secret) == {
        "request": REDEEM,
        "form": {
            "client_id": robot(worker).client_id,
            "client_secret": "<secret>",
            "grant_type": "client_credentials",
            "scope": DEFAULT_SCOPE,
        },
        "headers": SUPPRESS,
    }


CHAIN = "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN"


@pytest.mark.parametrize("chain", ["", "true", "0"])
@pytest.mark.parametrize("form", ["pem", "pfx"])
def test_the_request_with_a_certificate(worker: Machine, form: str, chain: str) -> None:
    """Any value asks for the chain, as in Microsoft's libraries."""
    certificate = make_certificate()
    robot(worker).named = certificate if chain else None
    robot(worker).certificates = [] if chain else [certificate.leaf]
    content = certificate.pem(issuer=True) if form == "pem" else certificate.pfx()
    path = beside(worker, f"client.{form}", content)
    began = int(time.time())
    environ = {**known(worker), CHAIN: chain, "AZURE_CLIENT_CERTIFICATE_PATH": path}
    gets(worker, "entra of robot", **environ)
    (request,) = worker.services.seen(host="login.microsoftonline.com")
    assertion = request.form["client_assertion"]
    expected = {**ASSERTION, "client_id": robot(worker).client_id, "client_assertion": "<assertion>"}
    assert whole(request, assertion=assertion) == {"request": REDEEM, "form": expected, "headers": SUPPRESS}
    header, claims = read_jwt(assertion)
    sent = [base64.b64encode(der(each)).decode() for each in (certificate.leaf, certificate.issuer)]
    digest = base64url(hashlib.sha256(der(certificate.leaf)).digest())
    expected = {"alg": "PS256", "typ": "JWT", "x5t#S256": digest}
    assert header == ({**expected, "x5c": sent} if chain else expected)
    assert claims["iss"] == claims["sub"] == robot(worker).client_id
    assert f"POST {claims['aud']}" == REDEEM
    assert began - 5 <= claims["nbf"] <= claims["exp"] - 600 <= began + 30
    assert str(uuid.UUID(claims["jti"])) == claims["jti"]


def test_every_assertion_is_another(worker: Machine) -> None:
    environ = with_certificate(worker)
    worker.get(**environ)
    worker.get(**environ)
    sent = [read_jwt(each.form.get("client_assertion", "..."))[1] for each in worker.services.seen()]
    assert len({claims["jti"] for claims in sent if claims}) == 2


def test_a_password_for_a_key_that_is_not_locked(worker: Machine) -> None:
    gets(worker, "entra of robot", **with_certificate(worker), AZURE_CLIENT_CERTIFICATE_PASSWORD="left over")


def test_a_certificate_for_a_feed_comes_with_its_chain(worker: Machine) -> None:
    """As artifacts-credprovider sends it."""
    worker.get(**feed_with_certificate(worker))
    (request,) = worker.services.seen(host="login.microsoftonline.com")
    assert read_jwt(request.form["client_assertion"])[0]["x5c"]


@pytest.mark.parametrize("password", ["", "pass word", "pässwörd"])
def test_a_locked_key(worker: Machine, password: str) -> None:
    certificate = make_certificate()
    robot(worker).certificates = [certificate.leaf]
    path = beside(worker, "client.pem", certificate.pem(password))
    environ = {**known(worker), "AZURE_CLIENT_CERTIFICATE_PATH": path}
    environ["AZURE_CLIENT_CERTIFICATE_PASSWORD"] = password
    gets(worker, "entra of robot", **environ)


def test_the_request_with_a_token_file(worker: Machine) -> None:
    environ = in_cluster(worker)
    worker.get(**environ)
    (request,) = worker.services.seen(host="login.microsoftonline.com")
    assertion = Path(environ["AZURE_FEDERATED_TOKEN_FILE"]).read_text()
    expected = {**ASSERTION, "client_id": robot(worker).client_id, "client_assertion": "<assertion>"}
    assert whole(request, assertion=assertion) == {"request": REDEEM, "form": expected, "headers": SUPPRESS}


def test_the_requests_of_a_job_of_github(worker: Machine) -> None:
    worker.get(**on_github(worker))
    (request,) = worker.services.seen(host="pipelines.actions.githubusercontent.com")
    found = whole(request, runner=worker.services.pipeline.runner_token)
    assert found["request"] == f"GET {GITHUB_URL.partition('?')[0]}"
    assert found["query"] == {"api-version": "2.0", "audience": FEDERATED_AUDIENCE}
    assert found["headers"]["authorization"] == "bearer <runner>"
    (request,) = worker.services.seen(host="login.microsoftonline.com")
    found = whole(request, assertion=request.form["client_assertion"])
    assert found["form"]["client_assertion"] == "<assertion>"
    assert secret_goes_only_to(worker, worker.services.pipeline.runner_token) == {"GET pipelines.actions"}


def test_the_requests_of_a_job_of_azure_pipelines(worker: Machine) -> None:
    worker.get(**in_azure_pipelines(worker))
    (request,) = worker.services.seen(host="dev.azure.com")
    found = whole(request, job=worker.services.pipeline.job_token)
    connection = worker.services.pipeline.connection
    assert found == {
        "request": f"POST {PIPELINE_URL}",
        "query": {"api-version": "7.1", "serviceConnectionId": connection},
        "headers": {"authorization": "Bearer <job>", **SUPPRESS},
    }
    assert secret_goes_only_to(worker, worker.services.pipeline.job_token) == {"POST dev.azure"}


def secret_goes_only_to(machine: Machine, secret: str) -> set[str]:
    """Method and first names of the hosts that were told a secret."""
    told = [each for each in machine.services.seen() if secret in repr(each.headers) + each.body.decode()]
    return {f"{each.method} {'.'.join(each.host.split('.')[:2])}" for each in told}


OLD, NEW, VM, ARC = "2017-09-01", "2019-08-01", "2018-02-01", "2020-06-01"
CLUSTER = "2019-07-01-preview"
# Way, place, version of the API, selector, headers.
PLATFORMS: dict[str, tuple[Way, str, str, str, dict[str, str]]] = {
    # Metadata is what Automation, which looks the same, wants.
    "App Service": (
        on_app_service,
        f"http://127.0.0.1{APP_SERVICE}",
        NEW,
        "client_id",
        {"metadata": "true", "x-identity-header": "<header>"},
    ),
    "Azure ML": (
        on_machine_learning,
        f"http://127.0.0.1{MACHINE_LEARNING}",
        OLD,
        "clientid",
        {"secret": "<header>"},
    ),
    "Arc": (
        on_arc,
        f"http://localhost{INSTANCE}",
        ARC,
        "client_id",
        {"authorization": "Basic <key>", "metadata": "true"},
    ),
    "Service Fabric": (on_fabric, f"https://127.0.0.1{INSTANCE}", CLUSTER, "", {"secret": "<header>"}),
    "virtual machine": (on_instance, f"http://127.0.0.1{INSTANCE}", VM, "client_id", {"metadata": "true"}),
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_request_for_the_identity_of_a_machine(worker: Machine, platform: str) -> None:
    way, url, version, _, headers = PLATFORMS[platform]
    worker.get(**way(worker))
    *before, request, check = worker.services.seen()
    assert check.host == "pkgs.dev.azure.com"
    _, _, key = request.headers.get("authorization", "Basic none").partition(" ")
    found = whole(request, header=worker.services.identities.header, key=key)
    query = {"api-version": version, "resource": RESOURCE}
    assert found == {"request": f"GET {url}", "query": query, "headers": headers}
    for each in before:  # Arc's challenge
        assert whole(each) == {**found, "headers": {"metadata": "true"}}


@pytest.mark.parametrize("platform", [name for name, row in PLATFORMS.items() if row[3]])
def test_an_assigned_identity_is_asked_for_by_its_client_id(worker: Machine, platform: str) -> None:
    way, _, version, selector, _ = PLATFORMS[platform]
    worker.services.identities.assigned = [other_app(worker), robot(worker)]
    worker.services.identities.system = other_app(worker)
    environ = {**way(worker), "AZURE_CLIENT_ID": robot(worker).client_id}
    gets(worker, "entra of robot", **environ)
    request = worker.services.seen()[-2]
    query = {"api-version": version, "resource": RESOURCE, selector: robot(worker).client_id}
    assert whole(request)["query"] == query


@pytest.mark.parametrize("way", [on_app_service, on_machine_learning, on_instance, on_fabric])
@pytest.mark.parametrize("expires_on", EXPIRES_ON)
def test_the_end_of_a_token_is_understood_however_it_is_written(
    worker: Machine, way: Way, expires_on: str
) -> None:
    worker.services.identities.expires_on = expires_on
    environ = {**way(worker), **plug_in(worker, "small_keyring", SMALL_KEYRING)}
    token = worker.get(**environ)
    again = worker.get(**environ, **later(worker, 58))
    assert again == token
    again = worker.get(**environ, **later(worker, 61))
    assert again != token


def test_cloud_shell_speaks_for_a_person(worker: Machine) -> None:
    """Its token is exchanged as any person's; what it brought is not written down."""
    worker.services.identities.person = worker.services.accounts["ada@contoso.example"]
    shell = {"AZUREPS_HOST_ENVIRONMENT": "cloud-shell/1.0", "MSI_ENDPOINT": localhost(worker) + CLOUD_SHELL}
    gets(worker, "session of ada@contoso.example", **shell)
    (request,) = worker.services.seen(host="localhost")
    assert whole(request) == {
        "request": f"POST http://localhost{CLOUD_SHELL}",
        "form": {"resource": RESOURCE},
        "headers": {"metadata": "true"},  # unsure: whether Suppress is sent as well
    }
    assert sorted(asked(worker)) == sorted(["POST localhost", *COLD])


# Arc.


@pytest.mark.parametrize(
    "realm",
    [
        "{outside}",
        f"{ARC_FOLDER}/../../../..{{outside}}",
        f"{ARC_FOLDER}/deeper/secret.key",
        f"{ARC_FOLDER}/secret.txt",
        f"{ARC_FOLDER}/nowhere.key",
        f"{ARC_FOLDER}/link.key",
        "secret.key",
        "",
    ],
    ids=["elsewhere", "dots", "deeper", "no key", "not there", "link", "no folder", "none"],
)
def test_a_file_that_is_not_a_key_of_arc_is_not_sent(worker: Machine, realm: str) -> None:
    private = beside(worker, "secret.key", "private-of-ada")
    environ = on_arc(worker)
    tokens = Path(environ["STAND_IN_ARC"]) / "tokens" / "deeper"
    tokens.mkdir(parents=True)
    for path in (tokens / "secret.key", tokens.parent / "secret.txt"):
        path.write_text("private-of-ada")
    (tokens.parent / "link.key").symlink_to(tokens / "secret.key")
    worker.services.identities.realm = realm.format(outside=private) or '""'
    said = worker.fails(**environ)
    assert said.startswith("managed_identity: the key file of Azure Arc")
    assert not secret_goes_only_to(worker, "private-of-ada")


def test_a_key_of_arc_that_is_too_long_or_not_the_systems_is_not_sent(worker: Machine) -> None:
    environ = on_arc(worker)
    said = worker.fails(**environ, STAND_IN_ARC_OWNER="12345")
    assert "Azure Arc" in said
    folder = Path(environ["STAND_IN_ARC"]) / "tokens"
    (folder / "long.key").write_text("k" * 4097)
    worker.services.identities.realm = f"{ARC_FOLDER}/long.key"
    said = worker.fails(**environ)
    assert "Azure Arc" in said
    assert all("authorization" not in each.headers for each in worker.services.seen(host="localhost"))


def test_an_old_agent_of_arc_that_gives_another_identity_is_refused(worker: Machine) -> None:
    """It takes no notice of the identity that is asked for."""
    own = worker.services.identities
    own.echoes, own.system, own.assigned = False, other_app(worker), [robot(worker)]
    environ = {**on_arc(worker), "AZURE_CLIENT_ID": robot(worker).client_id}
    said = worker.fails(**environ)
    assert said.startswith("managed_identity: this machine's agent of Azure Arc is too old")
    assert asked(worker)[:2] == ["GET localhost", "GET localhost"]


def test_the_identity_that_arc_is_asked_for_may_be_in_capitals(worker: Machine) -> None:
    own = worker.services.identities
    own.system, own.assigned = other_app(worker), [robot(worker)]
    environ = {**on_arc(worker), "AZURE_CLIENT_ID": f" {robot(worker).client_id.upper()} "}
    gets(worker, "entra of robot", **environ)


# Service Fabric.


@pytest.mark.parametrize("thumbprint", ["00" * 20, "00", "zz" * 20])
def test_a_cluster_with_another_certificate_is_told_nothing(worker: Machine, thumbprint: str) -> None:
    environ = {**on_fabric(worker), "IDENTITY_SERVER_THUMBPRINT": thumbprint}
    said = worker.fails(**environ)
    assert said.startswith("managed_identity: ")
    assert "IDENTITY_SERVER_THUMBPRINT" in said
    assert not worker.services.seen(host="127.0.0.1")


def test_a_thumbprint_may_be_written_as_windows_shows_it(worker: Machine) -> None:
    environ = on_fabric(worker)
    plain = environ["IDENTITY_SERVER_THUMBPRINT"]
    pairs = [plain[at : at + 2].lower() for at in range(0, 40, 2)]
    for mark in " :":
        environ["IDENTITY_SERVER_THUMBPRINT"] = mark.join(pairs)
        gets(worker, "entra of robot", **environ)


def test_a_certificate_of_a_cluster_is_trusted_nowhere_else(worker: Machine) -> None:
    """Without a thumbprint it is a platform like the others, whose https is everybody's."""
    environ = on_fabric(worker)
    del environ["IDENTITY_SERVER_THUMBPRINT"]
    worker.fails(**environ)
    assert not worker.services.seen(host="127.0.0.1")


# What goes wrong.


def change(machine: Machine, **attributes: Any) -> Account:
    """Change the application, and return it."""
    for name, value in attributes.items():
        setattr(robot(machine), name, value)
    return robot(machine)


def no_identity(machine: Machine) -> None:
    machine.services.identities.system = None


def wrong_header(machine: Machine) -> None:
    machine.services.identities.header = "changed"


def wrong_job(machine: Machine) -> None:
    machine.services.pipeline.job_token = machine.services.pipeline.runner_token = "another-one"


def strangers(machine: Machine) -> None:
    machine.services.organizations["contoso"].members.clear()


def untrusted(*trusts: tuple[str, str]) -> Callable[[Machine], object]:
    return lambda machine: change(machine, trusts=set(trusts))


def expired_certificate(machine: Machine) -> None:
    """The file is the right one; its time has come."""
    certificate = make_certificate(days=-1)
    beside(machine, "client.pem", certificate.pem())
    change(machine, certificates=[certificate.leaf])


SP, WI, MI = "service_principal", "workload_identity", "managed_identity"
# Way, what breaks it, source, and what of the service's own words is told.
BROKEN: dict[str, tuple[Way, Callable[[Machine], object], str, str]] = {
    "wrong secret": (with_secret, lambda m: change(m, secret="other"), SP, "AADSTS7000215"),
    "expired secret": (with_secret, lambda m: change(m, secret_expired=True), SP, "AADSTS7000222"),
    "unknown application": (with_secret, lambda m: change(m, client_id="none"), SP, "AADSTS700016"),
    "application of another tenant": (
        with_secret,
        lambda m: change(m, tenant=FABRIKAM_TENANT),
        SP,
        "AADSTS700016",
    ),
    "unknown certificate": (with_certificate, lambda m: change(m, certificates=[]), SP, "AADSTS700027"),
    "expired certificate": (with_certificate, expired_certificate, SP, "AADSTS700027"),
    "no trust": (in_cluster, untrusted(), WI, "AADSTS70021"),
    "another issuer": (in_cluster, untrusted((GITHUB_ISSUER, CLUSTER_SUBJECT)), WI, "AADSTS700211"),
    "another subject": (on_github, untrusted((GITHUB_ISSUER, "repo:x/y:*")), WI, "AADSTS700213"),
    "no identity on a VM": (on_instance, no_identity, MI, "400 Identity not found"),
    "no identity on Arc": (on_arc, no_identity, MI, "400 Identity not found"),
    "no identity in App Service": (on_app_service, no_identity, MI, "400 No User Assigned"),
    "no identity in Azure ML": (on_machine_learning, no_identity, MI, "400 No managed identity"),
    "no identity in a cluster": (on_fabric, no_identity, MI, "404 ManagedIdentityNotFound"),
    "wrong header in a cluster": (on_fabric, wrong_header, MI, "401 SecretHeaderNotFound"),
    "wrong header in App Service": (on_app_service, wrong_header, MI, "401"),
    "job without permission": (on_github, wrong_job, WI, "GitHub Actions"),
    "job that is over": (in_azure_pipelines, wrong_job, WI, "Azure Pipelines"),
    "no access for an application": (with_secret, strangers, SP, "organization 'contoso'"),
    "no access for an identity": (on_instance, strangers, MI, "organization 'contoso'"),
    "no access for a job": (on_github, strangers, WI, "organization 'contoso'"),
}


@pytest.mark.parametrize(("way", "spoil", "source", "told"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_one_sentence_with_the_services_own_code(
    worker: Machine, way: Way, spoil: Callable[[Machine], object], source: str, told: str
) -> None:
    environ = way(worker)
    spoil(worker)
    if source != MI:  # else one with a client id and no other credential is asked of the machine
        environ["KEYRINGS_ARTIFACTS_SOURCES"] = source
    said = worker.fails(**environ)
    assert said.startswith(f"{source}: ")
    assert told in said
    assert said.endswith(".")
    assert len(said) < 300
    assert worker.files() == []
    hidden = [*secrets_of(worker), worker.services.identities.header, *worker.services.assertions]
    assert not [secret for secret in hidden if secret in said]


# A certificate's file that is no use: what is in it, the changes of environment, what is said.
NO_CERTIFICATE: dict[str, tuple[Callable[[], bytes], dict[str, str], str]] = {
    "not there": (lambda: b"", {"AZURE_CLIENT_CERTIFICATE_PATH": "/nowhere/client.pem"}, "No such file"),
    "empty": (lambda: b"", {}, "client.pem"),
    "garbage": (lambda: b"\x30\x82garbage", {}, "client.pem"),
    "no key": (lambda: make_certificate().pem().partition(b"-----BEGIN CERT")[0], {}, "client.pem"),
    "locked": (lambda: make_certificate().pem("secret-word"), {}, "password"),
    "wrong password": (
        lambda: make_certificate().pfx("secret-word"),
        {"AZURE_CLIENT_CERTIFICATE_PASSWORD": "another"},
        "password",
    ),
    "no cryptography": (
        lambda: make_certificate().pem(),
        {"STAND_IN_WITHOUT": "cryptography"},
        "keyrings.artifacts[certificate]",
    ),
}


@pytest.mark.parametrize(("content", "changes", "told"), NO_CERTIFICATE.values(), ids=NO_CERTIFICATE)
def test_a_certificate_that_cannot_be_used(
    worker: Machine, content: Callable[[], bytes], changes: dict[str, str], told: str
) -> None:
    path = beside(worker, "client.pem", content())
    environ = {**known(worker), "AZURE_CLIENT_CERTIFICATE_PATH": path, **changes}
    said = worker.fails(**environ, KEYRINGS_ARTIFACTS_SOURCES=SP)
    assert said.startswith("service_principal: ")
    assert told in said
    assert not worker.services.seen(host="login.microsoftonline.com")


def complaints(machine: Machine, **changes: str) -> list[str]:
    """The lines of the notice after a `keyring get` that tried several sources."""
    done = machine.keyring("get", FEED, "me", status=1, **changes)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_the_last_notice_lists_what_was_tried(worker: Machine) -> None:
    ada = worker.services.accounts["ada@contoso.example"]
    worker.program("az", LOGGED_OUT)
    worker.program("azd", "#!/bin/sh\necho 'ERROR: not logged in, run `azd auth login`' >&2; exit 1\n")
    fake_powershell(worker.folder, worker.services, ada, error="Run Connect-AzAccount to login.")
    fake_helper(worker.home, worker.services, ada, socket_is_there=False)
    worker.services.identities.system = None
    environ = {**in_cluster(worker), **with_secret(worker), **on_instance(worker), **feed_endpoints(worker)}
    change(worker, trusts=set(), secret="other")
    head, *lines = complaints(worker, **environ)
    assert "contoso" in head
    assert len(lines) < 10
    tried = {line.strip().partition(":")[0]: line for line in lines}
    sources = [SP, WI, "feed_endpoint", MI, "codespaces", "azure_cli", "azure_developer_cli"]
    assert list(tried) == [*sources, "azure_powershell"]
    for source, told in zip(sources, ("AADSTS7000215", "AADSTS70021", "400", "Identity not found")):
        assert told in tried[source]
    assert "az login" in tried["azure_cli"]
    assert "azd auth login" in tried["azure_developer_cli"]
    assert "Connect-AzAccount" in tried["azure_powershell"]


def feed_endpoints(machine: Machine) -> dict[str, str]:
    return for_feed(machine, clientId=str(uuid.uuid4()))


def test_what_is_wrong_is_told_though_the_feed_does_not_answer(worker: Machine) -> None:
    environ = with_secret(worker)
    change(worker, secret="other")
    worker.services.faults.append(fault(Reply(503), times=99, host="pkgs.dev.azure.com"))
    said = worker.fails(**environ)
    assert "AADSTS7000215" in said


HEADER = {"IDENTITY_ENDPOINT": "http://127.0.0.1:9/", "IDENTITY_HEADER": "s3cret\nX: y"}
FEDERATED = {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": CONTOSO_TENANT, "KEYRINGS_ARTIFACTS_SOURCES": WI}
NO_ADDRESS = [
    {"IDENTITY_ENDPOINT": "http://[::1/", "IDENTITY_HEADER": "s3cret"},
    {"IDENTITY_ENDPOINT": "http://[::1/", "IMDS_ENDPOINT": "x"},
    {"MSI_ENDPOINT": "http://[::1/"},
    {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://[::1/"},
    {
        **FEDERATED,
        "ACTIONS_ID_TOKEN_REQUEST_URL": "https://[::1/",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "s3cret",
    },
    HEADER,
    {"MSI_ENDPOINT": "http://127.0.0.1:9/", "MSI_SECRET": "s3cret\nX: y"},
]


@pytest.mark.parametrize("environ", NO_ADDRESS, ids=lambda row: "+".join(row))
def test_variables_of_a_platform_that_hold_nonsense(worker: Machine, environ: dict[str, str]) -> None:
    said = worker.fails(**environ)
    assert said.startswith((MI, WI))
    assert "s3cret" not in said


def test_an_endpoint_that_is_not_there_is_told_as_that(worker: Machine) -> None:
    """Nothing listens: no time went by, and no proxy would help."""
    said = worker.fails(IDENTITY_ENDPOINT="http://127.0.0.1:9/", IDENTITY_HEADER="s3cret")
    assert said.startswith("managed_identity: ")
    assert "within" not in said
    assert "PROXY" not in said


def test_a_job_whose_host_does_not_answer_gives_way(worker: Machine) -> None:
    """What a source cannot reach is no reason to stop before the next."""
    worker.az()
    worker.services.faults.append(fault(Reply(503), times=99, host="pipelines.actions.githubusercontent.com"))
    environ = {**on_github(worker), "KEYRINGS_ARTIFACTS_SOURCES": f"{WI},azure_cli"}
    gets(worker, "session of ada@contoso.example", **environ)


# Who comes after whom.


@pytest.mark.parametrize("way", [with_secret, in_cluster, on_instance, on_app_service, on_arc])
def test_an_application_that_the_organization_refuses_gives_way(worker: Machine, way: Way) -> None:
    worker.az()
    worker.services.organizations["contoso"].members.remove("robot")
    environ = {"KEYRINGS_ARTIFACTS_SOURCES": f"{SP},{WI},{MI},azure_cli", **way(worker)}
    if way in (with_secret, in_cluster):
        environ["KEYRINGS_ARTIFACTS_SOURCES"] = f"{SP},{WI},azure_cli"
    gets(worker, "session of ada@contoso.example", **environ)
    assert worker.files() == []  # an environment with an identity of its own leaves no trace


def test_a_machine_without_an_identity_gives_way(worker: Machine) -> None:
    worker.az()
    worker.services.identities.system = None
    gets(worker, "session of ada@contoso.example", **on_instance(worker))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://localhost:9"])
def test_an_endpoint_that_is_not_there_gives_way(worker: Machine, url: str) -> None:
    """It is this machine's alone, and nothing that a network would explain."""
    worker.az()
    gets(worker, "session of ada@contoso.example", AZURE_POD_IDENTITY_AUTHORITY_HOST=url)


def test_a_secret_that_is_wrong_is_no_reason_to_ask_the_machine(worker: Machine) -> None:
    """A client id without any other credential would be one; nothing may go to its address here."""
    environ = with_secret(worker)
    change(worker, secret="other")
    said = worker.fails(**environ)
    assert "AADSTS7000215" in said
    assert worker.strays() == []


@pytest.mark.parametrize(
    ("chosen", "of"),
    [
        ("azure_cli", "session of ada@contoso.example"),
        ("service_principal", "entra of robot"),
        ("azure_cli,service_principal", "session of ada@contoso.example"),
        (" Service_Principal , azure_cli ", "entra of robot"),
        ("workload_identity,azure_cli", "session of ada@contoso.example"),
    ],
)
def test_sources_are_chosen_and_ordered(worker: Machine, chosen: str, of: str) -> None:
    worker.az()
    environ = {**with_secret(worker), "KEYRINGS_ARTIFACTS_SOURCES": chosen}
    gets(worker, of, **environ)
    if "service_principal" not in chosen.lower():
        assert not worker.services.seen(host="login.microsoftonline.com")


def test_a_source_that_does_not_exist(worker: Machine) -> None:
    worker.az()
    said = worker.fails(KEYRINGS_ARTIFACTS_SOURCES="azure_cli,service_principle")
    assert said.startswith("KEYRINGS_ARTIFACTS_SOURCES ")
    assert "'service_principle'" in said
    assert "service_principal" in said.partition("'service_principle'")[2]


# Who is kept apart from whom.


def test_another_client_id_is_another_identity(worker: Machine) -> None:
    drone = other_app(worker)
    environ = {**with_secret(worker), **plug_in(worker, "small_keyring", SMALL_KEYRING)}
    theirs = {**environ, "AZURE_CLIENT_ID": drone.client_id, "AZURE_CLIENT_SECRET": drone.secret}
    first, second = worker.get(**environ), worker.get(**theirs)
    assert [owner(worker, first), owner(worker, second)] == ["entra of robot", "entra of drone"]
    asked(worker)
    again = [worker.get(**environ), worker.get(**theirs)]
    assert again == [first, second]
    assert asked(worker) == []


def test_another_identity_of_a_machine_is_another(worker: Machine) -> None:
    worker.services.identities.assigned = [robot(worker), other_app(worker)]
    environ = {**on_app_service(worker), **plug_in(worker, "small_keyring", SMALL_KEYRING)}
    one = worker.get(**environ, AZURE_CLIENT_ID=robot(worker).client_id)
    two = worker.get(**environ, AZURE_CLIENT_ID=other_app(worker).client_id)
    assert [owner(worker, one), owner(worker, two)] == ["entra of robot", "entra of drone"]


@pytest.mark.parametrize("way", [with_secret, in_cluster, on_instance, on_app_service, feed_with_system])
def test_people_and_machines_are_kept_apart(worker: Machine, way: Way) -> None:
    worker.az()
    chain = plug_in(worker, "small_keyring", SMALL_KEYRING)
    environ = {**way(worker), **chain}
    person = worker.get(**chain)
    gets(worker, "entra of robot", **environ)
    asked(worker)
    assert worker.get(**chain) == person
    assert asked(worker) == []
    worker.keyring("del", FEED, "me", **chain)
    gets(worker, "session of ada@contoso.example", **chain)


def test_a_machine_does_not_use_what_people_left(worker: Machine) -> None:
    """A PAT of a person's own, one that 1.x kept, and a session in a file."""
    ada = worker.services.accounts["ada@contoso.example"]
    chain = plug_in(worker, "small_keyring", SMALL_KEYRING)
    environ = {**with_secret(worker), **chain}
    mine = worker.services.mint_devops(ada, "contoso")
    (worker.home / "small-keyring.json").write_text(json.dumps({f"{FEED}|VssSessionToken": mine}))
    gets(worker, "entra of robot", **environ)
    set_password(worker, FEED, mine, **chain)
    gets(worker, "entra of robot", **environ)
    assert worker.get(**chain) == mine


def test_a_machine_does_not_use_the_session_in_a_file(worker: Machine) -> None:
    worker.az()
    worker.get()
    before = {path: path.read_bytes() for path in worker.files()}
    gets(worker, "entra of robot", **with_secret(worker))
    assert {path: path.read_bytes() for path in worker.files()} == before


def test_signing_an_application_out(worker: Machine) -> None:
    environ = {**with_secret(worker), **plug_in(worker, "small_keyring", SMALL_KEYRING)}
    worker.get(**environ)
    worker.keyring("del", FEED, "me", **environ)
    assert json.loads((worker.home / "small-keyring.json").read_text()) == {}


# Where things go.


def test_what_is_not_in_azure_is_told_at_once_and_asks_nobody(worker: Machine) -> None:
    """The best of three: a test's machine has other things to do."""
    times = []
    for _ in range(3):
        began = time.monotonic()
        said = worker.fails()
        assert said.startswith("Nobody is signed in to organization 'contoso'")
        times.append(time.monotonic() - began)
    assert min(times) < 2
    assert set(asked(worker)) == {CHECK}
    assert worker.strays() == []


@pytest.mark.parametrize(
    "environ",
    [
        {"IDENTITY_ENDPOINT": "http://evil.example/", "IDENTITY_HEADER": "s3cret"},
        {"IDENTITY_ENDPOINT": "http://127.0.0.1.evil.example/", "IDENTITY_HEADER": "s3cret"},
        {"IDENTITY_ENDPOINT": "http://localhost@evil.example/", "IDENTITY_HEADER": "s3cret"},
        {"IDENTITY_ENDPOINT": "http://localhost:80@evil.example/", "IDENTITY_HEADER": "s3cret"},
        {"MSI_ENDPOINT": "http://evil.example/", "MSI_SECRET": "s3cret"},
        {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://evil.example"},
    ],
    ids=["elsewhere", "look-alike", "user info", "user info like a port", "older", "VM"],
)
def test_no_identity_is_asked_for_in_the_clear_beyond_this_machine(
    worker: Machine, environ: dict[str, str]
) -> None:
    said = worker.fails(**environ)
    assert said.startswith("managed_identity: ")
    assert "evil.example" in said
    assert [each.host for each in worker.services.seen() if each.host != "pkgs.dev.azure.com"] == []


@pytest.mark.parametrize(
    ("way", "variable"),
    [(on_github, "ACTIONS_ID_TOKEN_REQUEST_URL"), (in_azure_pipelines, "SYSTEM_OIDCREQUESTURI")],
)
def test_the_token_of_a_job_is_not_sent_in_the_clear(worker: Machine, way: Way, variable: str) -> None:
    environ = {**way(worker), "KEYRINGS_ARTIFACTS_SOURCES": WI}
    environ[variable] = environ[variable].replace("https:", "http:")
    said = worker.fails(**environ)
    assert "https" in said
    pipeline = worker.services.pipeline
    assert not secret_goes_only_to(worker, pipeline.runner_token)
    assert not secret_goes_only_to(worker, pipeline.job_token)


@pytest.mark.parametrize("way", [with_secret, on_github, in_azure_pipelines, on_app_service, on_instance])
def test_no_redirect_takes_a_secret_along(worker: Machine, way: Way) -> None:
    evil = Reply(307, [("Location", "https://evil.example/")])
    worker.services.faults.append(
        lambda request: evil if not request.host.endswith(("pkgs.dev.azure.com", "evil.example")) else None
    )
    environ = way(worker)
    if "AZURE_CLIENT_ID" in environ or "AZURESUBSCRIPTION_CLIENT_ID" in environ:
        environ["KEYRINGS_ARTIFACTS_SOURCES"] = f"{SP},{WI}"
    worker.fails(**environ)
    assert not worker.services.seen(host="evil.example")


@pytest.mark.parametrize("way", [with_secret, on_github, on_app_service, on_instance, on_arc])
def test_a_passing_fault_of_an_identitys_service(worker: Machine, way: Way) -> None:
    worker.services.faults.append(fault(Reply(503), path_contains="oken"))
    gets(worker, "entra of robot", **way(worker))


@pytest.mark.parametrize("host", ["login.microsoftonline.us", "https://login.microsoftonline.us/"])
def test_another_authority(worker: Machine, host: str) -> None:
    environ = {**with_secret(worker), "AZURE_AUTHORITY_HOST": host}
    gets(worker, "entra of robot", **environ)
    assert asked(worker)[0] == "POST login.microsoftonline.us"


@pytest.mark.parametrize("host", ["http://login.microsoftonline.com", "https://evil.example/x?y", "a b"])
def test_an_authority_that_is_none_is_told_nothing(worker: Machine, host: str) -> None:
    environ = {**with_secret(worker), "AZURE_AUTHORITY_HOST": host, "KEYRINGS_ARTIFACTS_SOURCES": SP}
    said = worker.fails(**environ)
    assert "AZURE_AUTHORITY_HOST must be" in said
    assert not secret_goes_only_to(worker, robot(worker).secret)


@pytest.mark.parametrize("allowed", ["*", CONTOSO_TENANT, f"{FABRIKAM_TENANT};{CONTOSO_TENANT}", ""])
def test_a_tenant_besides_the_applications_own(worker: Machine, allowed: str) -> None:
    """Unsure: the feed's tenant is taken where the list allows it, else the one of the environment."""
    change(worker, tenant=FABRIKAM_TENANT, guest_of={CONTOSO_TENANT})
    environ = {**with_secret(worker), "AZURE_TENANT_ID": FABRIKAM_TENANT}
    environ["AZURE_ADDITIONALLY_ALLOWED_TENANTS"] = allowed
    environ["KEYRINGS_ARTIFACTS_SOURCES"] = SP
    if allowed:
        gets(worker, "entra of robot", **environ)
    else:
        said = worker.fails(**environ)
        assert "organization 'contoso'" in said


def test_without_a_tenant_the_feed_is_asked_for_it(worker: Machine) -> None:
    environ = with_secret(worker)
    del environ["AZURE_TENANT_ID"]
    gets(worker, "entra of robot", **environ)
    assert asked(worker) == [CHECK, TOKEN, CHECK]


def test_a_tenant_that_is_none_reaches_nobody(worker: Machine) -> None:
    environ = {**with_secret(worker), "AZURE_TENANT_ID": "../evil", "KEYRINGS_ARTIFACTS_SOURCES": SP}
    said = worker.fails(**environ)
    assert "AZURE_TENANT_ID" in said
    assert not secret_goes_only_to(worker, robot(worker).secret)


def test_another_feed_has_another_endpoint(worker: Machine) -> None:
    """What names an identity for one feed says nothing of the others."""
    worker.az()
    entry = for_feed(worker, clientId="system", endpoint=OTHER)
    environ = {**entry, **on_instance(worker), "KEYRINGS_ARTIFACTS_SOURCES": "feed_endpoint,azure_cli"}
    gets(worker, "session of ada@contoso.example", **environ)
    assert not worker.services.seen(host="127.0.0.1")


@pytest.mark.parametrize(
    "text",
    ["{", '{"endpointCredentials": [{"endpoint": 1}]}', '{"endpointCredentials": [{"endpoint": "$"}]}'],
)
def test_endpoints_of_feeds_that_are_not_what_they_should_be(worker: Machine, text: str) -> None:
    name = "ARTIFACTS_CREDENTIALPROVIDER_FEED_ENDPOINTS"
    environ = {name: text.replace("$", FEED), "KEYRINGS_ARTIFACTS_SOURCES": "feed_endpoint"}
    said = worker.fails(**environ)
    assert name in said


# People's other tools.


def azd(machine: Machine) -> None:
    fake_azd(machine.folder, machine.services, machine.services.accounts["ada@contoso.example"])


def pwsh(machine: Machine) -> None:
    fake_powershell(machine.folder, machine.services, machine.services.accounts["ada@contoso.example"])


def windows_powershell(machine: Machine) -> None:
    ada = machine.services.accounts["ada@contoso.example"]
    fake_powershell(machine.folder, machine.services, ada, name="powershell", secure=False)


def codespace(machine: Machine) -> None:
    fake_helper(machine.home, machine.services, machine.services.accounts["ada@contoso.example"])


@pytest.mark.parametrize("tool", [azd, pwsh, windows_powershell, codespace])
def test_a_tool_of_a_person_takes_two_requests_and_then_none(
    machine: Machine, tool: Callable[[Machine], None]
) -> None:
    tool(machine)
    before = set(machine.files())
    token = machine.get()
    assert owner(machine, token) == "session of ada@contoso.example"
    assert asked(machine) == COLD
    assert machine.get() == token
    assert asked(machine) == []
    assert [path.name for path in set(machine.files()) - before] == ["session-contoso.json"]


AZD_OUT = '{"error":"not logged in, run `azd auth login` to login","message":"","suggestion":""}'


@pytest.mark.parametrize(
    ("name", "script", "told"),
    [
        ("azd", f"#!/bin/sh\necho '{AZD_OUT}' >&2; exit 1\n", "azd auth login"),
        ("azd", "#!/bin/sh\necho 'AADSTS50076: MFA' >&2; exit 1\n", "AADSTS50076"),
        ("azd", "#!/bin/sh\necho '{\"token\": 5}'\n", "azd"),
        ("azd", "#!/nonexistent\n", "No such file or directory"),
        ("pwsh", "#!/bin/sh\necho 'Run Connect-AzAccount to login.' >&2; exit 1\n", "Connect-AzAccount"),
        ("pwsh", "#!/bin/sh\necho garbage\n", "PowerShell"),
    ],
)
def test_a_tool_that_does_not_work(machine: Machine, name: str, script: str, told: str) -> None:
    machine.program(name, script)
    said = machine.fails()
    assert said.startswith("azure_developer_cli: " if name == "azd" else "azure_powershell: ")
    assert told in said


def test_a_helper_without_its_editor(machine: Machine) -> None:
    ada = machine.services.accounts["ada@contoso.example"]
    fake_helper(machine.home, machine.services, ada, socket_is_there=False)
    said = machine.fails()
    assert said.startswith("codespaces: ")
    machine.az()
    gets(machine, "session of ada@contoso.example")


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o644])
def test_a_helper_that_others_may_write_is_not_run(machine: Machine, mode: int) -> None:
    (machine.home / "ado-auth-helper").write_text("#!/bin/sh\ntouch was-run; echo token\n")
    (machine.home / "ado-auth-helper").chmod(mode)
    said = machine.fails()
    assert said.startswith("Nobody is signed in")
    assert not list(machine.home.rglob("was-run"))


# Variables of the tools before this one, one row each.

GIVEN = "given-outright-by-a-variable"
CURRENT, EARLIER = "ARTIFACTS_CREDENTIALPROVIDER_", "NUGET_CREDENTIALPROVIDER_"
GIVEN_ENDPOINTS = json.dumps(
    {"endpointCredentials": [{"endpoint": FEED, "username": "u", "password": GIVEN}]}
)
OUTRIGHT = [
    {"AZURE_DEVOPS_EXT_PAT": GIVEN},
    {"SYSTEM_ACCESSTOKEN": GIVEN, "SYSTEM_COLLECTIONURI": "https://dev.azure.com/contoso/"},
    {CURRENT + "EXTERNAL_FEED_ENDPOINTS": GIVEN_ENDPOINTS},
    {"VSS_NUGET_EXTERNAL_FEED_ENDPOINTS": GIVEN_ENDPOINTS},
    {CURRENT + "URI_PREFIXES": FEED[:30], CURRENT + "ACCESSTOKEN": GIVEN},
    {"VSS_NUGET_URI_PREFIXES": FEED[:34], "VSS_NUGET_ACCESSTOKEN": GIVEN},
]


@pytest.mark.parametrize("environ", OUTRIGHT, ids=lambda row: "+".join(row))
def test_earlier_variables_that_give_a_credential(worker: Machine, environ: dict[str, str]) -> None:
    """They come before any identity."""
    prefixes = {name: FEED.partition("_pack")[0] for name in environ if "PREFIXES" in name}
    found = worker.get(**with_secret(worker), **{**environ, **prefixes})
    assert found == GIVEN
    assert asked(worker) == []
    assert worker.files() == []


KINDS = [
    ("KEYRINGS_ARTIFACTS_USE_BEARER_TOKEN", "true", "entra"),
    (CURRENT + "RETURN_ENTRA_TOKENS", "true", "entra"),
    (CURRENT + "RETURN_ENTRA_TOKENS", "True", "entra"),
    (CURRENT + "RETURN_ENTRA_TOKENS", "1", "session"),  # only the word counts
    (CURRENT + "VSTS_TOKENTYPE", "Compact", "pat"),
    (CURRENT + "TOKENTYPE", "compact", "pat"),
    (EARLIER + "VSTS_TOKENTYPE", "Compact", "pat"),
    (CURRENT + "VSTS_TOKENTYPE", "SelfDescribing", "session"),
    (CURRENT + "TOKENTYPE", "SelfDescribing", "session"),
    (EARLIER + "VSTS_TOKENTYPE", "SelfDescribing", "session"),
    ("AZURE_DEVOPS_PAT_DURATION", "7", "session"),
]


@pytest.mark.parametrize(("name", "value", "kind"), KINDS)
def test_earlier_variables_that_choose_the_token(machine: Machine, name: str, value: str, kind: str) -> None:
    machine.az()
    gets(machine, f"{kind} of ada@contoso.example", **{name: value})


MINUTES = (
    CURRENT + "VSTS_SESSIONTIMEMINUTES",
    CURRENT + "SESSIONTIMEMINUTES",
    EARLIER + "VSTS_SESSIONTIMEMINUTES",
)


@pytest.mark.parametrize("name", MINUTES)
@pytest.mark.parametrize(
    ("kind", "minutes", "granted"),
    [
        ("SelfDescribing", "90", 90),
        ("SelfDescribing", "90.5", 90.5),
        ("SelfDescribing", "99999", 24 * 60),
        ("Compact", "10080", 10080),
    ],
)
def test_earlier_variables_that_choose_the_time(
    machine: Machine, name: str, kind: str, minutes: str, granted: float
) -> None:
    machine.az()
    token = machine.get(**{name: minutes, CURRENT + "VSTS_TOKENTYPE": kind})
    left = machine.services.tokens[token].expires - machine.services.now()
    assert granted * 60 - 30 < left <= granted * 60 + 1


def test_earlier_variables_of_a_pat(machine: Machine) -> None:
    machine.az()
    wanted = {"AZURE_DEVOPS_PAT_DURATION": "7", "AZURE_DEVOPS_PAT_SCOPE": "vso.packaging"}
    token = machine.get(KEYRINGS_ARTIFACTS_TOKEN_TYPE="pat", **wanted)
    found = machine.services.tokens[token]
    assert (found.kind, found.scope) == ("pat", "vso.packaging")
    assert 6.9 * DAY < found.expires - machine.services.now() <= 7 * DAY


@pytest.mark.parametrize("prefix", [CURRENT, EARLIER])
def test_earlier_variables_of_a_sign_in(machine: Machine, prefix: str) -> None:
    """Authority and hint; the time to wait is tested with the browser."""
    open_browser(machine)
    authority = f"https://login.microsoftonline.com/{CONTOSO_TENANT}"
    names = {prefix + "MSAL_AUTHORITY": authority, prefix + "MSAL_LOGIN_HINT": "ada@contoso.example"}
    gets(machine, "session of ada@contoso.example", **names)
    (request,) = machine.services.seen(path_contains="/authorize")
    assert (request.path.split("/")[1], request.query["login_hint"]) == (
        CONTOSO_TENANT,
        "ada@contoso.example",
    )


# Azure DevOps Server.

SERVER = "https://tfs.example.com/tfs/DefaultCollection/_packaging/pyfeed/pypi/simple/"
HOST_NAMES = [
    "KEYRINGS_ARTIFACTS_HOSTS",
    CURRENT + "VSTS_HOSTS",
    CURRENT + "HOSTS",
    EARLIER + "HOSTS",
    EARLIER + "VSTS_HOSTS",
]


@pytest.mark.parametrize("name", HOST_NAMES)
def test_an_azure_devops_server_takes_what_is_given(worker: Machine, name: str) -> None:
    worker.az()
    hosts = {name: "other.example;TFS.example.com", **with_secret(worker)}
    said = worker.fails(SERVER, **hosts)
    assert "tfs.example.com" in said
    assert "Azure DevOps Server" in said
    assert "AZURE_DEVOPS_EXT_PAT" in said
    found = worker.get(SERVER, **hosts, AZURE_DEVOPS_EXT_PAT="given")
    assert found == "given"
    assert asked(worker) == []
    assert worker.services.tunnels == []


def test_an_azure_devops_server_takes_what_is_set(machine: Machine) -> None:
    chain = {
        **plug_in(machine, "small_keyring", SMALL_KEYRING),
        "KEYRINGS_ARTIFACTS_HOSTS": "tfs.example.com",
    }
    assert set_password(machine, SERVER, "own-pat", **chain).stderr == ""
    assert machine.get(SERVER, **chain) == "own-pat"
    assert {each.host for each in machine.services.seen()} <= {"tfs.example.com"}
    machine.keyring("del", SERVER, "me", **chain)
    said = machine.fails(SERVER, **chain)
    assert "Azure DevOps Server" in said


def test_a_host_of_azure_is_no_server_whatever_names_it(worker: Machine) -> None:
    environ = {CURRENT + "VSTS_HOSTS": "pkgs.dev.azure.com;.corp.example", **with_secret(worker)}
    gets(worker, "entra of robot", **environ)
    server = SERVER.replace("example.com", "corp.example")
    assert "Azure DevOps Server" in worker.fails(server, **environ)


def test_a_server_that_nobody_named_is_not_ours(worker: Machine) -> None:
    done = worker.keyring("get", SERVER, "me", status=1, **with_secret(worker))
    assert done.stdout + done.stderr == ""
    for look_alike in ("https://tfs.example.com.evil.example/tfs/", "http://tfs.example.com/tfs/"):
        done = worker.keyring("get", look_alike, "me", status=1, KEYRINGS_ARTIFACTS_HOSTS="tfs.example.com")
        assert done.stdout + done.stderr == ""
    assert worker.services.tunnels == []


# Docker.


def test_a_secret_of_docker_is_read_and_kept_nowhere(worker: Machine) -> None:
    path = beside(worker, "azure_devops_ext_pat", "given\n")
    assert worker.get(AZURE_DEVOPS_EXT_PAT_FILE=path) == "given"
    assert asked(worker) == []
    assert worker.files() == []


@EVERY_WAY
def test_no_secret_of_a_machine_is_in_the_log(worker: Machine, way: Way, cold: list[str]) -> None:
    code = (
        "import logging, sys, keyring\n"
        "logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)\n"
        "assert keyring.get_password(sys.argv[1], 'me')"
    )
    log = worker.python(code, FEED, **way(worker), **UNLOGGED)
    assert "DEBUG:keyrings_artifacts:" in log
    pipeline, own = worker.services.pipeline, worker.services.identities
    hidden = [*secrets_of(worker), *worker.services.assertions, own.header, *own.keys]
    for request in worker.services.seen():
        hidden.append(request.form.get("client_assertion", ""))
    hidden += [pipeline.runner_token, pipeline.job_token, "pass word"]
    assert [each for each in hidden if each and each in log] == []


# --- doctor, end to end -----------------------------------------------------------------------

DOCTOR = (sys.executable, "-m", "keyrings_artifacts")


def doctor(machine: Machine, *arguments: str, **changes: str) -> tuple[int, str]:
    """Exit status of the doctor, and what it prints: no secret, and nothing on stderr."""
    done = machine.run(*DOCTOR, *(arguments or [FEED]), status=None, **changes)
    assert done.stderr == ""
    assert [secret for secret in secrets_of(machine) if secret in done.stdout] == []
    return done.returncode, done.stdout


def rows(machine: Machine, *arguments: str, **changes: str) -> dict[str, Any]:
    """The findings of the doctor by topic, those that are wrong before others; "next" and "ok"."""
    status, output = doctor(machine, "--json", *(arguments or [FEED]), **changes)
    report = json.loads(output)
    assert report["ok"] == (status == 0)
    found = {row["topic"]: row for row in report["findings"]}
    wrong = {row["topic"]: row for row in report["findings"] if row["state"] == "wrong"}
    return {**found, **wrong, "next": report["next"], "ok": report["ok"]}


def test_the_doctor_finds_a_healthy_set_up_healthy(machine: Machine) -> None:
    machine.az()
    for kept in ("azure_cli", "the session kept"):
        status, output = doctor(machine, **PIP_SUBPROCESS)
        assert "WRONG" not in output
        assert status == 0
        lines = output.splitlines()
        assert lines[-1] == f"Nothing to do: the feed accepts the credential ({kept})."
        (session,) = (line.split("session ", 1)[1].strip() for line in lines if "  session  " in line)
        assert re.fullmatch(
            r"session token, account ada@contoso.example, scope vso.packaging_write, 23:59:\d\d left, "
            + ("from azure_cli" if kept == "azure_cli" else "kept earlier"),
            session,
        )
    assert f"ok     {'keyring':19}  {BIN / 'keyring'}: has this backend" in lines
    assert {line[7:].split()[0] for line in lines if line[7:]} > {each.__name__ for each in module.SOURCES}
    seen = {"version", "pip", "uv", "store", "address", "proxy", "trust", "clock"}
    assert seen < {line[7:].split()[0] for line in lines if line[7:]}
    assert machine.get()
    assert asked(machine) == [COLD[0], *COLD, COLD[0], COLD[0], COLD[0]]


def other_keyring(machine: Machine) -> dict[str, str]:
    machine.program("keyring", "#!/bin/sh\necho 'keyring.backends.fail.Keyring (priority: 0)'\n")
    return {}


def silent_keyring(machine: Machine) -> dict[str, str]:
    machine.program("keyring", "#!/bin/sh\nexit 3\n")
    return {}


def no_keyring(machine: Machine) -> dict[str, str]:
    return {"PATH": f"{machine.folder}:/usr/bin:/bin", "UV_KEYRING_PROVIDER": "subprocess", **UV_FEED}


def written(machine: Machine, path: str, text: str) -> None:
    (machine.home / path).parent.mkdir(parents=True, exist_ok=True)
    (machine.home / path).write_text(text)


def pip_disabled(machine: Machine) -> dict[str, str]:
    written(machine, ".config/pip/pip.conf", "[global]\nkeyring_provider = disabled\n")
    return {"PIP_CONFIG_FILE": ""}


def uv_project(machine: Machine) -> dict[str, str]:
    written(machine, "pyproject.toml", f'[[tool.uv.index]]\nname = "x"\nurl = "{FEED}"\n')
    return {"UV_NO_CONFIG": "", "UV_KEYRING_PROVIDER": "subprocess"}


def uv_garbled(machine: Machine) -> dict[str, str]:
    written(machine, "pyproject.toml", "[tool.uv]\nkeyring-provider = [1, 2]\n")
    return {"UV_NO_CONFIG": ""}


def out_of_order(machine: Machine) -> dict[str, str]:
    machine.services.faults.append(fault(Reply(500), 99))
    return {}


def null_in_file(machine: Machine) -> dict[str, str]:
    machine.keyring("--disable")
    return {}


def no_settings(machine: Machine) -> dict[str, str]:
    written(machine, ".config/python_keyring/keyringrc.cfg", "default-keyring\n")
    return {}


def inspected(machine: Machine) -> dict[str, str]:
    """Somebody between us and the feed, with a CA of their own."""
    path = machine.home.parent / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE"), str(path))


def over(machine: Machine) -> dict[str, str]:
    machine.get()
    (machine.folder / "az").unlink()
    machine.services.clock = 25 * HOUR
    return moved_clock(machine, 25 * HOUR)


def signed_out(machine: Machine) -> dict[str, str]:
    machine.program("az", "#!/bin/sh\necho \"Please run 'az login' to setup account.\" >&2; exit 1\n")
    return {}


def nobody(machine: Machine) -> dict[str, str]:
    (machine.folder / "az").unlink()
    return {}


def nobody_in_ci(machine: Machine) -> dict[str, str]:
    return {**nobody(machine), "CI": "true"}


def given_pat(machine: Machine, organization: str = "contoso", upn: str = "ada@contoso.example") -> str:
    return machine.services.mint_devops(machine.services.accounts[upn], organization)


def expired_pat(machine: Machine) -> dict[str, str]:
    token = given_pat(machine)
    machine.services.revoke(token)
    return {"AZURE_DEVOPS_EXT_PAT": token}


def other_pat(machine: Machine) -> dict[str, str]:
    return {"AZURE_DEVOPS_EXT_PAT": given_pat(machine, "fabrikam", "frank@fabrikam.example")}


def revoked(machine: Machine) -> dict[str, str]:
    machine.services.revoke(machine.get())
    return {}


def frank(machine: Machine) -> dict[str, str]:
    machine.az("frank@fabrikam.example")
    return {}


def stranger(machine: Machine) -> dict[str, str]:
    machine.services.organizations["contoso"].members.clear()
    return {}


def never_there(machine: Machine) -> dict[str, str]:
    machine.services.organizations["contoso"].never_signed_in.add("ada@contoso.example")
    return {}


def expired_server(machine: Machine) -> dict[str, str]:
    """As a clock far ahead would have it."""
    authority = machine.services.authority
    context = authority.context("pkgs.dev.azure.com")
    past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    authority._ca.issue_cert("pkgs.dev.azure.com", not_after=past).configure_cert(context)
    return {}


def spent(machine: Machine) -> dict[str, str]:
    """An earlier sign-in in a browser, in a keyring, and revoked since."""
    changes = plug_in(machine, "small", SMALL_KEYRING)
    (machine.folder / "az").unlink()
    open_browser(machine)
    machine.get(**changes)
    machine.services.accounts["ada@contoso.example"].refresh_tokens.clear()
    machine.services.clock = 91 * DAY
    return {**changes, **moved_clock(machine, 91 * DAY), "BROWSER": ""}


def no_reader(machine: Machine) -> dict[str, str]:
    text = "User 'ada' lacks permission to complete this action. You need to have 'ReadPackages'."
    reply = devops_error(403, text, "FeedNeedsPermissionsException")
    reply = reply._replace(headers=[*reply.headers, ("X-VSS-E2EID", str(uuid.uuid4()))])

    def strike(request: Recorded) -> Reply | None:
        return reply if request.host == "pkgs.dev.azure.com" and "authorization" in request.headers else None

    machine.services.faults.append(strike)
    return {}


def gone(machine: Machine) -> dict[str, str]:
    machine.services.organizations["contoso"].feeds.clear()
    return {}


def no_organization(machine: Machine) -> dict[str, str]:
    del machine.services.organizations["contoso"]
    return {}


UV_FEED = {"UV_INDEX_URL": FEED}
DEAD = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://ada:pass-word@127.0.0.1:9")
NULL = "keyring.backends.null.Keyring"
SIGN_IN_COMMAND = f"keyring --mode creds get {FEED}"
SET_UPS: dict[str, tuple[Any, str, str, str]] = {  # what breaks it; topic, text and mend in which it shows
    "no backend": (other_keyring, "keyring", "does not have this backend; it is the first", module.INSTALL),
    "keyring fails": (silent_keyring, "keyring", "fails when asked", module.INSTALL),
    "no keyring": (no_keyring, "keyring", "none is on PATH", module.INSTALL),
    "pip off": (
        {"PIP_KEYRING_PROVIDER": "disabled"},
        "pip",
        "'disabled' (PIP_KEYRING_PROVIDER)",
        "subprocess",
    ),
    "pip off in its file": (pip_disabled, "pip", "is 'disabled' (", "pip config set global.keyring-provider"),
    "uv off": (
        {"UV_KEYRING_PROVIDER": "disabled"},
        "uv",
        "'disabled'",
        "set UV_KEYRING_PROVIDER to subprocess",
    ),
    "uv never asks": (UV_FEED, "uv", "provider is not set: uv never asks keyring", "set UV_KEYRING_PROVIDER"),
    "no user": (
        {**UV_FEED, "UV_KEYRING_PROVIDER": "subprocess"},
        "uv",
        "no user name",
        "https://VssSessionToken@",
    ),
    "no user in URL": (
        {"UV_KEYRING_PROVIDER": "subprocess"},
        "uv",
        "no user name",
        "https://VssSessionToken@",
    ),
    "no user in project": (uv_project, "uv", "has no user name", "VssSessionToken@"),
    "null": (
        {"PYTHON_KEYRING_BACKEND": NULL},
        "keyring settings",
        "never this backend",
        "unset PYTHON_KEYRING_BACKEND",
    ),
    "null in file": (null_in_file, "keyring settings", "never this backend", "delete default-keyring from"),
    "uv's table": (uv_garbled, "uv settings", "not of the form that uv reads", "mend its files"),
    "out of order": (out_of_order, "feed", "answered 500", "Try again in a few minutes"),
    "file unreadable": (no_settings, "keyring settings", "cannot read", "mend or delete "),
    "proxy dead": (
        DEAD,
        "feed",
        "The proxy did not let us through",
        "change or unset the proxy (https_proxy names",
    ),
    "TLS intercepted": (
        inspected,
        "feed",
        "is not trusted",
        "its CA file in SSL_CERT_FILE or REQUESTS_CA_BUNDLE",
    ),
    "certificate over": (expired_server, "feed", "is not valid at this time", "check the clock"),
    "session over for good": (spent, "session", "expired 1 day", SIGN_IN_COMMAND),
    "clock ahead": ({"STAND_IN_CLOCK": "172830"}, "clock", "2 days, 0:00:", "set the clock"),
    "clock behind": ({"STAND_IN_CLOCK": "-172830"}, "clock", "2 days, 0:00:", "set the clock"),
    "session expired": (over, "session", "expired 1:0", SIGN_IN_COMMAND),
    "session revoked": (revoked, "feed", "refuses the credential (the session kept)", "keyring del "),
    "PAT expired": (
        expired_pat,
        "feed",
        "refuses the credential (AZURE_DEVOPS_EXT_PAT)",
        "or unset AZURE_DEVOPS_",
    ),
    "PAT empty": (
        {"AZURE_DEVOPS_EXT_PAT": ""},
        "sign-in",
        "is set but empty",
        "set it to a token, or unset it",
    ),
    "az signed out": (signed_out, "azure_cli", "nobody is signed in", f"az login --tenant {CONTOSO_TENANT}"),
    "nobody": (
        nobody,
        "sign-in",
        "no source has a token that organization 'contoso' accepts",
        SIGN_IN_COMMAND,
    ),
    "nobody in CI": (
        nobody_in_ci,
        "sign-in",
        "nobody can be asked: CI is set",
        "set AZURE_DEVOPS_EXT_PAT to",
    ),
    "PAT of another": (other_pat, "feed", "of another organization than 'contoso'", "make a token"),
    "account of another": (frank, "azure_cli", "AADSTS50020", f"az login --tenant {CONTOSO_TENANT}"),
    "no organization": (no_organization, "sign-in", "knows no such feed", "check the names of organization"),
    "no member": (
        stranger,
        "azure_cli",
        "does not accept account ada@contoso.example",
        "ask its administrator",
    ),
    "never there": (never_there, "azure_cli", "TF401444", "open https://dev.azure.com/contoso once"),
    "no permission": (
        no_reader,
        "feed",
        "403: ada@contoso.example has no permission",
        "ask an owner of the feed",
    ),
    "no feed": (gone, "feed", "404: no organization 'contoso', no such feed in it", "check the names"),
    "source unknown": (
        {"KEYRINGS_ARTIFACTS_SOURCES": "az"},
        "sign-in",
        "names no source with 'az'",
        "choose among service_principal",
    ),
}
if sys.version_info < (3, 11):  # which reads no TOML
    del SET_UPS["no user in project"], SET_UPS["uv's table"]


@pytest.mark.parametrize(("breaks", "topic", "text", "mend"), SET_UPS.values(), ids=SET_UPS)
def test_the_doctor_names_what_is_broken_and_its_mend(
    machine: Machine, breaks: Any, topic: str, text: str, mend: str
) -> None:
    machine.az()
    changes = breaks if isinstance(breaks, dict) else breaks(machine)
    found = rows(machine, **changes)
    assert found["ok"] is False
    assert found[topic]["state"] == "wrong"
    assert text in found[topic]["text"]
    assert mend in found[topic]["mend"]
    assert mend in found["next"]
    status, output = doctor(machine, **changes)
    assert status == 1
    assert mend in output.splitlines()[-1]
    assert text in output
    assert "pass-word" not in output


def test_the_doctor_lists_every_keyring_once(machine: Machine) -> None:
    machine.az()
    other_keyring(machine)
    (machine.folder / "linked").mkdir()
    (machine.folder / "linked" / "keyring").symlink_to(BIN / "keyring")
    path = os.pathsep.join(map(str, (BIN, machine.folder, machine.folder / "linked", "bin", "/usr/bin")))
    lines = [line for line in doctor(machine, FEED, PATH=path)[1].splitlines() if "  keyring  " in line]
    assert [line.split(maxsplit=2)[2] for line in lines] == [
        f"{BIN / 'keyring'}: has this backend",
        f"{machine.folder / 'keyring'}: does not have this backend",
    ]


def test_the_doctor_knows_an_azure_devops_server(machine: Machine) -> None:
    url = "https://tfs.example.com/tfs/_packaging/f/pypi/simple/"
    found = rows(machine, url, KEYRINGS_ARTIFACTS_HOSTS="tfs.example.com")
    assert found["next"] == f"keyring set {url} me"
    assert found["azure_cli"]["text"] == "not asked"


def test_the_feed_s_own_word_comes_before_an_identity_that_fails(worker: Machine) -> None:
    unknown = FEED.replace("contoso", "contosoo")
    dead = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9"}
    assert rows(worker, **dead)["next"] == "check that something listens at 127.0.0.1:9, then try again"
    assert rows(worker, unknown, **dead)["next"].startswith(
        "check the names of organization, project and feed"
    )
    assert rows(worker, FEED.replace("contoso", "publica"), **dead)["ok"]


def test_the_doctor_knows_a_public_feed(machine: Machine) -> None:
    status, output = doctor(machine, FEED.replace("contoso", "publica"))
    assert status == 0
    assert "not needed: the feed is public" in output
    assert output.endswith("\n\nNothing to do: the feed is public: anybody may read it.\n")


@pytest.mark.parametrize(
    "url",
    [
        *(url for url in LOOK_ALIKES if "\0" not in url),
        "",
        "pkgs.dev.azure.com",
        "https://me:pass-word@evil.example/x",
    ],
)
def test_the_doctor_knows_what_is_no_feed(machine: Machine, url: str) -> None:
    status, output = doctor(machine, "--", url)
    assert status == 1
    assert output.splitlines()[-1] == f"Next: ask about {module.FEED_FORM}"
    assert "pass-word" not in output
    assert asked(machine) == []


def test_the_doctor_takes_feeds_from_the_settings_of_pip_and_uv(machine: Machine) -> None:
    machine.az()
    assert rows(machine, PIP_EXTRA_INDEX_URL=f"https://pypi.example/ {WITH_USER}")["feed"]["state"] == "ok"
    done = machine.run(*DOCTOR, status=0, PIP_INDEX_URL=WITH_USER)
    assert f"{FEED} is of organization 'contoso'" in done.stdout
    done = machine.run(*DOCTOR, status=0)
    assert done.stdout.endswith(f"\n\nTo ask about a feed: keyrings-artifacts {module.FEED_FORM}\n")
    done = machine.run(*DOCTOR, status=1, PYTHON_KEYRING_BACKEND=NULL)
    assert done.stdout.endswith("\n\nNext: unset PYTHON_KEYRING_BACKEND\n")


@pytest.mark.parametrize("colour", [True, False])
def test_the_doctor_draws_on_a_terminal_alone(machine: Machine, colour: bool) -> None:
    import pty

    machine.az()
    assert "\033" not in doctor(machine, TERM="xterm")[1]
    ours, theirs = pty.openpty()
    environ = {**machine.environ, "TERM": "xterm", **({} if colour else {"NO_COLOR": "1"})}
    process = subprocess.Popen(
        [*DOCTOR, FEED], env=environ, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    screen = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while data := os.read(ours, 4096):
            screen += data
    os.close(ours)
    assert process.wait(30) == 0
    assert (b"\033[32mok   \033[0m  version" in screen) == colour
    assert (b"\033" in screen) == colour


def test_the_doctor_asks_nobody(machine: Machine) -> None:
    open_browser(machine)
    terminal = Terminal(machine, *DOCTOR, FEED, BROWSER=str(machine.folder / "browser"))
    status, output = terminal.end()
    assert (status, terminal.said()) == (1, [])
    assert opened(machine) == []
    assert "possible, but the doctor asks nobody" in output
    assert output.endswith(f"\n\nNext: {SIGN_IN_COMMAND}\n")


def test_the_doctor_finds_the_copied_file(machine: Machine, clients: Clients) -> None:
    folder = machine.home.parent / "copy"
    folder.mkdir()
    shutil.copy(SOURCE / "keyrings_artifacts.py", folder)
    set_path(machine, clients.programs("keyring", "urllib3"))
    machine.az()
    python = str(clients.programs("keyring", "urllib3") / "python")
    found: dict[str, str] = {"PYTHON_KEYRING_BACKEND": module.OURS}
    done = machine.run(python, str(folder / "keyrings_artifacts.py"), FEED, status=1, **found)
    assert "keyring: cannot load this backend; it is the first on PATH" in done.stdout
    found["PYTHONPATH"] = os.pathsep.join([str(folder), machine.environ["PYTHONPATH"]])
    for command in ([str(folder / "keyrings_artifacts.py")], ["-m", "keyrings_artifacts"]):
        done = machine.run(python, *command, FEED, status=0, **found)
        assert "keyring: has this backend" in done.stdout
        assert "PYTHON_KEYRING_BACKEND names keyrings_artifacts.ArtifactsKeyringBackend" in done.stdout
        assert "The folder " in done.stdout  # and no keyring, which a twin of the backend would be


def test_ctrl_c_ends_the_doctor(machine: Machine) -> None:
    machine.program("az", f"#!/bin/sh\necho >'{machine.home}/started'\nexec sleep 60\n")
    started = machine.home / "started"
    terminal = Terminal(machine, *DOCTOR, FEED)
    for _ in range(200):
        if started.exists():
            break
        time.sleep(0.1)
    os.write(terminal.ours, b"\x03")
    assert terminal.end() == (130, "")
    assert "Traceback" not in terminal.screen


def test_the_doctor_is_a_script_too(machine: Machine) -> None:
    machine.az()
    done = machine.run(str(BIN / "keyrings-artifacts"), FEED)
    assert done.stdout.endswith("\n\nNothing to do: the feed accepts the credential (azure_cli).\n")
    for wrong in (["--colour"], [FEED, OTHER]):
        done = machine.run(str(BIN / "keyrings-artifacts"), *wrong, status=2)
        assert done.stdout == ""
        assert done.stderr.startswith("usage: keyrings-artifacts [-h] [--json] [--version] [URL]")
    assert machine.run(str(BIN / "keyrings-artifacts"), "--version").stdout == f"{module.__version__}\n"


def test_the_doctor_tells_what_it_could_not_use(machine: Machine) -> None:
    machine.az()
    found = rows(machine, XDG_DATA_HOME="/proc/nowhere")
    assert found["notice"]["text"].startswith(
        "The folder /proc/nowhere/python_keyring/keyrings_artifacts could"
    )
    assert found["ok"]


def test_the_doctor_says_what_is_kept_even_without_a_network(machine: Machine) -> None:
    machine.az()
    machine.get()
    found = rows(machine, **DEAD)
    assert found["session"]["text"].startswith("session token, account ada@contoso.example, scope vso.pack")
    assert "azure_cli" not in found


def test_the_doctor_ends_in_order_wherever_it_runs(machine: Machine) -> None:
    machine.az()
    for redirection in (">&-", ">/dev/full", "| true", ">&- 2>&-"):
        line = f"{' '.join(DOCTOR)} {FEED} {redirection}; echo done"
        done = machine.run("sh", "-c", line)
        assert done.stderr == ""
    odd = {"PYTHONIOENCODING": "ascii", "TERM": "", "COLUMNS": "x"}
    assert doctor(machine, **odd)[0] == 0
    command = ["env", "-u", "HOME", "-u", "PATH", *DOCTOR]
    done = machine.run(*command, FEED)
    assert done.stderr == ""
    assert "none is on PATH" in done.stdout


# --- what the README and the project's files say ----------------------------------------------


class Block(NamedTuple):
    """A fenced block of the README, and the heading it stands under."""

    heading: str
    language: str
    text: str


@functools.lru_cache
def readme() -> str:
    return (SOURCE / "README.md").read_text(encoding="utf-8")


def blocks(heading: str = "") -> list[Block]:
    """The fenced blocks of the README, or of what stands directly under one of its headings."""
    parts = re.findall(r"^#+ ([^\n]*)$|^```(\w*)\n(.*?)^```$", readme(), re.M | re.S)
    found, under = [], ""
    for title, language, text in parts:
        under = title or under
        if not title and heading in ("", under):
            found.append(Block(under, language, text))
    return found


def commands_of(block: Block) -> list[str]:
    """The commands of a block, one a line; those after `# or:` are commands like the others."""
    if block.language not in ("sh", "dockerfile"):
        return []
    text = re.sub(r"\\\n\s*", "", block.text).replace("# or: ", "\n").replace("; ", "\n")
    text = re.sub(r"(^|\s)#.*", "", text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [line for line in lines if block.language == "sh" or line.startswith("RUN ")]


def inline_commands() -> list[str]:
    """What the README has in `code` in a sentence or a table and is a command, with an argument."""
    text = re.sub(r"^```.*?^```$", "", readme(), flags=re.M | re.S)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    return [span for span in spans if re.match(rf"(?:[A-Z_]+=\S+ )?(?:{PROGRAMS}) (?!=)", span)]


PROGRAMS = (
    r"pip|pip3|pipx|uv|pixi|pdm|poetry|hatch|twine|keyring|az|azd|docker|git|bash|type|where|pre-commit"
    r"|python|python3|\.venv/bin/\S+|~/ado-auth-helper|Connect-AzAccount"
)
TYPED = "test_the_readme_can_be_typed"
NO_PIXI = "not run: pixi is in no Python package index"
NO_DOCKER = "not run: there is no Docker daemon in a test"
AZURE = "not run: it signs in at Azure itself"
CI_RUN = "run by .ci/run"
STANDS = "not run: it stands for commands that are run elsewhere"
NAMED = "not run: only spoken of"

EXAMINE = "keyrings-artifacts https://VssSessionToken@pkgs.dev.azure.com/ORG/_packaging/FEED/pypi/simple/"

# Every command of the README, and the test that runs it, or why none can.
COMMANDS = {
    "python3 -m venv .venv && .venv/bin/python -m pip install -q -U pip && .venv/bin/pip install -q -e "
    "'.[test]' && .venv/bin/python test_keyrings_artifacts.py": CI_RUN,
    "python3 -m venv .venv && .venv/bin/python -m pip install -q -U pip && .venv/bin/pip install -q -e "
    "'.[test]' && .venv/bin/python -m pytest -n 4": CI_RUN,
    ".venv/bin/python -m pytest -m benchmark": "not run: it takes minutes, and measures",
    # Spoken of
    **dict.fromkeys(
        ("az devops", "docker build", "keyring del", "keyring set", "pip install", "uv publish"), NAMED
    ),
    # Install
    "uv tool install keyring --with-executables-from keyrings.artifacts": TYPED,
    "pipx install keyring": TYPED,
    "pipx inject --include-apps keyring keyrings.artifacts": TYPED,
    "keyring get https://pkgs.dev.azure.com/ORG/PROJECT/_packaging/FEED/pypi/simple/ me": TYPED,
    "uv tool install twine --with keyrings.artifacts": TYPED,
    "uv tool install keyring --with-executables-from 'keyrings.artifacts[certificate]'": TYPED,
    # Clients
    "keyring get URL VssSessionToken": STANDS,
    "export PIP_KEYRING_PROVIDER=subprocess": TYPED,
    f"pip install --index-url {WITH_USER} contoso-greeting": TYPED,
    "pip config set global.keyring-provider subprocess": TYPED,
    "export UV_KEYRING_PROVIDER=subprocess": TYPED,
    f"uv pip install --default-index {WITH_USER} contoso-greeting": TYPED,
    f"uv publish --publish-url {UPLOAD} --username VssSessionToken dist/*": TYPED,
    "pixi install --pypi-keyring-provider subprocess": NO_PIXI,
    "pixi config set --global pypi-config.keyring-provider subprocess": NO_PIXI,
    "pipx install twine": TYPED,
    "pipx inject twine keyrings.artifacts": TYPED,
    f"twine upload --repository-url {UPLOAD} dist/*": TYPED,
    "pipx inject poetry keyrings.artifacts": TYPED,
    "poetry self add keyrings.artifacts": "not run: it asks pypi.org, whatever the machine's package index",
    f"poetry source add --priority=primary contoso {FEED}": TYPED,
    "poetry install": TYPED,
    "pdm self add keyrings.artifacts": TYPED,
    "pdm install": TYPED,
    "pipx inject hatch keyrings.artifacts": TYPED,
    f"hatch publish --repo {UPLOAD} --user VssSessionToken": "test_a_client_publishes",
    # By hand
    "keyring set https://pkgs.dev.azure.com/ORG/_packaging/FEED/pypi/simple/ me": TYPED,
    "keyring del https://pkgs.dev.azure.com/ORG/_packaging/FEED/pypi/simple/ me": TYPED,
    # Sources
    "az login": AZURE,
    "az login --tenant TENANT": AZURE,
    "az logout": AZURE,
    "azd auth login": AZURE,
    "~/ado-auth-helper get-access-token": "test_a_tool_of_a_person_takes_two_requests_and_then_none",
    # Docker and pipelines
    "RUN pip install keyring keyrings.artifacts && python -m venv /app": NO_DOCKER,
    "RUN --mount=type=secret,id=azure_devops_ext_pat /app/bin/pip install --no-cache-dir --index-url "
    f"{WITH_USER} contoso-greeting": NO_DOCKER,
    "docker build --secret id=azure_devops_ext_pat,env=AZURE_DEVOPS_EXT_PAT .": NO_DOCKER,
    "docker run -e AZURE_CLIENT_ID -e AZURE_TENANT_ID -e ACTIONS_ID_TOKEN_REQUEST_URL "
    "-e ACTIONS_ID_TOKEN_REQUEST_TOKEN": NO_DOCKER,
    "docker run -e servicePrincipalId -e tenantId -e idToken": NO_DOCKER,
    "docker run -e AZURE_CLIENT_ID": NO_DOCKER,
    # Troubleshooting
    EXAMINE: TYPED,
    "python -m keyrings_artifacts URL": "test_the_doctor_finds_the_copied_file",
    "type -a keyring": TYPED,
    "keyring get https://pkgs.dev.azure.com/ORG/_packaging/FEED/pypi/simple/ me": TYPED,
    "where keyring": "not run: Windows",
    "keyring --list-backends": TYPED,
    "KEYRINGS_ARTIFACTS_LOGLEVEL=DEBUG keyring get "
    "https://pkgs.dev.azure.com/ORG/_packaging/FEED/pypi/simple/ me": TYPED,
    "keyring del URL me": STANDS,
    # How to change it
    ".venv/bin/python test_keyrings_artifacts.py -- .venv/bin/keyring get URL me": (
        "test_a_command_among_the_stand_ins"
    ),
    "bash .ci/run": CI_RUN,
    ".venv/bin/mypy keyrings_artifacts.py test_keyrings_artifacts.py": CI_RUN,
    ".venv/bin/ruff check": CI_RUN,
    "pre-commit run --all-files": "not run: it makes environments of its own; .ci/run runs the same checks",
    "pip install pre-commit": "not run: it installs what no test needs",
}


def test_every_command_of_the_readme_is_accounted_for() -> None:
    said = [command for block in blocks() for command in commands_of(block)] + inline_commands()
    assert sorted(set(said) - set(COMMANDS)) == []
    assert sorted(set(COMMANDS) - set(said)) == []
    tests = {how for how in COMMANDS.values() if how.startswith("test_")}
    assert sorted(name for name in tests if not callable(globals().get(name))) == []
    typed = {command for section in SECTIONS.values() for command in section.commands()}
    assert sorted(typed ^ {command for command, how in COMMANDS.items() if how == TYPED}) == []


class Section(NamedTuple):
    """How a person types what stands under one heading of the README, or in its sentences."""

    heading: str = ""
    more: tuple[str, ...] = ()  # typed as well, after the section's own
    first: tuple[str, ...] = ()  # not of the README: what the person has beforehand
    tokens: frozenset[str] = frozenset({"session"})  # the kinds that open the feed
    environ: Mapping[str, str] = {}
    project: str = ""
    publishes: bool = False
    on_path: tuple[str, ...] = ()  # packages whose programs are on PATH

    def commands(self) -> list[str]:
        own = [command for block in blocks(self.heading) for command in commands_of(block)]
        own = own if self.heading else []
        return [each for each in [*own, *self.more] if COMMANDS[each] == TYPED]


NONE: frozenset[str] = frozenset()
SET, _, ASK = (
    f"keyring {verb} https://pkgs.dev.azure.com/ORG/_packaging/FEED/pypi/simple/ me"
    for verb in ("set", "del", "get")
)
LOOK = "keyring get https://pkgs.dev.azure.com/ORG/PROJECT/_packaging/FEED/pypi/simple/ me"
LOGGED = f"KEYRINGS_ARTIFACTS_LOGLEVEL=DEBUG {ASK}"
TOOL = "uv tool install keyring --with-executables-from keyrings.artifacts"
SECTIONS = {
    "install with uv": Section(
        more=(TOOL, "type -a keyring", "keyring --list-backends", LOOK, ASK, LOGGED), tokens=NONE
    ),
    "install with pipx": Section(more=("pipx install keyring", PIPX, LOOK), tokens=NONE),
    "the doctor with uv": Section(more=(TOOL, EXAMINE)),
    "the doctor with pipx": Section(more=("pipx install keyring", PIPX, EXAMINE)),
    "install extras": Section(
        more=(
            "uv tool install keyring --with-executables-from 'keyrings.artifacts[certificate]'",
            "uv tool install twine --with keyrings.artifacts",
            LOOK,
        ),
        tokens=NONE,
    ),
    "pip": Section("pip", first=(TOOL,), on_path=("pip",)),
    "pip configured": Section(
        more=(
            "pip config set global.keyring-provider subprocess",
            f"pip install --index-url {WITH_USER} contoso-greeting",
        ),
        first=(TOOL,),
        on_path=("pip",),
    ),
    "uv": Section("uv", first=(TOOL,), publishes=True),
    "twine": Section("twine", publishes=True),
    "poetry": Section(
        "poetry", first=("pipx install poetry",), project="[tool.poetry]\npackage-mode = false\n"
    ),
    "pdm": Section(
        "pdm",
        first=("pipx install 'pdm[locked]'",),
        environ=PDM,
        project="[tool.pdm]\ndistribution = false\n",
    ),
    "hatch": Section("hatch", first=("pipx install hatch",), tokens=NONE),
    "by hand": Section("Where a credential comes from", first=(TOOL,), tokens=NONE),
}


class Typist:
    """A person who types commands, on a machine with uv and pipx, and neither keyring nor client."""

    def __init__(self, machine: Machine, clients: Clients, section: Section) -> None:
        self.machine, self.clients, self.section = machine, clients, section
        programs = machine.home.parent / "programs"
        own = [clients.programs(each) for each in ("pipx", *section.on_path)]
        set_path(machine, programs, *own, Path(clients.uv).parent)
        self.places = {
            **{name: str(programs) for name in ("UV_TOOL_BIN_DIR", "PIPX_BIN_DIR")},
            "UV_TOOL_DIR": str(programs.parent / "uv"),
            "PIPX_HOME": str(programs.parent / "pipx"),
            "PIPX_MAN_DIR": str(programs.parent / "man"),
            "PIPX_DEFAULT_PYTHON": sys.executable,
            "UV_PYTHON": sys.executable,
            # There a newer keyrings.artifacts lies than in any index: this one.
            **dict.fromkeys(("UV_FIND_LINKS", "PIP_FIND_LINKS"), str(clients.wheel.parent)),
            "PATH": machine.environ["PATH"],
        }
        machine.environ.pop("UV_NO_CONFIG", None)  # under which uv does not read pyproject.toml either
        machine.environ.pop("PIP_CONFIG_FILE", None)
        machine.environ.update(section.environ)

    def types(self, command: str) -> str:
        """Return what a command prints; one that installs a program reaches the package index."""
        if command.startswith("export "):
            name, _, value = command[len("export ") :].partition("=")
            self.machine.environ[name] = value
            return ""
        if command.startswith(("pipx ", "uv tool ", "pdm self ")):
            self.clients.run("bash", "-c", command, **self.places)
            return ""
        command = command.replace("ORG/PROJECT/_packaging/FEED", "contoso/My%20Project/_packaging/projfeed")
        command = command.replace("ORG/_packaging/FEED", "contoso/_packaging/pyfeed")
        return self.machine.run("bash", "-c", f"{command} < ../typed").stdout


def prepare_project(machine: Machine, section: Section, block: str) -> None:
    """Give a person a project, an environment for it, and wheels to publish."""
    services, home = machine.services, machine.home
    services.organizations["contoso"].add_package("projfeed", "contoso-greeting", "1.0")
    ada = services.accounts["ada@contoso.example"]
    (home.parent / "typed").write_text(services.mint_devops(ada, "contoso") + "\n")
    project = PROJECT.replace(json.dumps(PACKAGES.split()), '["contoso-greeting"]')
    (home / "pyproject.toml").write_text(project + block + section.project)
    (home / "dist").mkdir()
    filename, content = build_wheel("contoso-hail", "1.0")
    (home / "dist" / filename).write_bytes(content)
    machine.run(sys.executable, "-m", "venv", "--without-pip", str(home / ".venv"))
    places = {"VIRTUAL_ENV": str(home / ".venv"), "PIP_TARGET": str(home / "site")}
    machine.environ.update({**UV, **POETRY, **places})
    del machine.environ["UV_KEYRING_PROVIDER"]


@pytest.mark.parametrize("name", SECTIONS)
def test_the_readme_can_be_typed(machine: Machine, clients: Clients, name: str) -> None:
    section = SECTIONS[name]
    machine.az()
    tables = "".join(f"\n{block.text}" for block in blocks(section.heading) if block.language == "toml")
    typist = Typist(machine, clients, section)
    prepare_project(machine, section, tables if section.heading else "")
    if SET in section.commands():
        machine.environ.update(plug_in(machine, "small_keyring", SMALL_KEYRING))
    said = {command: typist.types(command) for command in [*section.first, *section.commands()]}
    if LOOK in said:
        assert opens(machine, said[LOOK].strip())
    if "keyring --list-backends" in said:
        assert "keyrings_artifacts.ArtifactsKeyringBackend" in said["keyring --list-backends"]
    assert visits(machine)[0] == section.tokens
    feed = machine.services.organizations["contoso"].feed("pyfeed")
    assert feed
    assert feed.has("contoso_hail-1.0-py3-none-any.whl") == section.publishes


def test_settings_in_the_readme_are_those_that_clients_are_run_with() -> None:
    projects = [client.project for client in INSTALLERS.values()]
    shown = [block for block in blocks() if block.language == "toml" and block.heading != "pixi"]
    assert len(shown) == 2
    assert [b.heading for b in shown if not any(b.text in project for project in projects)] == []


@pytest.mark.skipif(sys.platform != "linux", reason=STAND_INS)
def test_a_command_among_the_stand_ins() -> None:
    """What the README says runs any command there."""
    keyring = os.path.relpath(BIN / "keyring")
    command = [sys.executable, str(Path(__file__)), "--", keyring, "get", FEED, "me"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\S+\n", done.stdout)


def table(heading: str, first: str) -> list[list[str]]:
    """The rows of the README's table under a heading whose first column is called that."""
    text = readme().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = text.partition(f"| {first} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_readme_names_the_sources_in_their_order() -> None:
    rows = table("Where a credential comes from", "Source")
    assert [row[0] for row in rows] == [f"`{source.__name__}`" for source in module.SOURCES]
    assert [row[0] for row in table("Where a credential comes from", "Type")] == [
        f"`{kind}`" for kind in module.LADDER
    ]


def literals() -> set[str]:
    """The string literals of the module, its docstrings aside, that could be names of variables."""
    tree = ast.parse((SOURCE / "keyrings_artifacts.py").read_text(encoding="utf-8"))
    values = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {each for each in values if isinstance(each, str) and re.fullmatch(r"\w+", each)}


# Names that urllib reads for us.
OF_URLLIB = {"HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
# Literals in the spelling of variables that are none of ours to explain.
NO_SETTINGS = {"AZURE_CORE_NO_COLOR", "NO_COLOR", "CERT_NONE", "O_NOFOLLOW", "O_NONBLOCK"}
# What the doctor looks at for the sake of pip, uv and keyring.
NO_SETTINGS |= {"PYTHON_KEYRING_BACKEND"}
NO_SETTINGS |= {"UV_CONFIG_FILE", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_INDEX", "UV_INDEX_URL"}
NO_SETTINGS |= {"UV_KEYRING_PROVIDER", "UV_NO_CONFIG", "XDG_CONFIG_HOME"}


def test_the_readme_names_the_variables_that_the_module_reads() -> None:
    rows = [cell for row in table("Variables", "Variable") for cell in row]
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    found = literals()
    prefixes = {each for each in found if re.fullmatch(r"[A-Z_]+_", each)}
    endings = {name[len(each) :] for each in prefixes for name in named if name.startswith(each)} & found
    read = found | OF_URLLIB | {prefix + ending for prefix in prefixes for ending in endings}
    names = {name for name in named if re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)+", name)}
    assert sorted(names - read) == []
    spelled = {name for name in found if re.fullmatch(r"[A-Z]+(_[A-Z0-9]+)+", name)}
    assert sorted(spelled - named - endings - NO_SETTINGS) == []


def anchors() -> set[str]:
    """The places within the README, as GitHub names its headings."""
    text = re.sub(r"^```.*?^```$", "", readme(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {"#" + re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_links_within_the_project_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", readme())
    assert len(targets) > 5
    places = [each for each in targets if not each.startswith("https://")]
    lost = [each for each in places if each not in anchors() and not (SOURCE / each).is_file()]
    assert lost == []


def arrows(part: str) -> list[tuple[str, str, str]]:
    return re.findall(r"^ *(\w+)-?->>(\w+): (.*)$", part, re.M)


def test_the_diagram_shows_what_happens(machine: Machine) -> None:
    """Its two calls ask the services, and `az`, for what the two calls of a machine ask them for."""
    (diagram,) = (block.text for block in blocks("How it works") if block.language == "mermaid")
    assert diagram.startswith("sequenceDiagram\n")
    called = dict(re.findall(r"participant (\w+)(?: as (.*))?", diagram))
    assert {name for arrow in arrows(diagram) for name in arrow[:2]} == set(called)
    _, first, second = diagram.split("Note over pip,tokens: ")
    machine.az()
    for part in (first, second):
        requests = [(to, text) for origin, to, text in arrows(part) if origin == "backend"]
        shown = [f"{text.split(',')[0]} {called[to]}" for to, text in requests if "." in called[to]]
        machine.get()
        assert asked(machine) == shown
    commands = [text for _, to, text in arrows(diagram) if to == "az"]
    assert commands == ["az " + " ".join(AZ_COMMAND[1:3])]
    assert called["backend"] == module.__name__


def test_the_module_says_what_the_metadata_say() -> None:
    found = importlib.metadata.metadata("keyrings.artifacts")
    assert found["Version"] == module.__version__
    assert found["Summary"] == (module.__doc__ or "").splitlines()[0]
    assert found["License-Expression"] == "MIT"
    assert set(found.get_all("Provides-Extra") or ()) == {
        *("certificate", "encrypted-file", "truststore", "test")
    }
    assert module.__all__ == ["ArtifactsKeyringBackend"]
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", module.__doc__ or "")) <= literals() | {
        "PYTHON_KEYRING_BACKEND"
    }


def project_files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in SOURCE.glob(pattern))


@pytest.mark.parametrize("name", ["ci.yml"])
def test_workflows_are_pinned_and_allowed_nothing(name: str) -> None:
    yaml = pytest.importorskip("yaml")
    assert [path.name for path in project_files(".github/workflows/*")] == ["ci.yml"]
    text = (SOURCE / ".github" / "workflows" / name).read_text(encoding="utf-8")
    assert yaml.safe_load(text)["permissions"] == {}
    uses = re.findall(r"^ *-? *uses: (.*)$", text, re.M)
    assert uses
    assert [each for each in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", each)] == []


def test_the_workflow_tests_what_the_metadata_promise() -> None:
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((SOURCE / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    classifiers = importlib.metadata.metadata("keyrings.artifacts").get_all("Classifier") or ()
    promised = [found[1] for each in classifiers if (found := re.search(r":: (3\.\d+)$", each))]
    assert matrix["python"] == promised
    assert matrix["system"] == ["ubuntu-latest", "windows-latest", "macos-latest"]
    assert set(jobs["gate"]["needs"]) == set(jobs) - {"gate", "publish"}
    assert jobs["publish"]["needs"] == ["gate"]
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})] == ["publish"]


@pytest.mark.parametrize(
    ("tag", "status"), [(f"v{module.__version__}", 0), (module.__version__, 1), ("v0", 1)]
)
@POSIX
def test_a_tag_is_the_version(tag: str, status: int) -> None:
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((SOURCE / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    (step,) = (each for each in jobs["build"]["steps"] if each.get("if") == "github.ref_type == 'tag'")
    environ = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "GITHUB_REF_NAME": tag}
    command = ["bash", "-e", "-c", step["run"]]
    done = subprocess.run(command, cwd=SOURCE, env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (status, "")
    assert done.stdout == f"tag {tag}, version {module.__version__}\n"


def test_the_sdist_holds_what_its_tests_need(clients: Clients) -> None:
    folder = clients.folder / "sdist"
    clients.run(
        *(clients.uv, "build", "--sdist", "--python", sys.executable),
        *("--out-dir", str(folder), str(SOURCE)),
    )
    (path,) = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    top = {"LICENSE", "README.md", "keyrings_artifacts.py", "pyproject.toml", "test_keyrings_artifacts.py"}
    dots = {".ci/run", ".github/dependabot.yml", ".github/workflows/ci.yml", ".pre-commit-config.yaml"}
    assert names - {"", ".ci", ".github", ".github/workflows"} == top | dots | {"PKG-INFO"}


# --- speed ------------------------------------------------------------------------------------


LOADED = """
import json, os, sys
import keyring.cli
before = set(sys.modules)
import keyrings_artifacts
imported = set(sys.modules) - before
keyring.backend.get_all_keyring()  # as keyring itself does before it asks any
before = set(sys.modules)
url = os.environ.get("LOOK_UP")
found = keyrings_artifacts.ArtifactsKeyringBackend().get_password(url, "me") if url else None
print(json.dumps([sorted(imported), sorted(set(sys.modules) - before), bool(found)]))
"""
HEAVY = {"urllib3", "ssl", "_ssl", "subprocess", "socket", "http.server", "webbrowser", "cryptography"}
HEAVY |= {"truststore", "secrets", "hmac", "queue", "shlex", "configparser"}


@pytest.mark.parametrize("found", ["nothing asked", "PAT given", "session kept"])
def test_what_is_at_hand_loads_nothing_heavy(machine: Machine, found: str) -> None:
    """What costs time and memory is loaded by a call that needs it, and by no other."""
    changes = {"LOOK_UP": "" if found == "nothing asked" else FEED}
    if found == "PAT given":
        changes["AZURE_DEVOPS_EXT_PAT"] = "p" * 52
    if found == "session kept":
        machine.az()
        machine.get()
    imported, called, answer = json.loads(machine.python(LOADED, **changes))
    if at_least("keyring", 25):  # which loads the rest of what this module needs
        assert set(imported) <= {"dataclasses", "keyrings_artifacts"}
    assert not HEAVY & {*imported, *called, *(name.partition(".")[0] for name in called)}
    assert answer == bool(changes["LOOK_UP"])


ROUNDS = 9  # about three minutes
LATENCIES = (0.0, 0.04)
NOTHING = """
from keyring.backend import KeyringBackend

class Nothing(KeyringBackend):
    priority = 9.95

    def get_password(self, service, username):
        return "nothing"

    def set_password(self, service, username, password):
        raise NotImplementedError
"""
# Runs a program, from a process so small that the memory counted is the program's own.
STOPWATCH = """
import os, sys, time
null = os.open(os.devnull, os.O_RDWR)
quiet = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 2)]
began = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, used = os.wait4(child, 0)
print(time.perf_counter() - began, used.ru_maxrss, status, file=sys.stderr)
"""
MANY = """
import sys, keyring
print("\\n".join(str(keyring.get_password(url, "VssSessionToken")) for url in sys.argv[1:]))
"""
IMPORT = """
import time
at = time.perf_counter()
import keyring.cli
between = time.perf_counter()
import {}
print((time.perf_counter() - between) / (between - at))
"""


@dataclasses.dataclass
class Contestant:
    """A backend in an environment of its own; `trouble` tells why it is not there."""

    title: str
    module: str
    folder: Path
    requirements: Sequence[str]
    trouble: str = ""

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def site(self) -> Path:
        return next(self.folder.glob("lib/python*/site-packages"))

    def install(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder], check=True)
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "-q", "--no-input"]
        done = subprocess.run([*pip, *self.requirements], capture_output=True, text=True)
        errors = re.findall(r"^ERROR: (.*)", done.stderr, re.MULTILINE)
        self.trouble = (errors or ["pip failed"])[-1] if done.returncode else ""
        if self.module == "nothing":
            (self.site / "nothing.py").write_text(NOTHING)
            meta = self.site / "nothing-1.dist-info"
            meta.mkdir()
            (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: nothing\nVersion: 1\n")
            (meta / "entry_points.txt").write_text("[keyring.backends]\nnothing = nothing\n")
            subprocess.run([self.python, "-m", "compileall", "-q", self.site / "nothing.py"], check=True)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """The bytes of each distribution, without and with byte code."""
        found = {}
        for each in importlib.metadata.distributions(path=[str(self.site)]):
            paths = [Path(str(each.locate_file(name))) for name in each.files or ()]
            present = [(path, path.stat().st_size) for path in paths if path.is_file()]
            plain = sum(size for path, size in present if path.suffix != ".pyc")
            found[each.metadata["Name"]] = plain, sum(size for _, size in present)
        return found


class Measure(NamedTuple):
    seconds: float
    memory: int
    requests: int
    exchanges: int
    answers: list[str]


@dataclasses.dataclass
class Course:
    """What the contestants run on: the stand-in services, a fake az, and homes."""

    services: Services
    folder: Path
    pat: str = dataclasses.field(repr=False)

    def environ(self, home: Path, situation: str) -> dict[str, str]:
        home.mkdir(parents=True, exist_ok=True)
        environ = self.services.environ(home)
        given = situation == "PAT given"
        environ["PATH"] = os.pathsep.join([*([] if given else [str(self.folder)]), "/usr/bin", "/bin"])
        if given:
            environ["AZURE_DEVOPS_EXT_PAT"] = environ["ARTIFACTS_KEYRING_NOFUSS_TOKEN"] = self.pat
            environ["ARTIFACTS_KEYRING_NOFUSS_PROVIDER"] = "env_var"  # not beyond it, to what is not here
        return environ

    def run(self, who: Contestant, home: Path, situation: str, *command: str) -> Measure:
        self.services.forget()
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", STOPWATCH, who.python, *command],
            env=self.environ(home, situation),
            cwd=home,
            capture_output=True,
            text=True,
            start_new_session=True,
        )
        seconds, memory, _ = done.stderr.split()[-3:]
        return Measure(float(seconds), int(memory), *self.asked(), done.stdout.split())

    def asked(self) -> tuple[int, int]:
        """How many requests the services saw, and how many of them were exchanges."""
        exchanges = [each for each in self.services.seen(method="POST") if each.host.startswith("vssps.")]
        return len(self.services.seen()), len(exchanges)

    def get(self, who: Contestant, home: Path, situation: str) -> Measure:
        program = str(who.folder / "bin" / "keyring")
        return self.run(who, home, situation, program, "get", FEED, "VssSessionToken")

    def good(self, answers: Sequence[str]) -> bool:
        """Whether every answer opens the feed, or is the one that is always the same."""
        live = filter(None, map(self.services.live, answers))
        opening = sum(map(self.services.organizations["contoso"].admits, live))
        return bool(answers) and (opening == len(answers) or set(answers) == {"nothing"})

    def home(self, who: Contestant, situation: str) -> Path:
        """A home folder, which only a cold start finds empty."""
        home = self.folder / f"home-{who.module}-{situation.replace(' ', '-')}"
        if situation == "az, cold":
            shutil.rmtree(home, ignore_errors=True)
        return home


SITUATIONS = ("PAT given", "session kept", "az, cold")


@pytest.fixture
def course(services: Services, tmp_path: Path) -> Course:
    folder = tmp_path / "course"
    ada = services.accounts["ada@contoso.example"]
    fake_az(folder, services, ada)
    for number in range(50):
        services.organizations["contoso"].add_feed(f"feed{number}")
    return Course(services, folder, services.mint_devops(ada, "contoso"))


@pytest.fixture
def contestants(tmp_path: Path) -> list[Contestant]:
    made = [
        Contestant("nothing", "nothing", tmp_path / "nothing", ["keyring", "urllib3"]),
        Contestant("this", "keyrings_artifacts", tmp_path / "this", [str(SOURCE)]),
        Contestant(
            "keyrings.artifacts 1.0.2",
            "keyrings_artifacts.artifacts",
            tmp_path / "older",
            ["keyrings.artifacts==1.0.2"],
        ),
        Contestant(
            "artifacts-keyring-nofuss 1.3.3",
            "artifacts_keyring_nofuss",
            tmp_path / "nofuss",
            ["artifacts-keyring-nofuss==1.3.3"],
        ),
    ]
    for each in made:
        each.install()
    return made


Cells = dict[str, str]  # by title of a contestant


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def ratio(part: Sequence[float], whole: Sequence[float]) -> str:
    """The median of what was measured round by round: a machine is not as fast in every one."""
    return f"{statistics.median(one / other for one, other in zip(part, whole)):.2f}"


def race(course: Course, contestants: Sequence[Contestant]) -> list[tuple[str, Cells]]:
    """Rows for whole processes: all contestants take turns, in every round anew."""
    heats = [(situation, latency) for situation in SITUATIONS for latency in LATENCIES]
    found: dict[tuple[str, str, float], list[Measure]] = {}
    for turn in range(ROUNDS + 1):
        for situation, latency in heats:
            for who in contestants:
                home = course.home(who, situation)
                course.services.latency = latency
                measure = course.get(who, home, situation)
                if turn:  # the round before the first fills stores, and the system's caches
                    found.setdefault((who.title, situation, latency), []).append(measure)
    course.services.latency = 0.0
    rows = []
    for situation, latency in heats:
        cells = {}
        for who in contestants:
            mine, nothing = (found[title, situation, latency] for title in (who.title, "nothing"))
            times = ratio([each.seconds for each in mine], [each.seconds for each in nothing])
            good = all(course.good(each.answers) for each in mine)
            cells[who.title] = f"{times} ({counted(mine[-1].requests, 'request')})" if good else "no answer"
        rows.append((f"keyring get, {situation}, latency {latency * 1000:.0f} ms", cells))
    memory = {}
    for who in contestants:
        mine, nothing = (found[title, "session kept", 0.0] for title in (who.title, "nothing"))
        memory[who.title] = ratio([each.memory for each in mine], [each.memory for each in nothing])
    return [*rows, ("peak memory, session kept", memory)]


def imports(course: Course, contestants: Sequence[Contestant]) -> Cells:
    """How long it takes to import each after `keyring.cli`, as a part of what that took."""
    found: dict[str, list[float]] = {}
    for _ in range(2 * ROUNDS + 2):
        for who in contestants:
            code = IMPORT.format(who.module)
            done = course.run(who, course.folder / "home", "PAT given", "-c", code)
            found.setdefault(who.title, []).append(float(done.answers[0]))
    return {title: f"{statistics.median(times[2:]):.3f}" for title, times in found.items()}


def many_feeds(course: Course, contestants: Sequence[Contestant], number: int) -> Cells:
    """One process that asks for the feeds of one organization, one after the other, from cold."""
    urls = [FEED.replace("pyfeed", f"feed{each}") for each in range(number)]
    found: dict[str, list[Measure]] = {}
    for _ in range(3):
        for who in contestants:
            home = course.home(who, "az, cold")
            measure = course.run(who, home, "az, cold", "-c", MANY, *urls)
            found.setdefault(who.title, []).append(measure)
    cells = {}
    for title, mine in found.items():
        times = ratio([each.seconds for each in mine], [each.seconds for each in found["nothing"]])
        good = all(course.good(each.answers) and len(each.answers) == number for each in mine)
        cells[title] = f"{times} ({counted(mine[-1].exchanges, 'exchange')})" if good else "no answer"
    return cells


def at_once(course: Course, contestants: Sequence[Contestant], number: int) -> Cells:
    """Processes that ask for one feed at the same time, from cold."""
    cells = {}
    for who in contestants:
        environ = course.environ(course.home(who, "az, cold"), "az, cold")
        course.services.forget()
        running = [
            subprocess.Popen(
                [str(who.folder / "bin" / "keyring"), "get", FEED, "VssSessionToken"],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            for _ in range(number)
        ]
        answers = [process.communicate(timeout=120)[0].strip() for process in running]
        cells[who.title] = counted(course.asked()[1], "exchange") if course.good(answers) else "no answer"
    return cells


def sizes(contestants: Sequence[Contestant]) -> list[tuple[str, Cells]]:
    """What each adds to an environment with keyring and urllib3: itself and what it depends on."""
    base = contestants[0].sizes().keys()
    plain, full = {}, {}
    for who in contestants[1:]:
        added = [size for name, size in who.sizes().items() if name not in base]
        plain[who.title] = (
            f"{sum(size for size, _ in added) / 1024:,.0f} KiB ({counted(len(added), 'package')})"
        )
        full[who.title] = f"{sum(size for _, size in added) / 1024:,.0f} KiB"
    return [("installed beside keyring and urllib3", plain), ("the same with byte code", full)]


def speed_table(contestants: Sequence[Contestant], rows: Sequence[tuple[str, Cells]]) -> str:
    """The rows in Markdown; whoever could not be installed is told of below, and has no figures."""
    titles = [who.title for who in contestants]
    lines = [["", *titles]] + [[name, *(cells.get(title, "") for title in titles)] for name, cells in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles) + 1)]
    lines.insert(1, ["-" * width for width in widths])
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    return "\n".join([*text, *(f"{who.title}: {who.trouble}" for who in contestants if who.trouble)])


@pytest.mark.benchmark
def test_speed(course: Course, contestants: list[Contestant], capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the table of README's section on speed; what is counted is held, and no time is."""
    able = [who for who in contestants if not who.trouble]
    rows = race(course, able)
    rows.append(("import after keyring.cli, as a part of its import", imports(course, able)))
    rows += [
        (f"{counted(number, 'feed')} of one organization", many_feeds(course, able, number))
        for number in (1, 10, 50)
    ]
    rows += [(f"processes at once: {number}", at_once(course, able, number)) for number in (1, 8)]
    rows += sizes(able)
    with capsys.disabled():
        print(f"\n{speed_table(contestants, rows)}")
    counts = [re.sub(r".*\((.*)\)", r"\1", cells["this"]) for _, cells in rows]
    assert counts[:6] == ["0 requests"] * 4 + ["2 requests"] * 2
    assert counts[8:13] == ["1 exchange"] * 5


# --- faults, end to end -----------------------------------------------------------------------


@contextlib.contextmanager
def lane(folder: Path) -> Iterator[Machine]:
    """A machine with services of its own, for what goes on beside others; searched as `machine` is."""
    (folder / "services").mkdir(parents=True)
    with Services(folder / "services") as running:
        made = set_up(running, folder)
        yield made
        assert made.strays() == []
        assert made.leaks() == []


def side_by_side(folder: Path, jobs: Mapping[str, Callable[[Machine], T]], at_once: int = 6) -> dict[str, T]:
    """What each job returns, in a lane of its own; some at once, as they mostly wait."""
    needs_stand_ins()

    def work(pair: tuple[int, Callable[[Machine], T]]) -> T:
        with lane(folder / f"lane-{pair[0]}") as machine:
            return pair[1](machine)

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return dict(zip(jobs, pool.map(work, enumerate(jobs.values()))))


class Outcome(NamedTuple):
    """How a program ended that looked a password up, or signed out."""

    status: int
    stdout: str
    said: list[str]  # lines, without what every notice begins with
    seconds: float

    @property
    def sentence(self) -> str:
        """The one line that was said where nothing was printed and nothing else happened."""
        failed = self.status == 1 and self.stdout == "" and len(self.said) == 1 and self.seconds < 60
        return self.said[0] if failed else f"not one sentence: {self.status} {self.said} {self.seconds:.0f} s"


def notices(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    return [line[len("keyrings.artifacts: ") :] if line.startswith("keyrings.a") else line for line in lines]


def look_up(machine: Machine, **changes: str) -> Outcome:
    began = time.monotonic()
    done = machine.keyring("get", FEED, "me", status=None, **changes)
    return Outcome(done.returncode, done.stdout, notices(done.stderr), time.monotonic() - began)


def look_up_at_a_terminal(machine: Machine, **changes: str) -> Outcome:
    """The person enters every code at once; the line that tells it is left out."""
    machine.services.device_auto_approve_after_polls = 0
    machine.services.device_interval = 1.0
    began = time.monotonic()
    terminal = Terminal(machine, *KEYRING_GET, hides_stderr=False, **changes)
    status, output = terminal.end()
    said = [line for line in notices("\n".join(terminal.said())) if not line.startswith("To sign in to")]
    return Outcome(status, output, said, time.monotonic() - began)


def sign_out(machine: Machine, **changes: str) -> Outcome:
    began = time.monotonic()
    done = machine.keyring("del", FEED, "me", status=None, **changes)
    return Outcome(done.returncode, done.stdout, notices(done.stderr), time.monotonic() - began)


class Step(NamedTuple):
    """A request on the way to a password."""

    before: Callable[[Machine], dict[str, str]]
    host: str
    path: str
    says: str = ""  # the beginning of what is said where it never works; empty where it is not needed
    form: str = ""  # part of the body
    act: Callable[..., Outcome] = look_up


def with_az(machine: Machine) -> dict[str, str]:
    machine.az()
    return {}


def with_az_and(kind: str) -> Callable[[Machine], dict[str, str]]:
    return lambda machine: {**with_az(machine), "KEYRINGS_ARTIFACTS_TOKEN_TYPE": kind}


def with_browser(machine: Machine) -> dict[str, str]:
    open_browser(machine)
    return {}


def signed_in_before(machine: Machine) -> dict[str, str]:
    """The session is over, and the refresh token is not."""
    environ = {**with_browser(machine), **plug_in(machine, "small_keyring", SMALL_KEYRING)}
    machine.services.revoke(machine.get(**environ))
    return {**environ, **later(machine, 70)}


def an_hour_ago(machine: Machine) -> dict[str, str]:
    machine.get(**with_az(machine))
    return later(machine, 70)


def with_a_pat(machine: Machine) -> dict[str, str]:
    environ = {**with_az_and("pat")(machine), **plug_in(machine, "small_keyring", SMALL_KEYRING)}
    machine.get(**environ)
    return environ


def impatient(machine: Machine) -> dict[str, str]:
    return {TIMEOUT: "4"}


def with_an_identity(machine: Machine) -> dict[str, str]:
    machine.services.identities.system = robot(machine)
    return on_app_service(machine)


ENTRA_HOST, TOKEN_HOST = "login.microsoftonline.com", "vssps.dev.azure.com"
STEPS = {
    "discovery": Step(with_az, "pkgs.dev.azure.com", "/simple/", "pkgs.dev.azure.com "),
    "session": Step(with_az, TOKEN_HOST, "/SessionTokens", "vssps.dev.azure.com "),
    "PAT": Step(with_az_and("pat"), TOKEN_HOST, "/pats", "vssps.dev.azure.com "),
    "check": Step(with_az_and("entra"), "pkgs.dev.azure.com", "/simple/", "pkgs.dev.azure.com "),
    "code": Step(with_browser, ENTRA_HOST, "/token", "login.microsoftonline.com "),
    "refresh": Step(signed_in_before, ENTRA_HOST, "/token", "login.microsoftonline.com "),
    "device code": Step(
        impatient, ENTRA_HOST, "/devicecode", "login.microsoftonline.com ", act=look_up_at_a_terminal
    ),
    "device polls": Step(
        impatient, ENTRA_HOST, "/token", "Nobody signed in to organization", act=look_up_at_a_terminal
    ),
    "stored": Step(an_hour_ago, "pkgs.dev.azure.com", "/simple/"),
    "identity": Step(with_an_identity, "127.0.0.1", "/MSI/token", "managed_identity: 127.0.0.1:"),
    "issuer": Step(
        on_github, "pipelines.actions.githubusercontent.com", "/idtoken", "workload_identity: pipelines."
    ),
    "secret": Step(with_secret, ENTRA_HOST, "/token", "login.microsoftonline.com "),
    "revocation": Step(with_a_pat, TOKEN_HOST, "/pats", act=sign_out),
}
JSON_BODY = json.dumps({"access_token": "a" * 80, "token": "b" * 80, "value": "c" * 80}).encode()
FAULTS = {
    "503": Reply(503),
    "502": Reply(502, body=b"<html>Bad gateway</html>"),
    "500": Reply(500),
    "429": Reply(429, [("Retry-After", "1")]),
    "429 for a day": Reply(429, [("Retry-After", "86400")]),
    "a drop": Reply(0),
    "no answer": Reply(0, wait=300),
    "a drip of headers": Reply(200, [JSON_TYPE], JSON_BODY, drip=1, drips_head=True),
    "a drip of a body": Reply(200, [JSON_TYPE], JSON_BODY, drip=1),
}


def suffer(step: Step, faults: Iterable[Reply]) -> Callable[[Machine], Outcome]:
    """A job that comes to a step, at which these are the first answers."""
    left, turn = iter(faults), threading.Lock()

    def strike(request: Recorded) -> Reply | None:
        if request.host != step.host or step.path not in request.path:
            return None
        if step is STEPS["check"] and "authorization" not in request.headers:
            return None
        with turn:
            return next(left, None)

    def job(machine: Machine) -> Outcome:
        environ = step.before(machine)
        machine.services.faults.append(strike)
        outcome = step.act(machine, **environ)
        if step.act is not sign_out:
            return outcome._replace(stdout="a token" if opens(machine, outcome.stdout.strip()) else "")
        pats = [token for token in machine.services.tokens.values() if token.kind == "pat"]
        return outcome._replace(stdout="revoked" if all(each.revoked for each in pats) else "")

    return job


PASSING = {"503, 500": ["503", "500"], "a drop, 502": ["a drop", "502"], "429": ["429"]}


@pytest.mark.parametrize("names", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_is_passed_over(tmp_path: Path, names: Sequence[str]) -> None:
    jobs = {name: suffer(step, [FAULTS[each] for each in names]) for name, step in STEPS.items()}
    for name, outcome in side_by_side(tmp_path, jobs).items():
        signed_out = ["Signed out of organization 'contoso'. Nothing else of it is left here."]
        said, printed = (signed_out, "revoked") if name == "revocation" else ([], "a token")
        assert (name, outcome.status, outcome.said, outcome.stdout) == (name, 0, said, printed)
        assert outcome.seconds < 30, name


def require_one_sentence(outcomes: Mapping[str, Outcome]) -> None:
    """Where a step never works, that is said within a minute; what is kept serves without."""
    for name, outcome in outcomes.items():
        step = name.partition(": ")[0]
        if step == "stored":
            assert (name, outcome.status, outcome.said, outcome.stdout) == (name, 0, [], "a token")
        elif step == "revocation":
            assert (name, outcome.status, outcome.stdout) == (name, 0, "")
            assert "could not be revoked" in outcome.said[0]
        else:
            assert (name, outcome.sentence[: len(STEPS[step].says)]) == (name, STEPS[step].says)
            assert "Traceback" not in outcome.sentence
        assert outcome.seconds < 60, name


@pytest.mark.parametrize("name", ["503", "429 for a day", "a drop"])
def test_a_fault_that_stays_is_one_sentence(tmp_path: Path, name: str) -> None:
    jobs = {each: suffer(step, itertools.repeat(FAULTS[name])) for each, step in STEPS.items()}
    require_one_sentence(side_by_side(tmp_path, jobs, 13 if "429" in name else 6))


HANGS = ["discovery", "session", "code", "refresh", "device code", "device polls", "stored", "identity"]
HANGS += ["secret", "revocation"]
SLOW = [
    *((step, "no answer") for step in HANGS),
    *((step, "a drip of headers") for step in ("discovery", "session", "identity")),
    *((step, "a drip of a body") for step in ("session", "secret", "identity", "issuer")),
]


def refresh_token_alone(machine: Machine) -> dict[str, str]:
    environ = {**with_browser(machine), **plug_in(machine, "small_keyring", SMALL_KEYRING)}
    machine.get(**environ)
    path = machine.home / "small-keyring.json"
    kept = {key: text for key, text in json.loads(path.read_text()).items() if "/refresh/" in key}
    path.write_text(json.dumps(kept))
    return environ


def twice_everywhere(before: Callable[[Machine], dict[str, str]]) -> Callable[[Machine], Outcome]:
    """A job in which every address hangs twice, and then answers: what each step bears is too much in all."""
    seen: collections.Counter[str] = collections.Counter()

    def strike(request: Recorded) -> Reply | None:
        seen[request.host + request.path] += 1
        return FAULTS["no answer"] if seen[request.host + request.path] <= 2 else None

    def job(machine: Machine) -> Outcome:
        environ = before(machine)
        machine.services.faults.append(strike)
        outcome = look_up(machine, **environ)
        return outcome._replace(stdout="a token" if opens(machine, outcome.stdout.strip()) else "")

    return job


def behind_a_proxy_that_hangs(machine: Machine) -> Outcome:
    with raw_server(b"", holds=True) as port:
        return look_up(machine, **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), f"http://127.0.0.1:{port}"))


def test_what_hangs_or_drips_is_given_up_within_a_minute(tmp_path: Path) -> None:
    """Once, it is passed over; for ever, it is one sentence.  All at once, as all of them wait."""
    never = FAULTS["no answer"]
    once = {f"{name}: once": suffer(STEPS[name], [never]) for name in ("session", "refresh", "secret")}
    ever = {f"{step}: {name}": suffer(STEPS[step], itertools.repeat(FAULTS[name])) for step, name in SLOW}
    jobs = {**ever, **once, "proxy": behind_a_proxy_that_hangs}
    jobs["two steps"], jobs["three steps"] = twice_everywhere(with_az), twice_everywhere(refresh_token_alone)
    outcomes = side_by_side(tmp_path, jobs, len(jobs))
    both = outcomes.pop("two steps")  # 41 of the 50 seconds there are, on a machine at leisure
    assert (both.status, both.stdout) == (0, "a token") or both.sentence.startswith(TOKEN_HOST)
    late = outcomes.pop("three steps").sentence  # the second step or the third, as time passes
    assert re.match(rf"(login\.microsoftonline\.com|{TOKEN_HOST}) (did not answer|was not asked)", late)
    said = outcomes.pop("proxy").sentence
    assert said.startswith("pkgs.dev.azure.com did not answer within 10 seconds: check the network and HTTPS")
    for name in once:
        found = outcomes.pop(name)
        assert (name, found.status, found.said, found.stdout) == (name, 0, [], "a token")
        assert 10 < found.seconds < 40
    require_one_sentence(outcomes)


# Answers of any size.

PEAK = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""
MEGABYTE = 1 << 20


def endless(megabytes: int, status: int = 200, chunked: bool = False) -> Reply:
    return Reply(status, [JSON_TYPE], b"{" * MEGABYTE, repeat=megabytes, chunked=chunked)


def bomb() -> Reply:
    """250 MB that fit into what is read of an answer."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join([packer.compress(b" " * MEGABYTE) for _ in range(250)]) + packer.flush()
    assert len(packed) < module.MAX_BODY
    return Reply(200, [JSON_TYPE, ("Content-Encoding", "gzip")], packed)


@pytest.mark.parametrize("step", ["discovery", "session"])
@pytest.mark.parametrize("form", ["chunks", "length", "gzip"])
def test_an_answer_of_250_mb_is_not_read(machine: Machine, step: str, form: str) -> None:
    machine.az()
    reply = bomb() if form == "gzip" else endless(250, chunked=form == "chunks")
    if step == "discovery":  # which reads no body at all
        contoso = machine.services.organizations["contoso"]
        reply = reply._replace(status=401, headers=[*reply.headers, *challenge(contoso).headers])
    place = STEPS[step]
    machine.services.faults.append(fault(reply, 9, place.host, place.path))
    done = machine.run(sys.executable, "-c", PEAK, *KEYRING_GET, status=None)
    *said, peak = notices(done.stderr)
    assert int(peak) < 150 * 1024  # KB
    assert machine.services.sent < 3 * 20 * MEGABYTE  # three tries, and what sockets hold
    if step == "discovery":
        assert (said, opens(machine, done.stdout.strip())) == ([], True)
    else:
        (sentence,) = said
        trouble = "answered without a token" if form == "gzip" else "answered with far more than a token"
        assert sentence.startswith(f"vssps.dev.azure.com {trouble}")


def test_an_index_of_60_mb_stays_where_it_is(machine: Machine) -> None:
    machine.services.faults.append(fault(endless(60), path_contains="/simple/"))
    assert look_up(machine)[:3] == (1, "", [])  # a public feed
    assert machine.services.sent < 20 * MEGABYTE


# Answers that are not what they should be.


def session_of_ada(machine: Machine) -> bytes:
    ada = machine.services.accounts["ada@contoso.example"]
    token = machine.services.mint_devops(ada, "contoso", "session")
    return json.dumps({"token": token}).encode()


SIGN_IN_PAGE = b"<html><title>Sign in to your account</title></html>"
REFUSED_ADA = "azure_cli: organization 'contoso' does not accept account ada@contoso.example"
WITHOUT = "vssps.dev.azure.com answered without a token"
ODD: dict[str, tuple[int, Sequence[tuple[str, str]], Callable[[Machine], bytes], str]] = {
    "BOM": (200, [JSON_TYPE], lambda machine: b"\xef\xbb\xbf" + session_of_ada(machine), ""),
    "of another type": (200, [("Content-Type", "text/plain")], session_of_ada, ""),
    "of no type": (200, [], session_of_ada, ""),
    "203": (203, [JSON_TYPE], session_of_ada, REFUSED_ADA),
    "302": (302, [JSON_TYPE, ("Location", "https://evil.example/")], session_of_ada, REFUSED_ADA),
    "sign-in page": (200, [("Content-Type", "text/html")], lambda machine: SIGN_IN_PAGE, REFUSED_ADA),
    "JSON of that type": (200, [("Content-Type", "text/html")], session_of_ada, ""),
    "nothing": (204, [], lambda machine: b"", WITHOUT),
    "cut": (200, [JSON_TYPE], lambda machine: session_of_ada(machine)[:-2], WITHOUT),
    "UTF-16": (200, [JSON_TYPE], lambda machine: session_of_ada(machine).decode().encode("utf-16"), WITHOUT),
    "a list": (200, [JSON_TYPE], lambda machine: b"[" + session_of_ada(machine) + b"]", WITHOUT),
    "an object for a token": (200, [JSON_TYPE], lambda machine: b'{"token": {"token": "x"}}', WITHOUT),
    "two lines": (200, [JSON_TYPE], lambda machine: b'{"token": "good\\nHost: evil.example"}', WITHOUT),
}


@pytest.mark.parametrize(("status", "headers", "body", "said"), ODD.values(), ids=ODD)
def test_an_odd_answer_to_the_exchange(
    machine: Machine,
    status: int,
    headers: Sequence[tuple[str, str]],
    body: Callable[[Machine], bytes],
    said: str,
) -> None:
    machine.az()
    reply = Reply(status, headers, body(machine))
    machine.services.faults.append(fault(reply, path_contains="/SessionTokens"))
    outcome = look_up(machine)
    if said:
        assert outcome.sentence[: len(said)] == said
    else:
        assert opens(machine, outcome.stdout.strip())
    assert not machine.services.seen(host="evil.example")


# Proxies.


@contextlib.contextmanager
def raw_server(answer: bytes, holds: bool = False) -> Iterator[int]:
    """A port that answers everybody with some bytes, and then hangs up or holds on."""
    server, held = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                held.append(connection)
                with contextlib.suppress(OSError):
                    connection.recv(4096)
                    connection.sendall(answer)
                    if not holds:
                        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        for each in (server, *held):
            each.close()


NOT_LET_THROUGH = "The proxy did not let us through to pkgs.dev.azure.com: check HTTPS_PROXY, "
NOT_REACHED = r"pkgs.dev.azure.com could not be reached \(\w+\): check the network and HTTPS_PROXY, "
PROXIES = {
    "closed": ("http", b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", NOT_LET_THROUGH),
    "another password": ("http", b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", NOT_LET_THROUGH),
    "no gateway": ("http", b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", NOT_LET_THROUGH),
    "drops": ("http", b"", NOT_REACHED),
    "garbage": ("http", b"\x00\xff\x1b[2J garbage\r\n\r\n", NOT_REACHED),
    "not TLS": ("https", b"HTTP/1.1 400 Bad Request\r\n\r\n", NOT_LET_THROUGH),
    "drops after CONNECT": ("http", b"HTTP/1.1 200 OK\r\n\r\n", NOT_REACHED),
    "garbage after CONNECT": ("http", b"HTTP/1.1 200 OK\r\n\r\ngarbage", NOT_REACHED),
    "of another kind": ("socks5", b"", "The proxy .* is of a kind .* https_proxy"),
}


@pytest.mark.parametrize(("scheme", "answer", "said"), PROXIES.values(), ids=PROXIES)
def test_a_proxy_that_does_not_work(machine: Machine, scheme: str, answer: bytes, said: str) -> None:
    with raw_server(answer) as port:
        url = f"{scheme}://me:password-of-the-proxy@localhost:{port}"  # urllib3 1.26 takes no TLS by number
        machine.services.secrets.add("password of the proxy", "password-of-the-proxy")
        sentence = look_up(machine, HTTPS_PROXY=url, https_proxy=url).sentence
    if scheme == "https" and not at_least("urllib3", 2):  # which does not say whose TLS it was
        said = NOT_REACHED
    assert re.match(said, sentence), sentence
    tries = Path(machine.environ["KEYRINGS_ARTIFACTS_LOGFILE"]).read_text().count(f"GET {FEED}: ")
    once = (scheme, answer[8:11]) == (
        "http",
        b" 40",
    ) or scheme == "socks5"  # a wrong password, given again, may lock an account
    assert tries == (1 if once else 3)


def test_a_proxy_that_speaks_tls_unasked(machine: Machine) -> None:
    url = f"http://127.0.0.1:{machine.services.tls_port}"
    assert re.match(NOT_REACHED, look_up(machine, HTTPS_PROXY=url, https_proxy=url).sentence)


def test_no_proxy_leads_past_the_proxy(machine: Machine) -> None:
    """To the address that the name has, which is ours here."""
    names = machine.home.parent / "names"
    names.mkdir()
    port = machine.services.tls_port
    (names / "sitecustomize.py").write_text(
        "import socket\n"
        f"ours = [(socket.AF_INET, socket.SOCK_STREAM, 6, '', ('127.0.0.1', {port}))]\n"
        "real = socket.getaddrinfo\n"
        "socket.getaddrinfo = lambda host, port, *more: ours if port == 443 else real(host, port, *more)\n"
    )
    machine.az()
    dead = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    outcome = look_up(machine, **dead, NO_PROXY="dev.azure.com", PYTHONPATH=str(names))
    assert opens(machine, outcome.stdout.strip())
    assert not machine.services.tunnels


# --- trust, end to end ------------------------------------------------------------------------

EVIL = "https://evil.example/"
HONEST = {"pkgs.dev.azure.com", "vssps.dev.azure.com", "login.microsoftonline.com", "127.0.0.1", "localhost"}
HONEST |= {"pipelines.actions.githubusercontent.com"}


def attacker(services: Services, request: Recorded) -> Reply:
    """Whoever serves a host that is nobody's: takes all, and says what one would like to hear."""
    token = {"access_token": "a" * 80, "token": "a" * 80, "refresh_token": "a" * 80, "expires_in": 3600}
    return json_reply({**token, "value": "a" * 80, "patToken": token, "patTokenError": "none"})


class Trick(NamedTuple):
    """What somebody does who wants our secrets; and what is said, "" for an answer, `None` for either."""

    play: Callable[[Machine, contextlib.ExitStack], dict[str, str]]
    says: str | None = None  # as a regular expression
    url: str = FEED
    act: Callable[..., Outcome] = look_up


def look_up_in_this_process(machine: Machine, **changes: str) -> Outcome:
    """With `az`, real connections, and nothing else; a program takes ten times as long to start."""
    token = machine.services.mint_entra(machine.services.accounts["ada@contoso.example"])
    done = module.Completed(0, json.dumps({"accessToken": token}), "")
    world = make_world(send=module.send, which=only_az, run=lambda *_: done, now=time.time)
    with mock.patch.dict(os.environ, {**machine.environ, **changes}):
        try:
            answer = module.credential_for(parsed(), FEED, None, world)
        except module.ArtifactsError as error:
            return Outcome(1, "", [str(error)], 0)
    return Outcome(0, answer.password if answer else "", [], 0)


def discovered(
    *headers: tuple[str, str], before: Callable[[Machine], dict[str, str]] = with_az
) -> Callable[[Machine, contextlib.ExitStack], dict[str, str]]:
    """The feed answers an anonymous request with these headers."""

    def play(machine: Machine, _: contextlib.ExitStack) -> dict[str, str]:
        reply = Reply(401, [*headers, ("X-VSS-E2EID", str(uuid.uuid4()))])

        def tell(request: Recorded) -> Reply | None:
            return reply if request.host == "pkgs.dev.azure.com" and not presented(request)[1] else None

        machine.services.faults.append(tell)
        return before(machine)

    return play


def answered(step: str, *replies: Reply) -> Callable[[Machine, contextlib.ExitStack], dict[str, str]]:
    """A step of the way to a password is answered like that, the last one for ever."""

    def play(machine: Machine, _: contextlib.ExitStack) -> dict[str, str]:
        environ = STEPS[step].before(machine)
        for reply in replies:
            times = 99 if reply is replies[-1] else 1
            machine.services.faults.append(fault(reply, times, STEPS[step].host, STEPS[step].path))
        return environ

    return play


def once(step: str, reply: Reply) -> Callable[[Machine, contextlib.ExitStack], dict[str, str]]:
    def play(machine: Machine, _: contextlib.ExitStack) -> dict[str, str]:
        environ = STEPS[step].before(machine)
        machine.services.faults.append(fault(reply, 1, STEPS[step].host, STEPS[step].path))
        return environ

    return play


def refresh_answer(**changes: object) -> Callable[[Machine, contextlib.ExitStack], dict[str, str]]:
    """Entra's answer to a refresh token, changed; its access token is a good one."""

    def play(machine: Machine, _: contextlib.ExitStack) -> dict[str, str]:
        environ = signed_in_before(machine)
        token = machine.services.mint_entra(machine.services.accounts["ada@contoso.example"])
        reply = json_reply({"access_token": token, "expires_in": 3600, **changes})
        machine.services.faults.append(fault(reply, 1, ENTRA_HOST, "/token"))
        return environ

    return play


def tampered(entry: str, **changes: object) -> Callable[[Machine, contextlib.ExitStack], dict[str, str]]:
    """An hour after a sign-in in a browser, somebody has changed what the keyring has of it."""

    def play(machine: Machine, _: contextlib.ExitStack) -> dict[str, str]:
        environ = {**with_browser(machine), **plug_in(machine, "small_keyring", SMALL_KEYRING)}
        machine.get(**environ)
        path = machine.home / "small-keyring.json"
        data = json.loads(path.read_text())
        (key,) = [key for key in data if f"/{entry}/" in key]
        data[key] = json.dumps({**json.loads(data[key]), **changes})
        path.write_text(json.dumps(data))
        return {**environ, **later(machine, 70)}

    return play


def strange_name(machine: Machine, _: contextlib.ExitStack) -> dict[str, str]:
    name = "\x1b[2J\x1b]0;ada\x07\nkeyrings.artifacts: all is well"
    machine.services.add_account(name, CONTOSO_TENANT)
    machine.services.organizations["contoso"].never_signed_in.add(name)
    machine.az(name)
    return {}


def strange_realm(path: str) -> Callable[[Machine, contextlib.ExitStack], dict[str, str]]:
    def play(machine: Machine, _: contextlib.ExitStack) -> dict[str, str]:
        machine.services.identities.system = robot(machine)
        machine.services.identities.realm = path
        return on_arc(machine)

    return play


def intercepted(machine: Machine, stack: contextlib.ExitStack) -> dict[str, str]:
    """A proxy that ends TLS itself, with certificates of its own."""
    folder = machine.home.parent / "interceptor"
    folder.mkdir()
    rogue = stack.enter_context(Services(folder))
    stack.callback(lambda: require(not rogue.requests, "the interceptor was told something"))
    return {**with_az(machine), **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), rogue.proxy_url)}


def nothing_special(machine: Machine, _: contextlib.ExitStack) -> dict[str, str]:
    return with_az(machine)


def device(**changes: object) -> Reply:
    page = "https://microsoft.com/devicelogin"
    usual = {"device_code": "d" * 40, "user_code": "ABCD", "verification_uri": page}
    return json_reply({**usual, "interval": 1, "expires_in": 4, **changes})


def token_service_at(address: str) -> tuple[str, str]:
    return ("X-VSS-AuthorizationEndpoint", address)


CONTOSO_SERVICE, SIGN_IN_AT = "https://vssps.dev.azure.com/contoso/", "Bearer authorization_uri="
NO_TOKEN_SERVICE = r"pkgs\.dev\.azure\.com named a token service that is not organization 'contoso' at Azure"
NO_SIGN_IN = r"pkgs\.dev\.azure\.com named a sign-in address that is not Microsoft's"
NO_SINGLE_TENANT = r"pkgs\.dev\.azure\.com named no single tenant for organization 'contoso'"
NO_KEY = "managed_identity: the key file of Azure Arc cannot be read"
NO_PAGE = r"device_code: the page to sign in on is not Microsoft's"
HIDDEN_SERVICES = [
    "https://vssps.dev.\u0430zure.com/contoso".encode().decode("latin-1"),
    "https://vssps.dev.xn--zure-7cd.com/contoso",
    "https://vssps%2edev.azure.com/contoso",
    "https://vssps.dev.azure.com%2eevil.example/contoso",
    "https://vssps.dev.azure.com:443@evil.example/contoso",
    "https://vssps.dev.azure.com/contoso/../fabrikam",
    "https://vssps.dev.azure.com/contoso%2f..%2ffabrikam",
    "https://vssps.dev.azure.com//evil.example",
    "https://evil.example/" + "contoso" * 1500,
    "javascript:alert(1)//vssps.dev.azure.com",
]
REDIRECTS = [(status, "session") for status in (301, 302, 303, 307, 308)]
MORE_STEPS = ("discovery", "code", "secret", "identity", "stored")
REDIRECTS += [(status, step) for step in MORE_STEPS for status in (302, 307)]
PAUSES = ("3600", "-1", "nan", "\x1b[2J")
PAGES = [
    "https://evil.example/device",
    "javascript:alert(1)",
    "https://microsoft.com.evil.example/",
    "https://microsoft.com\x1b[2J/devicelogin",
    "https://me@microsoft.com/devicelogin",
]
IMITATIONS = [
    "https://pkgs.dev.azure.com@evil.example/contoso/_packaging/pyfeed/pypi/simple/",
    "https://pkgs.dev.azure.com.evil.example/contoso/_packaging/pyfeed/pypi/simple/",
    "https://evil.example\\@pkgs.dev.azure.com/contoso/_packaging/pyfeed/pypi/simple/",
    "http://pkgs.dev.azure.com/contoso/_packaging/pyfeed/pypi/simple/",
    "https://pkgs.dev.azure.com:8443/contoso/_packaging/pyfeed/pypi/simple/",
]
STRANGE_ID = jwt({"upn": "\x1b[2J\nada"})
HOSTILE = "x" * 40 + "\r\nHost: evil.example"
REFRESHED_NOT = "browser: Entra did not accept the sign-in"  # which comes after
TRICKS: dict[str, Trick] = {
    **{
        f"token service {address[:60]!a}": Trick(
            discovered(token_service_at(address)), NO_TOKEN_SERVICE, act=look_up_in_this_process
        )
        for address in (*STRANGE_TOKEN_SERVICES, *HIDDEN_SERVICES)
    },
    "token service at another": Trick(discovered(token_service_at(EVIL + "contoso")), NO_TOKEN_SERVICE),
    "two token services": Trick(
        discovered(token_service_at(CONTOSO_SERVICE), token_service_at(EVIL + "contoso/")), NO_TOKEN_SERVICE
    ),
    **{
        f"sign-in at {address[:60]!a}": Trick(
            discovered(("WWW-Authenticate", f"{SIGN_IN_AT}{address}".format(TENANT)), before=with_browser),
            NO_SIGN_IN,
        )
        for address in STRANGE_SIGN_INS
    },
    "a tenant that is a host": Trick(discovered(("X-VSS-ResourceTenant", "evil.example")), NO_SINGLE_TENANT),
    "two tenants": Trick(
        discovered(("X-VSS-ResourceTenant", CONTOSO_TENANT), ("X-VSS-ResourceTenant", FABRIKAM_TENANT)),
        NO_SINGLE_TENANT,
    ),
    "another's tenant": Trick(
        discovered(("X-VSS-ResourceTenant", FABRIKAM_TENANT)), "azure_cli: Entra wants a new sign-in"
    ),
    **{
        f"redirect {status} at {step}": Trick(answered(step, Reply(status, [("Location", EVIL), JSON_TYPE])))
        for status, step in REDIRECTS
    },
    **{
        f"Retry-After {told!a}": Trick(once("session", Reply(503, [("Retry-After", told)])), "")
        for told in PAUSES
    },
    **{
        f"device page {page!a}": Trick(
            answered("device code", device(verification_uri=page)), NO_PAGE, act=look_up_at_a_terminal
        )
        for page in PAGES
    },
    "device code with escapes": Trick(
        answered("device code", device(user_code="\x1b[2JAB\x07CD\r\nopen evil")),
        "device_code: the code expired",
        act=look_up_at_a_terminal,
    ),
    "refresh answers a list": Trick(answered("refresh", json_reply(["x"])), REFRESHED_NOT),
    "refresh answers a number": Trick(refresh_answer(access_token=5), ""),
    "refresh answers two lines": Trick(refresh_answer(access_token=HOSTILE), ""),
    "refresh token of two lines": Trick(refresh_answer(refresh_token=HOSTILE), ""),
    "times that are none": Trick(refresh_answer(expires_in="1e999", expires_on={}), ""),
    "id token with escapes": Trick(refresh_answer(id_token=STRANGE_ID, refresh_token="r" * 99), ""),
    "a name with escapes": Trick(strange_name, r"azure_cli: account \[2J \]0;ada keyrings\.artifacts: "),
    "key of Arc in /etc/passwd": Trick(strange_realm("/etc/passwd"), NO_KEY),
    "key of Arc by dots": Trick(strange_realm(f"{ARC_FOLDER}/../../../../etc/passwd"), NO_KEY),
    "key of Arc on a share": Trick(strange_realm("\\\\evil.example\\share\\x.key"), NO_KEY),
    "TLS interception": Trick(intercepted, r"The certificate of pkgs\.dev\.azure\.com is not trusted"),
    "stored token of two lines": Trick(tampered("session", token=HOSTILE), ""),
    "stored tenant of another": Trick(tampered("session", tenant=FABRIKAM_TENANT), ""),
    "stored tenant that is a host": Trick(tampered("session", tenant="@evil.example/"), ""),
    "stored kind that is none": Trick(tampered("session", kind="admin"), ""),
    "stored times that are none": Trick(tampered("session", checked="soon", expires=[]), ""),
    "stored refresh token of two lines": Trick(tampered("refresh", refresh_token=HOSTILE), ""),
    "stored id of a PAT that is a path": Trick(tampered("session", pat_id="x#/../../evil?"), act=sign_out),
    **{f"look-alike {url[:40]!a}": Trick(nothing_special, None, url) for url in IMITATIONS},
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
def test_a_trick_gets_no_secret(machine: Machine, trick: Trick) -> None:
    """Nobody is connected to but whom we trust, who learns nothing of what is another's."""
    services = machine.services
    services.handlers.append((".*", attacker))
    with contextlib.ExitStack() as stack:
        environ = trick.play(machine, stack)
        if trick.url == FEED:
            outcome = trick.act(machine, **environ)
        else:
            done = machine.keyring("get", trick.url, "me", status=1, **environ)
            outcome = Outcome(1, done.stdout, notices(done.stderr), 0)
            assert (done.stdout, asked(machine)) == ("", [])
    assert {request.host for request in services.seen()} <= HONEST
    assert {tunnel.target.partition(":")[0] for tunnel in services.tunnels} <= HONEST
    assert not services.seen(host=TOKEN_HOST, path_contains="fabrikam")
    assert all(line.isprintable() for line in outcome.said)
    if trick.says == "":
        assert (outcome.said, opens(machine, outcome.stdout.strip())) == ([], True)
    elif trick.says is not None:
        assert re.match(trick.says, outcome.sentence), outcome.sentence
    else:
        assert outcome.status == 0 or len(outcome.said) <= 1


# --- poor machines, end to end ----------------------------------------------------------------

NO_HOME = """
import os, pwd, sys
known = pwd.struct_passwd(["me", "x", os.getuid(), os.getgid(), "", os.environ["HOME"], ""])
pwd.getpwuid = lambda number: known  # of this machine, and not of the one that runs the tests
for name in ("HOME", "USERPROFILE", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
from keyring import cli
sys.exit(cli.main(sys.argv[2:]))
"""
NO_DISK = """
import os, resource, sys
for name in [each for each in os.environ if each.startswith("COVERAGE_")]:
    del os.environ[name]  # it would write, too
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
os.execv(sys.argv[1], sys.argv[1:])
"""
PLACES = ("HOME", "USERPROFILE", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
LOCALES = ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONIOENCODING", "PYTHONUTF8")


class Want(NamedTuple):
    """What a machine lacks; and what is said there beside the answer, as a regular expression."""

    environ: Mapping[str, str | None] = {}  # None: not set
    shell: str = 'exec "$@"'
    python: str = ""
    says: str = ""
    fails: bool = False


NOT_KEPT = r"The folder \S+ could not be used \(\w+\): this sign-in may not be remembered\. "
WANTS = {
    "no home": Want(python=NO_HOME),
    "a home that is no folder": Want(dict.fromkeys(PLACES, "/dev/null"), says=NOT_KEPT),
    "a home that cannot be written": Want(dict.fromkeys(PLACES, "/proc/nowhere"), says=NOT_KEPT),
    "a home that is gone": Want({**dict.fromkeys(PLACES), "HOME": "{home}/gone/\udcff"}),
    "a disk that is full": Want(python=NO_DISK, says=NOT_KEPT),
    "no locale": Want(dict.fromkeys(LOCALES)),
    "the locale C": Want({**dict.fromkeys(LOCALES), "LC_ALL": "C", "PYTHONUTF8": "0"}),
    "ASCII alone": Want({**dict.fromkeys(LOCALES), "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}),
    "no folder for temporary files": Want({"TMPDIR": "/dev/null"}),
    "no standard error": Want(shell='exec "$@" 2>&-'),
    "no standard input": Want(shell='exec "$@" <&-'),
    "neither": Want(shell='exec "$@" <&- 2>&-'),
    "no folder to be in": Want(shell='mkdir gone; cd gone; rmdir ../gone; exec "$@"'),
    "a mask that hides nothing": Want(shell='umask 000; exec "$@"'),
    "sixteen files": Want(shell='ulimit -n 16; exec "$@"'),
    "no PATH": Want({"PATH": None}, says="Nobody is signed in to organization 'contoso'", fails=True),
    "an empty PATH": Want({"PATH": ""}, says="Nobody is signed in to organization 'contoso'", fails=True),
}


@pytest.mark.parametrize("want", WANTS.values(), ids=WANTS)
def test_a_poor_machine(machine: Machine, want: Want) -> None:
    """It gets an answer, or one sentence, and no traceback."""
    machine.az()
    for name, value in want.environ.items():
        machine.environ.pop(name, None)
        machine.environ.update({} if value is None else {name: value.format(home=machine.home)})
    python = [sys.executable, "-c", want.python] if want.python else []
    command = ["/bin/sh", "-c", want.shell, "sh", *python, *KEYRING_GET]
    done = machine.run(*command, status=int(want.fails))
    said = notices(done.stderr)
    assert len(said) == bool(want.says)
    assert re.match(want.says, "".join(said)), said
    assert want.fails or opens(machine, done.stdout.strip())
    for path in machine.files():
        assert (path.stat().st_mode & 0o777, path.name[0] == ".") == (0o600, False)


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_a_failure_that_nobody_hears(machine: Machine, closed: str) -> None:
    done = machine.run("/bin/sh", "-c", f'exec "$@" {closed}', "sh", *KEYRING_GET, status=1)
    assert (done.stdout, len(notices(done.stderr))) == ("", int(closed == "<&-"))


def test_a_notice_that_ascii_cannot_say(machine: Machine) -> None:
    name = "\u0434\u043e\u043c"
    machine.services.organization(name, CONTOSO_TENANT).add_feed("pyfeed")
    url = FEED.replace("contoso", quote(name))
    environ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = machine.keyring("get", url, "me", status=1, **environ)
    (said,) = notices(done.stderr)
    assert r"organization '\u0434\u043e\u043c'" in said


def test_a_disk_that_fills_up(machine: Machine) -> None:
    """A real one, of four pages: the entry that was there stays whole, and no draft is left."""
    disk = machine.home / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    try:
        files = module.Files(disk / "folder")
        files.set("session/contoso", "old")
        with contextlib.suppress(OSError), (disk / "filler").open("wb") as filler:
            filler.write(b"x" * 65536)
        with pytest.raises(OSError, match="No space left"):
            files.set("session/contoso", "new" * 5000)
        assert files.get("session/contoso") == "old"
        assert [path.name for path in files.folder.iterdir()] == ["session-contoso.json"]
        machine.az()
        done = machine.keyring("get", FEED, "me", XDG_DATA_HOME=str(disk))
        assert opens(machine, done.stdout.strip())
        assert re.match(NOT_KEPT, notices(done.stderr)[0])
        assert len(notices(done.stderr)) == 1
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# --- stores that fail, end to end -------------------------------------------------------------

# A keyring that is there, and whose methods do as they are told.
STUBBORN = """
import os, time
from keyring.backend import KeyringBackend
from keyring.errors import InitError, KeyringError, KeyringLocked, PasswordDeleteError, PasswordSetError

class Denied(Exception):
    def __init__(self, status=-128, message="User canceled the operation"): super().__init__(status, message)

def fail():
    {failure}

class Stubborn(KeyringBackend):
    priority = 5
    texts = {{}}
    def get_password(self, service, username):
        if "get" in {methods!r}: fail()
        return self.texts.get((service, username))
    def set_password(self, service, username, password):
        if "set" in {methods!r}: fail()
        self.texts[service, username] = password
    def delete_password(self, service, username):
        if "delete" in {methods!r}: fail()
        del self.texts[service, username]
"""
FAILURES = {
    "locked": "raise KeyringLocked('the collection is locked')",
    "not set": "raise PasswordSetError(\"Can't store password on keychain: (-25293, 'Unknown Error')\")",
    "not begun": "raise InitError('no session bus')",
    "KeyringError": "raise KeyringError('s3cret')",
    "RuntimeError": "raise RuntimeError('s3cret')",
    "Windows' limit": "raise OSError(1783, 'The stub received bad data')",
    "denied": "raise Denied()",
    "UnicodeError": "b'\\xff'.decode()",
    "recursion": "fail()",
    "panic": "raise type('PanicException', (BaseException,), {})",
    "exit": "raise SystemExit(7)",
}
METHODS = (("get", "set", "delete"), ("set",), ("delete",))


def stubborn(machine: Machine, failure: str, methods: Sequence[str]) -> dict[str, str]:
    return plug_in(machine, "stubborn", STUBBORN.format(failure=failure, methods=methods))


@pytest.mark.parametrize("methods", METHODS, ids="+".join)
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_keyring_that_raises_costs_one_notice(
    machine: Machine, failure: str, methods: Sequence[str]
) -> None:
    """At the first call; where there is no need for what fails, none."""
    outcome = look_up(machine, **with_az(machine), **stubborn(machine, failure, methods))
    assert opens(machine, outcome.stdout.strip())
    assert len(outcome.said) == ("delete" not in methods or "get" in methods)
    for said in outcome.said:
        assert re.match(
            r"stubborn\.Stubborn could not be used \(\w+\): this sign-in may not be remembered\. Unlock or "
            r"repair it, or go on without\.$",
            said,
        )


def test_a_sign_in_of_a_person_survives_a_keyring_that_cannot_delete(machine: Machine) -> None:
    """Before a PAT is minted, it is tried whether the keyring keeps one, and gives it up."""
    broken = stubborn(machine, FAILURES["locked"], ["delete"])
    outcome = look_up(machine, **with_browser(machine), **broken)
    assert opens(machine, outcome.stdout.strip())
    assert len(outcome.said) == 1
    assert len(opened(machine)) == 1


@pytest.mark.parametrize("failure", ["locked", "RuntimeError", "Windows' limit"])
def test_a_keyring_that_raises_fails_set_and_del_as_usual(machine: Machine, failure: str) -> None:
    chain = stubborn(machine, FAILURES[failure], METHODS[0])
    done = set_password(machine, FEED, "password-of-a-person", **chain)
    assert done.returncode == 1
    assert "keyring.errors.PasswordSetError: " in done.stderr.splitlines()[-1]
    done = machine.keyring("del", FEED, "me", status=1, **chain)
    assert "keyring.errors.PasswordDeleteError: " in done.stderr.splitlines()[-1]


def test_a_keyring_that_hangs_is_given_up(tmp_path: Path) -> None:
    """Each method in turn, for a token and for a sign-in that asks whether a PAT can be kept."""

    def job(
        before: Callable[[Machine], dict[str, str]], methods: Sequence[str]
    ) -> Callable[[Machine], Outcome]:
        def work(machine: Machine) -> Outcome:
            outcome = look_up(machine, **before(machine), **stubborn(machine, "time.sleep(300)", methods))
            return outcome._replace(stdout="a token" if opens(machine, outcome.stdout.strip()) else "")

        return work

    jobs = {
        "az, everything": job(with_az, METHODS[0]),
        "az, set": job(with_az, ["set"]),
        "browser, everything": job(with_browser, METHODS[0]),
        "browser, delete": job(with_browser, ["delete"]),
    }
    for name, outcome in side_by_side(tmp_path, jobs).items():
        assert (name, outcome.status, outcome.stdout) == (name, 0, "a token")
        assert outcome.seconds < 60
        (said,) = outcome.said
        assert said.startswith("stubborn.Stubborn could not be used (TimeoutError): ")


# Files that are not what they should be.


def of_another(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may give files away")
    os.chown(path, 12345, 12345)


def linked(path: Path) -> None:
    path.replace(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/no/such/place")


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


PLANTED = json.dumps({"token": "planted-by-somebody", "kind": "session", "checked": 9e9, "asked": "session"})
SPOILED: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_text(path.read_text()[:-9]),
    "zeros": lambda path: path.write_bytes(b"\0" * 4096),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "another's entry": lambda path: path.write_text("2:0123456789ab:" + path.read_text()),
    "too long": lambda path: path.write_text(" " * module.MAX_BODY + path.read_text()),
    "of another": of_another,
    "open to all": lambda path: path.chmod(0o644),
    "open to a group": lambda path: path.chmod(0o620),
    "a link": linked,
    "a link to nothing": dangling,
    "a pipe": replaced_by(lambda path: os.mkfifo(path, 0o600)),
    "a folder with something in it": replaced_by(lambda path: (path / "x").mkdir(parents=True)),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_an_entry_in_a_file_that_is_spoiled(machine: Machine, spoil: Callable[[Path], object]) -> None:
    """It is not used, not followed, not waited for, and replaced; but for a folder, which stays."""
    machine.az()
    first = machine.get()
    (path,) = machine.files()
    spoil(path)
    asked(machine)
    second = look_up(machine)
    assert opens(machine, second.stdout.strip())
    assert second.stdout.strip() != first
    assert second.seconds < 20
    assert asked(machine) == COLD
    if path.is_dir():
        assert len(second.said) == 1
        return
    assert second.said == []
    assert machine.get() == second.stdout.strip()
    assert asked(machine) == []
    assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o600, os.geteuid())
    assert not path.is_symlink()
    assert not list(path.parent.glob(".*"))


def test_what_somebody_planted_for_all_to_write_is_not_used(machine: Machine) -> None:
    machine.az()
    machine.get()
    (path,) = machine.files()
    path.write_text(PLANTED)
    path.chmod(0o666)
    assert opens(machine, machine.get())


# Many writers of entries of several parts: each has a text of its own, in which nothing is another's.
WRITER = """
import sys, time
import keyrings_artifacts as module
from {backend} import Place
place, me = Place(), sys.argv[1]
wrong = []
for turn in range(8):
    module.write_entry(place, "name", '"' + f"{{me}}{{turn}}." * 900)
    for _ in range(3):
        text = module.read_entry(place, "name")
        if text is not None and text != '"' + text[1:text.index(".") + 1] * 900:
            wrong.append(text[:40])
print(wrong)
"""
FILES = """
import os, pathlib, keyrings_artifacts as module
def Place(): return module.Files(pathlib.Path(os.environ["HOME"], "entries"))
"""


def test_twenty_writers_leave_a_whole_entry(machine: Machine) -> None:
    """Of two that write at once, one wins; nobody ever reads half of one and half of another."""
    (machine.home.parent / "site" / "files_place.py").write_text(FILES)
    command = [sys.executable, "-c", WRITER.format(backend="files_place")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [
        subprocess.Popen([*command, str(number)], env=machine.environ, **pipes)  # type: ignore[call-overload]  # keywords in a dictionary
        for number in range(100, 120)
    ]
    said = [writer.communicate(timeout=120) for writer in writers]
    assert [errors for _, errors in said if errors] == []
    assert {output for output, _ in said} == {"[]\n"}
    files = module.Files(machine.home / "entries")
    drafts = [path.name for path in files.folder.iterdir() if path.name.startswith(".")]
    assert drafts == []
    assert module.write_entry(files, "name", '"' + "last." * 900)
    assert module.read_entry(files, "name") == '"' + "last." * 900


# --- many processes, end to end ---------------------------------------------------------------

PROCESSES, AT_ONCE, SEED = 200, 6, 7
SISTERS = ("contoso", "alpha", "beta", "gamma")


def mishaps(dice: random.Random) -> Fault:
    """One request in four meets with a fault."""
    kinds = [Reply(503), Reply(502), Reply(0), Reply(429, [("Retry-After", "1")])]
    kinds += [Reply(503, wait=1.5), Reply(401, [("WWW-Authenticate", "Basic")])]
    turn = threading.Lock()

    def strike(request: Recorded) -> Reply | None:
        with turn:
            reply = dice.choice(kinds) if dice.random() < 0.25 else None
        checks = request.host == "pkgs.dev.azure.com" and presented(request)[1]
        return reply if reply is None or reply.status != 401 or checks else Reply(500)

    return strike


def test_two_hundred_processes_among_faults(machine: Machine) -> None:
    """Each ends within a minute, with a token that is good or with one sentence, and spoils nothing."""
    machine.az()
    broken = machine.home.parent / "broken"
    put_program(broken, "az", "#!/bin/sh\nexit 1\n")
    for name in SISTERS[1:]:
        machine.services.organization(name, CONTOSO_TENANT).add_feed("pyfeed")
        machine.services.organizations[name].members.add("ada@contoso.example")
    dice = random.Random(SEED)
    machine.services.faults.append(mishaps(random.Random(SEED)))
    locked = stubborn(machine, FAILURES["locked"], METHODS[0])
    without_az = {"PATH": os.pathsep.join([str(broken), machine.environ["PATH"]])}
    moods: list[dict[str, str]] = [{}, {}, {}, moved_clock(machine, 3700), without_az, locked]
    calls = [(dice.choice(SISTERS), dice.choice(SPELLINGS), dice.choice(moods)) for _ in range(PROCESSES)]

    def call(organization: str, url: str, changes: dict[str, str]) -> tuple[str, Outcome]:
        began = time.monotonic()
        url = url.replace("contoso", organization)
        done = machine.keyring("get", url, "me", status=None, **changes)
        seconds = time.monotonic() - began
        # After a sentence of ours keyring asks the next one, which is locked for it, too.
        ours, _, theirs = done.stderr.partition("Traceback (most recent call last):\n")
        assert not theirs or (changes is locked and theirs.endswith(": the collection is locked\n")), theirs
        told = [line for line in notices(ours) if not line.startswith("stubborn.Stubborn could")]
        return organization, Outcome(done.returncode, done.stdout, told, seconds)

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(call, *zip(*calls)))
    good = [outcome for _, outcome in outcomes if outcome.status == 0]
    for organization, outcome in outcomes:
        assert outcome.seconds < 60
        if outcome.status == 0:
            assert (outcome.said, opens(machine, outcome.stdout.strip(), organization)) == ([], True)
        else:
            assert outcome.sentence == outcome.said[0]
    assert len(good) > PROCESSES / 2
    machine.services.faults.clear()
    for organization in SISTERS:
        assert opens(machine, machine.get(FEED.replace("contoso", organization)), organization)
    entries = {path.name: module.read_session(path.read_text()) for path in machine.files()}
    assert sorted(entries) == sorted(f"session-{organization}.json" for organization in SISTERS)
    assert all(entries.values())


# ----------------------------------------------------------------------------------------------
# Program
# ----------------------------------------------------------------------------------------------

DEMO_INDEX = "https://VssSessionToken@pkgs.dev.azure.com/contoso/_packaging/pyfeed/pypi/simple/"
GREETING = "Hello from contoso-greeting 1.0"


class DemonstrationFailed(Exception):
    """A step of the demonstration did not do what it says."""


def run_step(services: Services, what: str, command: Sequence[str], env: Mapping[str, str]) -> str:
    """Run a command, tell what the services saw of it, and return its output."""
    print(f"\n* {what}", flush=True)
    services.forget()
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    for request in services.seen():
        print(f"    {request.method} {request.host}{request.path} -> {request.status}")
    if done.returncode != 0:
        output = hushed(services, done.stdout + done.stderr)
        raise DemonstrationFailed(f"{what}: exit status {done.returncode}\n{output}")
    return done.stdout.strip()


def hushed(services: Services, text: str) -> str:
    """Text of another program, without any secret of ours."""
    for value in services.tokens:
        text = text.replace(value, "(token)")
    return text


def require(condition: object, failure: str) -> None:
    if not condition:
        raise DemonstrationFailed(failure)


def keyring_program() -> str:
    """The `keyring` of the running interpreter, which must have the backend."""
    installed = {normalised(each.metadata["Name"]) for each in importlib.metadata.distributions()}
    require("keyrings-artifacts" in installed, "keyrings.artifacts is not here: pip install .")
    program = shutil.which("keyring", path=os.path.dirname(sys.executable))
    if program is None:
        raise DemonstrationFailed("there is no `keyring` beside this Python: pip install keyring")
    return program


def demonstrate(services: Services, folder: Path) -> None:
    """Install a package from a private feed, with nothing but `az` signed in."""
    keyring = keyring_program()
    fake_az(folder / "bin", services, services.accounts["ada@contoso.example"])
    venv = folder / "venv"
    scripts = venv / ("Scripts" if os.name == "nt" else "bin")
    programs = (str(folder / "bin"), os.path.dirname(keyring), os.environ.get("PATH", ""))
    env = services.environ(folder / "home")
    env["PATH"] = os.pathsep.join(programs)
    env["PIP_KEYRING_PROVIDER"] = "subprocess"
    make = [sys.executable, "-m", "venv", "--without-pip", str(venv)]
    run_step(services, "python -m venv", make, env)

    python = str(scripts / "python")
    pip = [sys.executable, "-m", "pip", "--python", python]  # the one that venv brings may be too old
    install = [*pip, "install", "--index-url", DEMO_INDEX, "contoso-greeting"]
    shown = f"PIP_KEYRING_PROVIDER=subprocess pip install --index-url {DEMO_INDEX} contoso-greeting"
    run_step(services, shown, install, env)
    feed = services.seen(host="pkgs.dev.azure.com")
    require(any(each.status == 401 for each in feed), "the feed did not ask for a credential")
    require(services.seen(path_contains="/pypi/download/", status=303), "nothing was downloaded")

    hello = "import contoso_greeting; print(contoso_greeting.hello())"
    said = run_step(services, "the installed package", [python, "-c", hello], env)
    require(said == GREETING, "the installed package did not say what it should")
    print(f"    {said}")

    lookup = ["keyring", "get", DEMO_INDEX.replace("VssSessionToken@", ""), "VssSessionToken"]
    answer = run_step(services, " ".join(lookup), [keyring, *lookup[1:]], env)
    token = services.live(answer)
    require(token is not None, "keyring did not print a live token")
    require(token and services.organizations["contoso"].admits(token), "the token opens no feed")
    require(not services.requests, "the second look-up asked the services again")
    print(f"    a live {token.kind if token else ''} token, 0 requests")


def run_among(services: Services, folder: Path, command: Sequence[str]) -> int:
    """Run a command in this environment, with the stand-in services in place of the real ones."""
    fake_az(folder / "bin", services, services.accounts["ada@contoso.example"])
    env = {**os.environ, **services.environ(folder / "home")}
    env["PATH"] = os.pathsep.join((str(folder / "bin"), env["PATH"]))
    try:
        return subprocess.run(command, env=env).returncode
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and (arguments[0] != "--" or len(arguments) == 1):
        print(f"usage: {os.path.basename(__file__)} [-- COMMAND ...]", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name, Services(Path(name)) as services:
        folder = Path(name)
        (folder / "home").mkdir()
        if arguments:
            return run_among(services, folder, arguments[1:])
        try:
            demonstrate(services, folder)
        except (DemonstrationFailed, OSError, subprocess.TimeoutExpired) as error:
            print(f"\nFAILED: {hushed(services, str(error))}")
            return 1
    print("\nEverything worked.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
