# SPDX-FileCopyrightText: 2026 The keyrings.artifacts authors
# SPDX-License-Identifier: MIT
"""Tests of keyrings_artifacts, in the order of the module, then of real programs.

The pure part stands in tables. Real programs (keyring, pip, uv, twine) run among stand-in services,
which speak TLS under the services' own names behind a CONNECT proxy on loopback. Run as a program,
this file shows pip installing from a private feed among them, without an Azure account.
"""

from __future__ import annotations

import ast
import base64
import collections
import contextlib
import dataclasses
import datetime
import email
import functools
import hashlib
import html
import http.server
import inspect
import io
import itertools
import json
import math
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import socketserver
import ssl
import stat
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import uuid
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import jwt
import keyring.backend
import keyring.errors
import pytest
import trustme
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from keyring.credentials import SimpleCredential

import keyrings_artifacts as ka

ROOT = Path(__file__).resolve().parent
URL = "https://pkgs.dev.azure.com/contoso/_packaging/feed/pypi/simple/"


# --- a scripted world ------------------------------------------------------------------------

NOW, TODAY = 1_800_000_000.0, "Fri, 15 Jan 2027 08:00:00 GMT"
TENANT = "12345678-abcd-4bcd-8bcd-1234567890ab"
RESOURCE = "499b84ac-1321-427f-aa17-267ca6975798"
SCOPE = f"{RESOURCE}/.default"
FEED = ka.Feed("contoso", URL)
CHALLENGE = ka.Challenge(FEED, TENANT, "https://vssps.dev.azure.com/contoso")
ENTRA = "login.microsoftonline.com"
FEEDS, TOKENS = "pkgs.dev.azure.com", "vssps.dev.azure.com"
LOGIN = f"https://{ENTRA}/{TENANT}"
ABOVE, OTHER = "https://pkgs.dev.azure.com/contoso/", "https://pkgs.dev.azure.com/fabrikam/"
SECRET, RENEWAL = "made-up-secret", "made-up-renewal"


def made_jwt(**payload: Any) -> str:
    return jwt.encode(payload, "made-up-key-" * 4, algorithm="HS256")


PERSON = made_jwt(upn="ada@contoso.example", scp="user_impersonation", exp=NOW + 4000)
SESSION = made_jwt(scp="vso.packaging_write", exp=NOW + 7200)
BEARER = ka.Bearer(PERSON, NOW + 3600, "browser", True, "ada@contoso.example", RENEWAL)


def answer(status: int, body: object = b"", **headers: str) -> ka.Response:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ka.Response(status, {k.replace("_", "-"): v for k, v in headers.items()}, raw)


def denied(error: str, code: int = 0) -> ka.Response:
    return answer(400, {"error": error, "error_description": f"AADSTS{code}: No." if code else ""})


GRANTED = answer(200, {"access_token": PERSON, "expires_in": 3600, "refresh_token": RENEWAL})
ISSUED = answer(200, {"token": SESSION}, date=TODAY)
OPEN, REFUSED = answer(200, x_vss_e2eid="e2e"), answer(401)
BY_POLICY = answer(403, b"VS403463: The conditional access policy has failed.")
DOWN = ka.NetworkError("a.example is down.")
DROPPED = ka.NetworkError("a.example dropped it.", ka.DROPPED)
Answers = Sequence[Any]  # of responses and exceptions
Env = dict[str, str]


def table(names: str, **rows: Sequence[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(names.split(), rows.values(), ids=rows)


class MemoryStore(ka.Store):
    """A store whose one keyring holds `kept`; `plain` is what a file would hold."""

    kept = plain = ""

    def _each(self, method: str, *arguments: str) -> Iterator[Any]:
        if method == "write":
            _, self.kept, self.plain = arguments
        yield self.kept
        self.kept = "" if method == "erase" else self.kept


class Scene:
    """A World of scripted effects; one that the test does not script fails it."""

    server_address = ("127.0.0.1", 4321)  # to which a browser brings `brought` in a minute

    def __init__(self, *answers: Any, **environ: str) -> None:
        self.answers, self.time, self.store = list(answers), NOW, MemoryStore()
        heard: list[list[Any]] = [[] for _ in range(6)]
        self.requests, self.slept, self.notices, self.steps, self.commands, self.opened = heard
        self.files: dict[str, Any] = {}
        self.printed: list[Any] = []  # by az and the token command, which are there while it lasts
        self.brought: dict[str, str] = {}
        self.answer: dict[str, str] = {}
        self.world = ka.World(
            store=self.store,
            lock=lambda organization: contextlib.nullcontext(),
            send=lambda request: self.play(request, self.requests, self.answers),
            environ=environ,
            now=lambda: self.time,
            clock=lambda: self.time - NOW,
            sleep=self.sleep,
            random=lambda: "made-up-random",
            read=lambda path: self.play(path, [], [self.files.get(path, FileNotFoundError(2))]),
            run=lambda argv, seconds: self.play(argv, self.commands, self.printed, seconds == 30),
            which=lambda name: f"/bin/{name}" if self.printed else None,
            has_terminal=lambda: "TERM" in environ,
            open_browser=lambda url: self.play(url, self.opened, ["DISPLAY" in environ]),
            listen=lambda state: contextlib.nullcontext(self),
            notify=self.notices.append,
            trace=self.steps.append,
        )
        left = {*vars(ka.World), *ka.World.__annotations__} - vars(self.world).keys()
        assert [name for name in left if not name.startswith("_")] == []

    def play(self, asked: Any, heard: list[Any], script: list[Any], sound: bool = True) -> Any:
        heard.append(asked)
        if not script or not sound:
            pytest.fail(f"nobody expected {getattr(asked, 'url', asked)}")
        found = script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def handle_request(self) -> None:
        self.time += 60
        self.answer = self.brought

    def having(self, **script: Any) -> Scene:
        vars(self).update(script)
        return self

    def keep(self, **changed: Any) -> Scene:
        session = ka.Session(SESSION, "session", NOW, NOW + 7200)._replace(**changed)
        self.store.kept = json.dumps(session._asdict())
        return self

    def kept(self) -> ka.Session | None:
        return ka.read_session(self.store.kept)

    def form(self) -> dict[str, str]:
        return dict(parse_qsl((self.requests[-1].body or b"").decode()))

    def asked(self) -> list[str]:
        assert self.answers == []
        return [urlsplit(request.url).netloc for request in self.requests]


# --- values, and what others wrote -----------------------------------------------------------


def test_values_show_no_secret() -> None:
    values = (
        ka.Bearer(SECRET, NOW, "az", True, "", SECRET),
        ka.Session(SECRET, "set", NOW, NOW, SECRET),
        ka.Request("GET", f"{URL}?{SECRET}", {"Authorization": SECRET}, body=SECRET.encode()),
        ka.Response(200, {"location": SECRET}, SECRET.encode()),
        Scene(AZURE_DEVOPS_EXT_PAT=SECRET).world,
    )
    assert SECRET not in f"{values}{[str(value) for value in values]}"


def test_shown_is_one_printable_line_with_a_limit() -> None:
    assert ka.shown("a\x1b[31m\u202eb\n\t c\x00é") == "a [31m b c é"
    assert (len(ka.shown("x" * 900)), len(ka.shown("x" * 900, 80))) == (200, 80)
    assert ka.Request("GET", "https://user:pw@[::1\x1b?a", {}).host == "[::1"


def test_clean_token_of_a_credential() -> None:
    for value in ("a", "a.B~c+/=-_", "-a", "a:b$c<d>", PERSON, "a" * 16384):
        assert ka.is_token(value)
        assert ka.clean_token(f" {value}\r\n", "NAME") == value


@pytest.mark.parametrize(
    "value",
    ["", "a b", "a\nb", "$(System.AccessToken)", "${PAT}", "%PAT%", "<t>", '"a"', "'a'", "*", "é"],
)
def test_clean_token_of_what_can_be_none(value: str) -> None:
    with pytest.raises(ka.ArtifactsError, match=r"^NAME ") as caught:
        ka.clean_token(value, "NAME")
    assert value in ("", "$(System.AccessToken)") or value not in str(caught.value)
    assert not any(map(ka.is_token, (value, "a" * 16385, None, 5, b"token", ["token"])))


def test_number_and_date_are_known_or_none() -> None:
    assert [ka.number(value) for value in (5, 5.0, "5", " 5.0 ")] == [5] * 4
    for other in (0, -5, True, None, "", "x", [5], "nan", "inf", 1e12, 10**400):
        assert ka.number(other) is None
    same = (TODAY, "Fri, 15 Jan 2027 09:00:00 +0100", "2027-01-15T08:00:00Z", "2027-01-15 08:00:00")
    for text in (*same, "2027-01-15T08:00:00.1234567Z"):
        assert ka.parse_date(text) == NOW
    for other in ("", None, "soon", 5, "2027-13-15T08:00:00Z", "Fri, 99 Jan 2027 08:00:00 GMT"):
        assert ka.parse_date(other) is None


def test_claims_and_objects_are_objects_whatever_came() -> None:
    assert ka.parse_object('{"a": 1}') == ka.parse_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    assert ka.claims(made_jwt(exp=5, upn="ü" * 3)) == {"exp": 5, "upn": "üüü"}
    for other in ("[1]", "null", "", "{", "[" * 200_000, "a.b", "a.é.c", "a.WzFd.c"):
        assert ka.parse_object(other) == ka.claims(other) == {}


def test_read_bearer_of_a_person() -> None:
    persons: list[dict[str, Any]] = [{"idtyp": "user", "roles": ["a"]}, {"scp": "a", "appid": "az"}]
    others: list[dict[str, Any]] = [{"idtyp": "app", "scp": "a", "upn": "a"}, {"roles": ["a"]}]
    for payload in (*persons, {"upn": "ada", "appid": "az"}, {}):
        assert ka.read_bearer("az", {"token": made_jwt(**payload)}, NOW).person
    for payload in (*others, {"appid": "a"}, {"azp": "a"}):
        assert not ka.read_bearer("az", {"token": made_jwt(**payload)}, NOW).person


def test_read_bearer_in_each_form() -> None:
    for key in ("access_token", "accessToken", "token"):
        found = ka.read_bearer("az", {key: PERSON, "expires_on": NOW + 9}, NOW)
        assert found == (PERSON, NOW + 4000, "az", True, "ada@contoso.example", "")
    for name in ("upn", "unique_name", "preferred_username", "email"):
        named = ka.read_bearer("az", {"token": made_jwt(**{name: "ada\x1b@b"})}, NOW)
        assert named.account == "ada @b"
    ends: Any = {"expires_on": f"{NOW + 9}", "token": PERSON, "expires_in": "600"}
    assert ka.read_bearer("az", ends, NOW).expires == NOW + 600
    assert ka.read_bearer("az", {**ends, "token": "a", "expires_in": None}, NOW).expires == NOW + 9
    assert ka.read_bearer("az", {"token": "a"}, NOW).expires == NOW + 3600
    for error, code in (("invalid_grant", "invalid_grant, "), ("for ada", "")):
        with pytest.raises(ka.ArtifactsError, match=rf"az.*\({code}AADSTS50076\)"):
            ka.read_bearer("az", ka.parse_object(denied(error, 50076).body), NOW)


@table(
    "printed token",
    az=('{"accessToken": "a"}', "a"),
    notice_before=('WARNING: {2} updates [x]\n{"accessToken": "a"}', "a"),
    notice_after=('{"token": "a", "expires_on": 5}\nA new release: 3.0', "a"),
    colours=('\x1b[0m{\x1b[33m"token"\x1b[0m: "a"}', "a"),
    link=('\x1b]8;;http://x\x1b\\{"token": "a"}\x1b]8;;\x07', "a"),
    words_without_blanks=(f"令牌{PERSON}.of.five结束\nTenant : x", f"{PERSON}.of.five"),
    line_of_its_own=(f"Notice: no news\n {SECRET} \nDone\n", SECRET),
    no_token=('{"token": "", "see": "logs"}\nDone', None),
    no_token_but_deep=("Please run az\n" + '{"a":' * 1100, None),
)
def test_find_token_in_what_a_program_prints(printed: str, token: str | None) -> None:
    found = ka.find_token(printed)
    tokens = map(found.get, ("accessToken", "access_token", "token"))
    assert next(filter(None, tokens), None) == token


# --- feeds -----------------------------------------------------------------------------------


@table(
    "service path",
    simple=(URL, "contoso/_packaging/feed/pypi/simple/"),
    organization=("https://pkgs.dev.azure.com/contoso", "contoso"),
    decorated=("https://me:pw@pkgs.dev.azure.com/contoso/f@Local?a#b", "contoso/f@Local"),
    upper_case=(" HTTPS://PKGS.dev.azure.com:443/Cont%6Fso/F ", "Cont%6Fso/F"),
    blank=(f"{ABOVE}My Project/f", "contoso/My%20Project/f"),
    umlaut=(f"{ABOVE}Straße/f", "contoso/Stra%C3%9Fe/f"),
    percent_sign=(f"{ABOVE}100%/f%2", "contoso/100%25/f%252"),
    braces=(f"{ABOVE}a{{b}}|c", "contoso/a%7Bb%7D%7Cc"),
)
def test_parse_feed_of_one_organization(service: str, path: str) -> None:
    assert ka.parse_feed(service) == ("contoso", f"https://pkgs.dev.azure.com/{path}", False)
    for bare in (False, True):
        legacy = f"{'' if bare else 'https://'}CONTOSO.pkgs.visualstudio.com"
        assert ka.parse_feed(legacy) == ("contoso", "https://contoso.pkgs.visualstudio.com/", bare)


STRANGERS = """
http://pkgs.dev.azure.com/contoso/ https://evil-pkgs.dev.azure.com/contoso/
https://evilpkgs.visualstudio.com/contoso/ https://a.contoso.pkgs.visualstudio.com/
https://.pkgs.visualstudio.com/ https://pkgs.visualstudio.com/contoso/
https://pkgs.dev.azure.com.evil.example/contoso/ https://pkgsXdev.azure.com/contoso/
https://contoso.pkgsXvisualstudio.com/ https://dev.azure.com/contoso/
https://evil.example/pkgs.dev.azure.com/ https://evil.example/?u=https://pkgs.dev.azure.com/contoso/
https://evil.example#@pkgs.dev.azure.com/a/ https://pkgs.dev.azure.com#@evil.example/contoso/
https://pkgs.dev.azure.com@evil.example/a/ https://pkgs.dev.azure.com:pw@evil.example/contoso/
https://a@evil.example@pkgs.dev.azure.com/a/ https://evil.example\\@pkgs.dev.azure.com/contoso/
https://pkgs.dev.azure.com\\@evil.example/a/ https://pkgs.dev.azure.com./contoso/
https://pkgs.dev.azure.com:8443/contoso/ https://pkgs%2Edev.azure.com/contoso/
https://pkgs.dev.azure.c\u043em/contoso/ https://\uff50kgs.dev.azure.com/contoso/
https://[::1]/contoso/ https://[pkgs.dev.azure.com/contoso/
https://pkgs.dev.azure.com/a/../contoso/ https://pkgs.dev.azure.com/a/%2E%2e/contoso/
https://pkgs.dev.azure.com/contoso/a%2F..%2fb/ https://pkgs.dev.azure.com/./contoso/
https://pkgs.dev.azure.com//contoso/ https://pkgs.dev.azure.com/a%2Fb/
https://pkgs.dev.azure.com/_apis/ https://pkgs.dev.azure.com/
pkgs.dev.azure.com pkgs.dev.azure.com/contoso system https://a.pkgs.visualstudio.com.evil.example/
"""
READ_DIFFERENTLY = [f"https://pkgs.dev.azure.com/contoso/{c}f/" for c in "\t\n\r\x00\x7f\ud800"]
BLANKS = ["https://pkgs.dev.azure.com /contoso/", "https://pkgs.dev.azure.com/a b/", ""]


@pytest.mark.parametrize("service", [*STRANGERS.split(), *READ_DIFFERENTLY, *BLANKS])
def test_parse_feed_of_another_service(service: str) -> None:
    assert ka.parse_feed(service) is None


# --- given -----------------------------------------------------------------------------------


def endpoints(*entries: tuple[str, str], key: str = "endpoint") -> str:
    rows = [{key: url, "username": "eve", "Password": password} for url, password in entries]
    return json.dumps({"EndpointCredentials": rows})


ENDPOINTS = "ARTIFACTS_CREDENTIALPROVIDER_EXTERNAL_FEED_ENDPOINTS"
DOCKER, PAT_FILE = "/run/secrets/azure_devops_ext_pat", "AZURE_DEVOPS_EXT_PAT_FILE"
GIVEN = {  # in the order in which they count
    ENDPOINTS: endpoints((URL, "1")),
    "VSS_NUGET_EXTERNAL_FEED_ENDPOINTS": endpoints((URL, "2")),
    "AZURE_DEVOPS_EXT_PAT": "3",
    PAT_FILE: "/pat",
    DOCKER: "",
    "ARTIFACTS_CREDENTIALPROVIDER_ACCESSTOKEN": "6",
    "VSS_NUGET_ACCESSTOKEN": "7",
    "SYSTEM_ACCESSTOKEN": "8",
}


def given_password(scene: Scene) -> str | None:
    found = ka.given_credential(FEED, scene.world)
    return found.password if found else None


def test_given_credential_counts_in_order() -> None:
    files = {"/pat": "4\r\n".encode("utf-16"), DOCKER: b"5\n"}
    scene = Scene(**GIVEN, VSS_NUGET_URI_PREFIXES=f"{OTHER};{ABOVE}").having(files=files)
    left = scene.world.environ = dict(scene.world.environ)
    for rank, name in enumerate(GIVEN, 1):
        found = ka.credential_for(FEED, scene.world)
        assert vars(found) == vars(SimpleCredential("eve" if rank < 3 else "", str(rank)))
        assert name in scene.steps[-1]
        del (files if name == DOCKER else left)[name]
    files[DOCKER], scene.world.environ = b"\n", {**dict.fromkeys(GIVEN, " \n"), **left}
    assert ka.given_credential(FEED, scene.world) is None
    assert (scene.asked(), scene.store.kept) == ([], "")


@table(
    "name value",
    endpoints_password=(ENDPOINTS, endpoints((URL, "broken one"))),
    endpoints_json=(ENDPOINTS, '{"broken": one'),
    endpoints_without_one=(ENDPOINTS, '{"endpointCredentials": [{"broken one": 1}]}'),
    pat=("AZURE_DEVOPS_EXT_PAT", "broken one"),
    file=(PAT_FILE, "/broken"),
    missing_file=(PAT_FILE, "/missing"),
    no_file_name=(PAT_FILE, "/odd"),
    pipeline=("SYSTEM_ACCESSTOKEN", "$(broken one)"),
    docker=(DOCKER, ""),
)
def test_given_credential_that_is_broken(name: str, value: str) -> None:
    scene = Scene(**{name: value})
    scene.files = {"/broken": b"broken one", "/odd": ValueError("embedded null byte")}
    scene.files[name] = PermissionError(13, "Permission denied")
    with pytest.raises(ka.ArtifactsError, match=re.escape(name)) as caught:
        ka.given_credential(FEED, scene.world)
    assert "broken one" not in str(caught.value)


@table(
    "name uri organization",
    no_pipeline=("A", "", ""),
    own=("SYSTEM_COLLECTIONURI", "https://dev.azure.com/Contoso/", "contoso"),
    legacy=("SYSTEM_TEAMFOUNDATIONCOLLECTIONURI", "https://contoso.visualstudio.com/", "contoso"),
    others=("SYSTEM_COLLECTIONURI", "https://fabrikam.visualstudio.com/contoso/", "fabrikam"),
    a_server=("SYSTEM_COLLECTIONURI", "https://tfs.example/contoso/", "a server of its own"),
)
def test_given_credential_of_a_pipeline(name: str, uri: str, organization: str) -> None:
    assert ka.pipeline_organization({name: uri}) == organization
    found = given_password(Scene(**{"SYSTEM_ACCESSTOKEN": SECRET, name: uri}))
    assert found == (SECRET if organization in ("", "contoso") else None)


def test_given_credential_of_other_prefixes() -> None:
    for prefixes in ("", OTHER, f"http{ABOVE[5:]}", ABOVE[:-3], f"{URL}greeting/", "x;;y"):
        scene = Scene(VSS_NUGET_ACCESSTOKEN=SECRET, VSS_NUGET_URI_PREFIXES=prefixes)
        assert given_password(scene) is None


@table(
    "text password",
    closest_last=(endpoints((ABOVE, "a"), (URL, "b")), "b"),
    of_two_alike_the_first=(endpoints((URL, "a"), (URL, "b")), "a"),
    key_in_another_case=(endpoints((URL, "a"), key="ENDPOINT"), "a"),
    no_password=(endpoints((URL, ""), (OTHER, "a")), None),
)
def test_closest_endpoint_of_a_feed(text: str, password: str | None) -> None:
    assert given_password(Scene(**{ENDPOINTS: text})) == password


# --- discovery and exchange ------------------------------------------------------------------

ROGUES = f"""
https://login.microsoftonline.com.evil.example/{TENANT} https://evil.example/{TENANT}
https://login.microsoftonline.com@evil.example/{TENANT} http://{ENTRA}/{TENANT}
https://login.microsoftonline.com:8443/{TENANT} https://loginXmicrosoftonline.com/{TENANT}
https://login.microsoftonline.us/{TENANT} https://{ENTRA}/contoso.example
https://evil.example/{ENTRA}/{TENANT} {LOGIN}/../evil {LOGIN[:-1]}c
"""
FOREIGN = """
https://vssps.dev.azure.com/Contoso/ https://vssps.dev.azure.com/fabrikam/ https://evil.example/a
https://fabrikam.vssps.visualstudio.com/ https://wcus0.app.vssps.visualstudio.com/
http://app.vssps.visualstudio.com/ https://app.vssps.visualstudio.com.evil.example/
https://app.vssps.visualstudio.com@evil.example/ https://app.vssps.visualstudio.com:8443/
"""
NOT_YET = answer(400, b"\xef\xbb\xbf" + b'{"message": "TF401444: Please sign in at least once"}')
BUSY, LATER = answer(429, retry_after="2"), answer(503, retry_after="600")


def challenged(*uris: str, tenant: str = "", status: int = 401) -> ka.Response:
    told = ", ".join([*(f"Bearer Authorization_Uri={uri}" for uri in uris), 'Basic realm="x"'])
    return answer(status, www_authenticate=told, x_vss_resourcetenant=tenant)


@table(
    "response tenant",
    authority=(challenged(LOGIN, tenant=TENANT.upper()), TENANT),
    authority_with_path=(challenged(f'"{LOGIN}/oauth2/v2.0/authorize"', status=302), TENANT),
    older_host=(challenged(f"https://login.windows.net:443/{TENANT}/"), TENANT),
    newer_host=(challenged(f"https://login.microsoft.com/{TENANT.upper()}"), TENANT),
    tenant_alone=(challenged(tenant=f"{TENANT}, {TENANT}"), TENANT),
    upload_that_answers_404=(challenged(LOGIN, status=404), TENANT),
    personal=(challenged(tenant="00000000-0000-0000-0000-000000000000"), "organizations"),
    common=(challenged(f"https://{ENTRA}/common"), "organizations"),
    nothing_said=(answer(203), "organizations"),
)
def test_read_challenge_names_the_tenant(response: ka.Response, tenant: str) -> None:
    feed = ka.Feed("contoso", f"{ABOVE}_packaging/feed/pypi/upload/")
    assert ka.read_challenge(feed, response) == (feed, tenant, CHALLENGE.token_service, False)


@pytest.mark.parametrize("uri", ROGUES.split())
def test_read_challenge_of_a_rogue_authority(uri: str) -> None:
    for response in (challenged(LOGIN, uri), challenged(tenant=f"{TENANT}, {uri}")):
        with pytest.raises(ka.ArtifactsError):
            ka.read_challenge(FEED, response)


def test_read_challenge_of_a_public_feed() -> None:
    upload = f"{ABOVE}_packaging/feed/pypi/upload"
    for status, url in ((200, URL), (303, URL), (401, URL), (404, ABOVE), (200, upload)):
        found = ka.read_challenge(ka.Feed("contoso", url), answer(status, x_vss_e2eid="e2e"))
        assert found.public is (url == URL and status != 401)


@table(
    "response told network",
    page=(answer(200, b"<html>"), f"{FEEDS} answered 200", True),
    proxy=(answer(403, b"Blocked"), f"{FEEDS} answered 403", True),
    redirect=(answer(303), f"{FEEDS} answered 303", True),
    policy=(answer(403, BY_POLICY.body, x_vss_e2eid="e2e"), "VS403463", False),
    no_such_feed=(answer(404), "404.*contoso/_packaging", False),
)
def test_read_challenge_of_no_challenge(response: ka.Response, told: str, network: bool) -> None:
    with pytest.raises(ka.ArtifactsError, match=told) as caught:
        ka.read_challenge(FEED, response)
    assert isinstance(caught.value, ka.NetworkError) is network


def test_token_service_is_the_organizations_own() -> None:
    own = "https://contoso.vssps.visualstudio.com"
    assert ka.token_service(FEED, f"{own}/") == own
    for told in (*FOREIGN.split(), "https://app.vssps.visualstudio.com/", "", f"{own}, {own}"):
        assert ka.token_service(FEED, told) == "https://vssps.dev.azure.com/contoso"
    assert ka.token_service(ka.Feed("ümlaut", ""), "") == "https://vssps.dev.azure.com/%C3%BCmlaut"


def test_session_request_is_whole() -> None:
    request = ka.session_request(CHALLENGE, BEARER, NOW + 86400.9)
    base, _, query = request.url.partition("?")
    assert base == "https://vssps.dev.azure.com/contoso/_apis/Token/SessionTokens"
    assert dict(parse_qsl(query)) == {"tokenType": "SelfDescribing", "api-version": "5.0-preview.1"}
    body = {"displayName": "keyrings.artifacts", "scope": "vso.packaging_write"}
    assert json.loads(request.body or b"") == {**body, "validTo": "2027-01-16T08:00:00Z"}
    assert json.loads(ka.session_request(CHALLENGE, BEARER, None).body or b"") == body
    headers = {"Authorization": f"Bearer {PERSON}", "Content-Type": "application/json"}
    assert request.headers.items() >= headers.items()
    assert (request.method, request.spends, request.direct) == ("POST", True, False)


@table(
    "hour body lasts",
    token=(8, {"token": SESSION}, 7200),
    valid_to=(8, {"token": SESSION, "validTo": "2027-01-15T09:00:00.1234567Z"}, 3600),
    no_date=(99, {"token": SESSION}, 7200),
    clock_here_ahead=(7, {"token": SESSION}, 10800),
    clock_here_behind=(9, {"token": SESSION}, 3600),
    unknown_end=(8, {"token": "a", "validTo": "0001-01-01T00:00:00Z"}, 86400),
)
def test_read_session_token_ends_by_the_clock_here(hour: int, body: object, lasts: float) -> None:
    response = answer(200, body, date=f"Fri, 15 Jan 2027 {hour:02}:00:00 GMT")
    session = ka.read_session_token(response, NOW)
    assert session == (session and session.token, "session", NOW, NOW + lasts, "")


@table(
    "answers asked told",
    session_token=([ISSUED], "T", ""),
    lifetime_refused=([answer(400), ISSUED], "TT", ""),
    refused_twice=([answer(400), answer(400), OPEN], "TTF", ""),
    none_issued=([answer(403), OPEN], "TF", ""),
    **{f"{code}": ([answer(code, {"token": "a"})], "T", f"{code}") for code in (203, 302, 401)},
    header=([answer(403, b"No", x_tfs_serviceerror="TF400813%3A+No")], "T", "TF400813"),
    policy=([BY_POLICY], "T", "VS403463"),
    never_signed_in=([NOT_YET, NOT_YET], "TT", "TF401444.*https://dev.azure.com/contoso"),
    policy_at_last=([answer(400), answer(400, {"message": "VS403463: no"})], "TT", "VS403463"),
    the_second_time=([answer(400), REFUSED], "TT", "401"),
    by_the_feed_403=([answer(403), answer(403)], "TF", "403"),
    no_such_feed=([answer(403), answer(404)], "TF", r"\(404\)"),
    no_token=([answer(200, {"token": "a b"})], "T", TOKENS),
    application=([answer(404)], "F", ""),
    application_refused=([REFUSED], "F", "'contoso' refused"),
    application_forbidden=([answer(403)], "F", "'contoso' refused"),
)
def test_exchange_of_a_token(answers: Answers, asked: str, told: str) -> None:
    scene, bearer = Scene(*answers), BEARER._replace(person="T" in asked)
    kind = "entra" if bearer.person else "application"
    narrow, wide = (SESSION, "session", NOW, NOW + 7200), (PERSON, kind, NOW, NOW + 3600)
    with pytest.raises(ka.ArtifactsError, match=told) if told else contextlib.nullcontext():
        session = ka.exchange(CHALLENGE, bearer, scene.world)
        assert session[:4] == (wide if "F" in asked else narrow)
    assert scene.asked() == [TOKENS if letter == "T" else FEEDS for letter in asked]
    ends = [json.loads(each.body or b"{}").get("validTo") for each in scene.requests]
    assert ends == ["2027-01-16T08:00:00Z" if "T" in asked else None, *[None] * (len(asked) - 1)]


@table(
    "answers spends slept",
    drops=([DROPPED, DROPPED, OPEN], False, [0.5, 1.5]),
    busy=([answer(429), OPEN], False, [0.5]),
    retry_after=([BUSY, LATER, OPEN], False, [2.0, 5.0]),
    retry_after_a_date=([answer(503, retry_after=TODAY), OPEN], False, [0.5]),
    three_drops=([DROPPED] * 3, False, [0.5, 1.5]),
    three_server_errors=([answer(503)] * 3, False, [0.5, 1.5]),
    unreachable=([DOWN], False, []),
    dropped_and_spends=([DROPPED], True, []),
    server_error_and_spends=([answer(500)], True, []),
    busy_and_spends=([BUSY], True, []),
)
def test_fetch_tries_again(answers: Answers, spends: bool, slept: list[float]) -> None:
    scene, last = Scene(*answers), answers[-1]
    fails = isinstance(last, Exception) or last.status in (429, 500, 503)
    with pytest.raises(ka.NetworkError) if fails else contextlib.nullcontext():
        assert ka.fetch(ka.Request("GET", URL, {}, spends=spends), scene.world) is last
    assert (len(scene.asked()), scene.slept) == (len(answers), slept)


# --- sources ---------------------------------------------------------------------------------

RUNS, NAMED = "KEYRINGS_ARTIFACTS_TOKEN_COMMAND", "KEYRINGS_ARTIFACTS_SOURCES"
BY_SECRET = {"AZURE_CLIENT_ID": "app", "AZURE_CLIENT_SECRET": SECRET}
BY_TASK = {"servicePrincipalId": "app", "tenantId": "t/x"}
BY_FILE = {"AZURE_CLIENT_ID": "app", "AZURE_FEDERATED_TOKEN_FILE": "/token"}
BY_GITHUB = {
    "AZURE_CLIENT_ID": "app",
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://oidc.example/x?a=b",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "asks",
}
BY_CONNECTION = {
    "AZURESUBSCRIPTION_CLIENT_ID": "app",
    "AZURESUBSCRIPTION_TENANT_ID": "t/x",
    "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID": "c",
    "SYSTEM_OIDCREQUESTURI": "https://oidc.example/x",
    "SYSTEM_ACCESSTOKEN": "asks",
}
GITHUB_URL = "https://oidc.example/x?a=b&audience=api%3A%2F%2FAzureADTokenExchange"
PIPELINE_URL = "https://oidc.example/x?api-version=7.1&serviceConnectionId=c"
OLD, FRESH = made_jwt(exp=NOW - 1), made_jwt(exp=NOW + 1)
VM = "http://169.254.169.254/metadata/identity/oauth2/token"
POD = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": "http://127.0.0.1:9/"}
HERE = {"IDENTITY_ENDPOINT": "http://172.16.5.3:8081/msi", "IDENTITY_HEADER": SECRET}
ASKS = ["/bin/az", "account", "get-access-token", "--output", "json", "--resource", RESOURCE]
MANAGED = ka.ArtifactsError("az failed.", "For Managed Identity, specify no tenant")
PAGE = {"verification_uri": "https://microsoft.com/devicelogin", "expires_in": 900, "interval": 7}
PAGE |= {"device_code": "made-up-device", "user_code": "AB\x1b12"}
CODE = {"code": "made-up-code"}
PENDING, SLOWER = denied("authorization_pending", 70016), denied("slow_down")


@table(
    "environ asked proof",
    secret=(BY_SECRET, "", SECRET),
    secret_of_a_task=({**BY_TASK, "servicePrincipalKey": f"{SECRET}\n"}, "", SECRET),
    file=(BY_FILE, "", "in-file"),
    task=({**BY_TASK, "idToken": FRESH}, "", FRESH),
    github=(BY_GITHUB, GITHUB_URL, "from-github"),
    pipeline=(BY_CONNECTION, PIPELINE_URL, "from-pipeline"),
    secret_and_file_first=({**BY_GITHUB, **BY_FILE, **BY_SECRET}, "", SECRET),
    file_before_github=({**BY_GITHUB, **BY_FILE}, "", "in-file"),
    fresh_instead_of_expired=({"idToken": OLD, **BY_CONNECTION}, PIPELINE_URL, "from-pipeline"),
    expired_where_it_is_all=({**BY_TASK, "idToken": OLD}, "", OLD),
)
def test_service_principal_proves_who_it_is(environ: Env, asked: str, proof: str) -> None:
    told = answer(200, {"value": "from-github", "oidcToken": "from-pipeline"})
    scene = Scene(*[told] * bool(asked), GRANTED, **environ).having(files={"/token": b"in-file\n"})
    bearer = ka.service_principal(CHALLENGE, scene.world)
    assert bearer == BEARER._replace(source="service_principal", person=False, refresh="")
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    issued = {"client_assertion": proof, "client_assertion_type": kind}
    form = {"client_id": "app", "grant_type": "client_credentials", "scope": SCOPE}
    assert scene.form() == {**form, **({"client_secret": proof} if proof == SECRET else issued)}
    tenant = "t%2Fx" if {"tenantId", "AZURESUBSCRIPTION_TENANT_ID"} & environ.keys() else TENANT
    assert scene.requests[-1].url == f"https://{ENTRA}/{tenant}/oauth2/v2.0/token"
    for request in scene.requests[:-1]:
        assert (request.url, request.headers["Authorization"]) == (asked, "Bearer asks")
        assert request.method == ("GET" if asked == GITHUB_URL else "POST")


@table(
    "answers url told",
    secret_refused=([denied("invalid_client", 7000222)], "", "app.*AADSTS7000222"),
    issuer_down=([DOWN], "https://a.example", "a.example"),
    issuer_refuses=([answer(403)], "https://a.example", "403.*id-token: write"),
    issuer_not_https=([], "http://a.example", "a.example.*https"),
)
def test_service_principal_that_fails(answers: Answers, url: str, told: str) -> None:
    issuer = {**BY_GITHUB, "ACTIONS_ID_TOKEN_REQUEST_URL": url}
    scene = Scene(*answers, **(issuer if url else BY_SECRET))
    with pytest.raises(ka.ArtifactsError, match=told) as caught:
        ka.service_principal(CHALLENGE, scene.world)
    assert not isinstance(caught.value, ka.NetworkError)
    assert (SECRET in str(caught.value), scene.asked()[1:]) == (False, [])


@table(
    "environ url version",
    platform=(HERE, "http://172.16.5.3:8081/msi", "2019-08-01"),
    vm_named=({NAMED: "azure_cli managed_identity"}, VM, "2018-02-01"),
    vm_by_client_id=({"AZURE_CLIENT_ID": "app"}, VM, "2018-02-01"),
    vm_elsewhere=(POD, f"http://127.0.0.1:9{VM[22:]}", "2018-02-01"),
    no_header=({**HERE, "IDENTITY_HEADER": ""}, "", ""),
    service_principal=(BY_SECRET, "", ""),
)
def test_identity_request_with_a_reason(environ: Env, url: str, version: str) -> None:
    request = ka.identity_request(Scene(**environ).world)
    assert (request.url.partition("?")[0] if request else "") == url
    if request:
        query = {"api-version": version, "resource": RESOURCE}
        client = {"client_id": "app"} if "AZURE_CLIENT_ID" in environ else {}
        assert dict(parse_qsl(request.url.partition("?")[2])) == {**query, **client}
        assert (request.method, request.direct) == ("GET", True)
        assert request.headers["Metadata"] == "true"
        assert request.headers.get("X-IDENTITY-HEADER") == environ.get("IDENTITY_HEADER")


def test_managed_identity_is_an_application() -> None:
    bearer = ka.managed_identity(CHALLENGE, Scene(GRANTED, **POD).world)
    assert bearer == BEARER._replace(source="managed_identity", person=False, refresh="")
    with pytest.raises(ka.ArtifactsError, match=r"127.*invalid_request"):
        ka.managed_identity(CHALLENGE, Scene(denied("invalid_request"), **POD).world)


def test_token_command_runs_without_a_shell() -> None:
    scene = Scene(**{RUNS: "token --scope 'a b; c'"}).having(printed=[f"Notice\n{PERSON}\n"])
    bearer = ka.token_command(CHALLENGE, scene.world)
    assert bearer == BEARER._replace(source="token_command", expires=NOW + 4000, refresh="")
    assert scene.commands == [["/bin/token", "--scope", "a b; c"]]
    assert ka.token_command(CHALLENGE, Scene(**{RUNS: " "}).world) is None
    for text, printed in (("token", []), ("token", ["no such thing"]), ("'token", ["a"])):
        broken = Scene(**{RUNS: text}).having(printed=[*printed])
        with pytest.raises(ka.ArtifactsError, match=f"^{RUNS}"):
            ka.token_command(CHALLENGE, broken.world)


def test_split_command_on_both_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tool").touch()
    words = ka.split_command(r"a 'b c' \$d ./no ./tool tool", False)
    assert words == ["a", "b c", "$d", "./no", os.path.abspath("tool"), "tool"]
    words = ka.split_command(r'"C:\Program Files\t.exe" /a C:\x "b c" --d="e f"', True)
    assert words == [r"C:\Program Files\t.exe", "/a", r"C:\x", "b c", "--d=e f"]
    assert "~" not in ka.split_command("~/x", False)[0]


@table(
    "tenant printed commands",
    tenant=(TENANT, [PERSON], [[*ASKS, "--tenant", TENANT]]),
    personal_accounts=("organizations", [PERSON], [ASKS]),
    managed_identity=(TENANT, [MANAGED, PERSON], [[*ASKS, "--tenant", TENANT], ASKS]),
    not_signed_in=(TENANT, [ka.ArtifactsError("az failed.", "AADSTS50076")], None),
    no_token=(TENANT, ["nothing to see here"], None),
)
def test_azure_cli_of_a_tenant(tenant: str, printed: list[Any], commands: Any) -> None:
    scene, challenge = Scene(), CHALLENGE._replace(tenant=tenant)
    assert ka.azure_cli(challenge, scene.world) is None
    scene.printed = [*printed]
    login = f"'az login --tenant {TENANT} --scope {SCOPE}'"
    with contextlib.nullcontext() if commands else pytest.raises(ka.ArtifactsError, match=login):
        bearer = ka.azure_cli(challenge, scene.world)
        assert (bearer and bearer.token, scene.commands) == (PERSON, commands)
    assert ka.az_login("organizations") == f"az login --scope {SCOPE}"


def test_refusal_tells_kinds_apart() -> None:
    for text, codes in (
        ("declined", "access_denied authorization_declined AADSTS65004"),
        ("policy", "AADSTS53003 AADSTS530032 AADSTS50097 AADSTS50105 AADSTS50131"),
        ("refused", "invalid_grant AADSTS50076"),
    ):
        assert all(text in str(ka.refusal(TENANT, {"error": code})) for code in codes.split())


@table(
    "answer refresh kept",
    rotated=(GRANTED, RENEWAL, True),
    same=(answer(200, {"access_token": made_jwt(azp="a"), "refresh_token": " "}), "older", True),
    over_for_good=(denied("invalid_grant", 700082), None, False),
    over_for_now=(denied("interaction_required", 50076), None, True),
    unreachable=(DOWN, None, True),
)
def test_refresh_token_of_an_earlier_sign_in(answer: Any, refresh: str | None, kept: bool) -> None:
    scene = Scene(answer).keep(refresh="older")
    with pytest.raises(ka.NetworkError) if answer is DOWN else contextlib.nullcontext():
        bearer = ka.refresh_token(CHALLENGE, scene.world)
        assert (bearer and bearer.refresh) == refresh
        assert bearer is None or (bearer.source, bearer.person) == ("refresh_token", True)
    assert (scene.form()["refresh_token"], scene.requests[0].spends) == ("older", False)
    assert (scene.kept() is not None) is kept
    assert ka.refresh_token(CHALLENGE, Scene().keep().world) is None


def test_browser_signs_a_user_in() -> None:
    scene = Scene(GRANTED, DISPLAY=":0").having(brought=CODE)
    assert ka.browser(CHALLENGE, scene.world) == BEARER._replace(expires=NOW + 60 + 3600)
    url, _, query = scene.opened[0].partition("?")
    sent = dict(parse_qsl(query))
    assert (url, scene.opened[0] in scene.notices[0]) == (f"{LOGIN}/oauth2/v2.0/authorize", True)
    assert (sent["response_mode"], sent["state"]) == ("form_post", "made-up-random")
    assert (sent["code_challenge_method"], sent["prompt"]) == ("S256", "select_account")
    assert sent["redirect_uri"] == scene.form()["redirect_uri"] == "http://localhost:4321"
    assert (scene.form()["code"], scene.requests[0].spends) == ("made-up-code", True)


def test_browser_that_brings_no_code() -> None:
    for brought, told in (({}, "3 minutes"), ({"error": "access_denied"}, "access_denied")):
        scene = Scene(DISPLAY=":0").having(brought=brought)
        vars(scene.world)["now"] = itertools.count(NOW, 1000).__next__  # somebody sets this clock
        with pytest.raises(ka.ArtifactsError, match=told):
            ka.browser(CHALLENGE, scene.world)
        assert scene.time == NOW + (60 if brought else 180)
    assert ka.browser(CHALLENGE, Scene().world) is None


@table(
    "changed answers slept told",
    signed_in=({}, [PENDING, SLOWER, DROPPED, GRANTED], [7, 7, 12, 12], None),
    steps_of_30_seconds=({"interval": 60}, [PENDING] * 6, [30] * 6, "in time"),
    steps_of_5_seconds=({"interval": "x"}, [PENDING] * 36, [5] * 36, "in time"),
    expires_sooner=({"expires_in": 20}, [PENDING] * 3, [7] * 3, "in time"),
    no_network_for_half_a_minute=({}, [PENDING, *[DROPPED] * 5], [7] * 6, "dropped"),
    busy=({}, [denied("temporarily_unavailable"), denied("access_denied")], [7, 7], "declined"),
)
def test_device_code_polls(changed: Any, answers: Answers, slept: Any, told: str | None) -> None:
    scene = Scene(answer(200, {**PAGE, **changed}), *answers, TERM="x")
    if told:
        vars(scene.world)["now"] = itertools.count(NOW, 1000).__next__
    with pytest.raises(ka.ArtifactsError, match=told) if told else contextlib.nullcontext():
        bearer = ka.device_code(CHALLENGE, scene.world)
        assert bearer == BEARER._replace(source="device_code", expires=NOW + sum(slept) + 3600)
    assert (len(scene.asked()), scene.slept) == (len(answers) + 1, slept)
    assert re.search("https://microsoft.com/devicelogin.*AB 12 within [03] min", scene.notices[0])
    assert (scene.form()["device_code"], scene.requests[1].spends) == ("made-up-device", True)
    assert scene.requests[0].url == f"{LOGIN}/oauth2/v2.0/devicecode"


def test_device_code_of_a_rogue_page() -> None:
    for url in ("http://microsoft.com/a", "https://microsoft.com.evil.example/a", "a", None):
        scene = Scene(answer(200, {**PAGE, "verification_uri": url}), TERM="x")
        with pytest.raises(ka.ArtifactsError):
            ka.device_code(CHALLENGE, scene.world)
    assert ka.device_code(CHALLENGE, Scene().world) is None


# --- composition -----------------------------------------------------------------------------

ALL = {**BY_SECRET, **POD, RUNS: "token", "DISPLAY": ":0", "TERM": "x"}
BROKEN = denied("invalid_client")
OF_FABRIKAM = {"SYSTEM_COLLECTIONURI": "https://dev.azure.com/fabrikam/"}  # the job's organization
SILENT = "CI TF_BUILD GITHUB_ACTIONS ARTIFACTS_KEYRING_NONINTERACTIVE_MODE PIP_NO_INPUT"


@table(
    "changed answers served checked",
    fresh=({}, [], True, NOW),
    five_minutes_left=({"expires": NOW + 300}, [], False, NOW),
    a_second_more=({"expires": NOW + 301}, [], True, NOW),
    within_the_hour=({"checked": NOW - 3599}, [], True, NOW - 3599),
    after_an_hour=({"checked": NOW - 3600}, [OPEN], True, NOW),
    clock_set_back=({"checked": NOW + 1}, [OPEN], True, NOW),
    unreachable=({"checked": 1}, [DOWN], True, 1),
    refused=({"checked": 1}, [REFUSED], False, None),
    refused_by_a_policy=({"checked": 1}, [BY_POLICY], False, None),
    refused_but_renewable=({"checked": 1, "refresh": RENEWAL}, [REFUSED], False, 1),
    refresh_token_alone=({"token": "", "refresh": RENEWAL}, [], False, NOW),
)
def test_kept_session_is_fresh(changed: Any, answers: Answers, served: bool, checked: Any) -> None:
    scene = Scene(*answers).keep(**changed)
    session = ka.kept_session(FEED, scene.world)
    assert (session is not None, len(scene.asked())) == (served, len(answers))
    kept = scene.kept()
    assert (kept and kept.checked) == checked
    assert kept is None or kept.refresh == changed.get("refresh", "")
    assert kept is None or bool(kept.token) is (served or not kept.refresh)
    assert all("Authorization" in request.headers for request in scene.requests)


def test_kept_session_beside_a_configured_application() -> None:
    assert ka.kept_session(FEED, Scene(**BY_SECRET).keep().world) is None
    assert ka.kept_session(FEED, Scene(AZURE_CLIENT_ID="of a web app").keep().world)
    named = Scene(**BY_SECRET, **{NAMED: "azure_cli,browser"}).keep()
    assert ka.kept_session(FEED, named.world)  # else a user would be asked at every call


def test_keep_lets_a_session_token_alone_lie_in_a_file() -> None:
    for kind in ("session", "entra", "set", "refresh"):
        scene, session = Scene(), ka.Session(SESSION, kind, NOW, NOW + 7200, RENEWAL)
        assert ka.keep(FEED, session, scene.world)
        plain = session._replace(refresh="") if kind == "session" else None
        assert (scene.kept(), ka.read_session(scene.store.plain)) == (session, plain)
    damages: list[Any] = [("token", "a b"), ("token", None), ("kind", 5), ("refresh", [])]
    for name, value in (*damages, ("checked", "5"), ("expires", "nan"), ("surplus", 1)):
        assert ka.read_session(json.dumps({**session._asdict(), name: value})) is None


@table(
    "named answers tried",
    all=("", [BROKEN, BROKEN, GRANTED, REFUSED], "smtarb"),
    named=(" azure_cli; token_command,refresh_token ", [GRANTED, REFUSED], "atrN"),
    no_network=("", [BROKEN, DOWN, DOWN], "smtar"),
    declined=("browser device_code", [], "b"),
    unknown=("azure_cli msal", [], "K"),
)
def test_sign_in_tries_sources_in_order(named: str, answers: Answers, tried: str) -> None:
    scene = Scene(*answers, **ALL, **{NAMED: named}).keep(token="", refresh="older")
    scene.brought, scene.printed = {"error": "access_denied"}, ["no token"] * 2
    with pytest.raises(ka.ArtifactsError) as caught:
        ka.sign_in(CHALLENGE, scene.world)
    assert "".join(line.strip()[0] for line in str(caught.value).splitlines()) == tried
    assert (scene.answers, bool(scene.opened)) == ([], "b" in tried)


def test_sign_in_keeps_a_refresh_token_although_the_exchange_fails() -> None:
    scene = Scene(REFUSED, GRANTED, BY_POLICY, DISPLAY=":0").having(brought=CODE)
    with pytest.raises(ka.ArtifactsError, match="VS403463"):
        ka.credential_for(FEED, scene.world)
    assert scene.kept() == ("", "refresh", NOW + 60, 1e11, RENEWAL)


@pytest.mark.parametrize("name", SILENT.split())
def test_sign_in_asks_nobody_in_silence(name: str) -> None:
    for value in ("1", "true", "True", "yes"):
        scene = Scene(DISPLAY=":0", TERM="x", **{name: value})
        with pytest.raises(ka.ArtifactsError, match=name):
            ka.sign_in(CHALLENGE, scene.world)
    for value in ("", " ", "0", "false", "False", "no", "off"):
        assert ka.silence(FEED, {name: value}) == ""
    assert ka.silence(FEED._replace(bare=True), {}) != ""


@table(
    "environ told",
    desk=({}, f"keyring get {URL} "),
    pipeline=({"TF_BUILD": "True", "CI": "1"}, r"SYSTEM_ACCESSTOKEN: \$\(System.AccessToken\)' in"),
    others=({"TF_BUILD": "1", **OF_FABRIKAM}, "'fabrikam'.*AzureCLI@2"),
    github=({"GITHUB_ACTIONS": "true", "CI": "true"}, "id-token: write"),
    ci=({"CI": "true"}, "AZURE_DEVOPS_EXT_PAT"),
)
def test_advice_fits_the_place(environ: Env, told: str) -> None:
    text = ka.advice(CHALLENGE, ka.silence(FEED, environ), environ)
    assert re.search(f"'contoso'.*{told}", text)


def test_credential_for_an_application_lasts_in_memory_alone() -> None:
    scene = Scene(challenged(LOGIN), GRANTED, OPEN, **BY_SECRET)
    found = [ka.credential_for(FEED, scene.world) for _ in range(2)]
    assert [each.password for each in found if each] == [PERSON] * 2
    assert (scene.asked(), scene.store.kept) == ([FEEDS, ENTRA, FEEDS], "")
    assert [request.limit for request in scene.requests] == [0, 262144, 0]
    assert all(each.headers["X-TFS-FedAuthRedirect"] == "Suppress" for each in scene.requests)


def test_credential_for_an_application_leaves_the_users_entry_alone() -> None:
    for_a_day = answer(200, {"access_token": PERSON, "expires_in": 86400})
    answers = (challenged(LOGIN), for_a_day, OPEN, OPEN, REFUSED, challenged(LOGIN), BROKEN)
    scene = Scene(*answers, **BY_SECRET).keep(checked=NOW + 7300, expires=NOW + 9000)
    users, found = scene.store.kept, []
    for scene.time in (NOW, NOW + 3700, NOW + 7400):  # accepted, and refused when asked again
        credential = ka.credential_for(FEED, scene.world)
        found.append(credential and credential.password)
        assert scene.store.kept == users
    assert (found, len(scene.asked())) == ([PERSON, PERSON, SESSION], len(answers))


def test_credential_for_waits_with_those_in_the_same_case() -> None:
    cases = set()

    def lock(case: str) -> Any:
        cases.add(case)
        raise ka.ArtifactsError("nobody signs in here")

    places: list[Env] = [{}, {"CI": "1"}, {"TERM": "x"}, BY_SECRET]
    for found, environ, url in itertools.product((OPEN, REFUSED), places, (URL, ABOVE)):
        world = Scene(found, **environ).world
        world.lock = lock
        with contextlib.suppress(ka.ArtifactsError):
            ka.credential_for(ka.Feed("contoso", url), world)
    assert len(cases) == 8


def test_credential_for_one_who_waited_looks_again() -> None:
    scene = Scene(REFUSED)
    scene.world.lock = lambda _: contextlib.nullcontext(scene.keep())
    assert ka.credential_for(FEED, scene.world)


def test_credential_for_a_public_feed_asks_nobody() -> None:
    scene = Scene(OPEN, DISPLAY=":0", TERM="x")
    assert ka.credential_for(FEED, scene.world) is None
    assert (scene.asked(), scene.opened, scene.notices) == ([FEEDS], [], [])
    scene = Scene(OPEN, ISSUED).having(printed=[PERSON])
    assert [ka.credential_for(FEED, scene.world) is None for _ in range(2)] == [False, False]
    assert scene.kept() == (SESSION, "session", NOW, NOW + 7200, "")


def test_backend_tells_of_an_internal_error_and_never_raises() -> None:
    backend: Any = Scene(ZeroDivisionError())  # has a `world`, as the backend has
    assert ka.ArtifactsKeyringBackend.get_credential(backend, FEED.url, "me") is None
    assert "ZeroDivisionError" in backend.notices[0]


# --- store and lock --------------------------------------------------------------------------


class Ring(dict[tuple[str, ...], str]):  # another keyring; each write raises its `error`
    def __init__(self, priority: float = 5, error: Exception | None = None) -> None:
        self.priority, self.error = priority, error

    def get_password(self, *key: str) -> str | None:
        return self.get(key)

    def set_password(self, service: str, user: str, password: str) -> None:
        if self.error:
            raise self.error
        self[service, user] = password

    def delete_password(self, *key: str) -> None:
        if self.pop(key, None) is None:
            raise keyring.errors.PasswordDeleteError


@pytest.fixture
def rings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Ring]:
    """What keyring finds on this machine, for the test to fill; its data folder is a new one."""
    found: list[Ring] = []
    monkeypatch.setattr(keyring.backend, "get_all_keyring", lambda: found)
    monkeypatch.setattr("keyring.util.platform_.data_root", lambda: tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # nothing goes to the real terminal
    return found


def test_store_is_the_best_other_keyring(rings: list[Ring], tmp_path: Path) -> None:
    rings += map(Ring, (0.5, 1, 8.9, 5, 9))
    store, later = ka.Store(), ka.Store()
    assert store.write("contoso", "text", "plain")
    assert [len(ring) for ring in rings] == [0, 0, 1, 0, 0]
    assert (later.read("contoso"), list(tmp_path.rglob("*"))) == ("text", [])
    rings[2].clear()
    assert (later.read("contoso", again=True), store.read("contoso")) == ("text", "")
    assert not ka.Store(keeps=False).write("contoso", "text", "plain")
    rings[3].set_password("keyrings.artifacts/contoso", "1", "1:older")
    assert (store.read("contoso", again=True), store.erase("contoso")) == ("older", True)
    assert (rings[3], store.erase("contoso"), later.erase("contoso")) == ({}, False, True)
    del rings[1:4]
    assert not store.write("contoso", "text", "")


def test_store_leaves_a_place_that_fails_alone(capsys: Any, rings: list[Ring]) -> None:
    broken = type("BrokenRing", (Ring,), {})
    forgetful = type("ForgetfulRing", (Ring,), {"get_password": lambda *_: None})
    rings += [broken(8, OSError(SECRET)), Ring(7, keyring.errors.PasswordSetError())]
    rings += [forgetful(6), Ring(5)]
    store = ka.Store()
    assert [store.write("contoso", str(each), "") for each in range(2)] == [True, True]
    told = capsys.readouterr().err
    assert (told.count("BrokenRing"), told.count("\n"), SECRET in told) == (1, 1, False)
    assert list(rings[3].values()) == ["1:1"]
    rings.append(Ring(None))  # type: ignore[arg-type]  # a keyring that cannot even be asked
    assert ka.Store().write("contoso", "text", "plain")


def test_place_writes_the_head_of_a_split_text_last(monkeypatch: pytest.MonkeyPatch) -> None:
    ring, text = Ring(), "0123456789" * 300
    with monkeypatch.context() as on_windows:
        on_windows.setattr(os, "name", "nt")
        ka.Place(ring).write("contoso", text, "")
    sizes = [(user, len(part)) for (_, user), part in ring.items()]
    assert sizes == [("3", 600), ("2", 1200), ("1", 1202)]
    assert ka.Place(ring).read("contoso") == text
    part = ring.pop(("keyrings.artifacts/contoso", "2"))
    assert ka.Place(ring).read("contoso") is None
    ring["keyrings.artifacts/contoso", "2"] = part
    assert (ka.Place(ring).erase("contoso"), ring) == (True, {})


@pytest.mark.usefixtures("rings")
def test_sign_in_lock_shares_a_failure_with_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, begun, may_fail = itertools.count(1, 1000), threading.Semaphore(0), threading.Event()
    said = list[str]()

    def now() -> float:  # much later at each look
        begun.release()
        return next(ticks)

    def look_up(organization: str) -> None:
        try:
            with ka.sign_in_lock(organization):
                said.append(f"{organization} tried")
                assert may_fail.wait(30)
                raise ka.ArtifactsError(f"{organization} failed")
        except ka.ArtifactsError as error:
            said.append(str(error))

    monkeypatch.setattr(time, "time", now)
    threads = [threading.Thread(target=look_up, args=name) for name in "aab"]
    for thread in threads:
        thread.start()
        assert begun.acquire(timeout=30)
    may_fail.set()
    for thread in threads:
        thread.join(30)
    assert sorted(said) == ["a failed", "a failed", "a tried", "b failed", "b tried"]
    for begins in (50, 1000, 100):  # the second by a clock that is ahead
        ticks = itertools.count(begins)
        look_up("a")
    assert said[5:] == ["a tried", "a failed"] * 3


# --- effects, and what holds for the whole module --------------------------------------------

MODULE = ast.parse(Path(ka.__file__).read_text(encoding="utf-8"))
IMPORTED = """__future__ base64 collections.abc contextlib datetime hashlib json keyring.backend
keyring.credentials keyring.errors os pathlib re shlex subprocess sys threading time traceback
typing urllib.parse"""
PASSED_ON = {"IDENTITY_HEADER"}  # az may need it
HARMLESS = """_FILE _DIR _BUNDLE _CERT _URL URI _PREFIXES _HOST _ENDPOINT ID _SOURCES _COMMAND _MODE
_LOGLEVEL _BACKEND _PROVIDER _BUILD _ACTIONS _INPUT _TTY _CONNECTION DISPLAY _NAME _COLOR BROWSER
NETRC PATH O_NOFOLLOW O_NONBLOCK CREATE_NO_WINDOW"""  # ends of names of what holds no credential


def test_within_some_seconds() -> None:
    assert ka.within(30, max, 1, 2) == 2
    with pytest.raises(TimeoutError):
        ka.within(0.01, threading.Event().wait)
    for function, error in ((int, ValueError), (pytest.fail, RuntimeError)):
        with pytest.raises(error):
            ka.within(30, function, "x")
    assert (ka.PATIENT_SECONDS, ka.REQUEST_SECONDS) == (30, 10)


def test_child_environ_has_no_secret_and_no_relative_path() -> None:
    told = {"AZURE_CONFIG_DIR": "here", "PIP_CERT": "here", "EMPTY_DIR": "", "IDENTITY_HEADER": "a"}
    others = (*ka.SECRET_VARIABLES, "UV_INDEX_FEED_PASSWORD", "TWINE_PASSWORD")
    child = ka.child_environ({**told, **{name.title(): SECRET for name in others}})
    assert child.keys() - {"NO_COLOR", "AZURE_CORE_NO_COLOR"} == told.keys()
    assert child == {**child, **told, "AZURE_CONFIG_DIR": os.path.abspath("here")}


def test_install_command_fits_the_place() -> None:
    found = [ka.install_command(f"/x/{at}/keyring") for at in ("pipx/y", "uv/tools", "y z")]
    assert found[:2] == [
        'pipx inject keyring "keyrings.artifacts>=2"',
        'uv tool install keyring --with "keyrings.artifacts>=2"',
    ]
    assert re.fullmatch(r'".*/x/y z/python" -m pip install "keyrings.artifacts>=2"', found[2])


def strings(node: ast.AST, form: str) -> set[str]:
    found = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return {each.upper() for each in found if isinstance(each, str) and re.fullmatch(form, each)}


def test_secret_variables_are_all_that_hold_a_credential() -> None:
    names = strings(MODULE, "[A-Z0-9]+(_[A-Z0-9]+)+")
    for call in (node for node in ast.walk(MODULE) if isinstance(node, ast.Call)):
        if re.search(r"\b(first|first_name|environ\.get)$", ast.unparse(call.func)):
            names |= strings(call, r"\w+")
    kept_back = {name for name in names if not name.endswith(tuple(HARMLESS.split()))}
    assert kept_back - PASSED_ON == set(ka.SECRET_VARIABLES), "add it there, or to HARMLESS"


def test_module_has_no_state_and_imports_nothing_heavy() -> None:
    for node in MODULE.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            assert ast.unparse(node).split()[1] in IMPORTED.split()
        elif not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Expr, ast.If)):
            assert re.match(r"\w+: Final\b|__(version|all)__ = ", ast.unparse(node))
    assert not any(isinstance(node, (ast.Global, ast.Nonlocal)) for node in ast.walk(MODULE))


def test_version_is_the_readmes() -> None:
    assert set(re.findall(r"keyrings_artifacts-([\d.]+)-py3", README)) == {ka.__version__}


# --- outside data ----------------------------------------------------------------------------

PIECES = """access_token token expires_in exp error validTo upn endpointCredentials evil.example
pkgs.dev.azure.com /contoso contoso.pkgs.visualstudio.com https:// @ : / \\ # ? . .. %2e [ ] { ,"""
SAMPLES = [*PIECES.split(), "\t", " ", PERSON, TENANT, TODAY, LOGIN]
PIECE = st.sampled_from(SAMPLES) | st.text(max_size=3)
TEXT = st.lists(PIECE, max_size=8).map("".join)
LEAF = st.none() | st.booleans() | st.floats() | TEXT
JSON = st.recursive(LEAF, lambda each: st.lists(each) | st.dictionaries(PIECE, each), max_leaves=6)
FAST = settings(max_examples=100, deadline=None)


@FAST
@given(st.sampled_from([200, 203, 303, 400, 401, 403, 404]), TEXT, JSON | st.binary())
def test_outside_data_raises_nothing_but_our_error(status: int, text: str, body: object) -> None:
    headers = ("www-authenticate", "x-vss-resourcetenant", "x-vss-authorizationendpoint", "date")
    response = answer(status, body, **dict.fromkeys(headers, text))
    told, written = ka.parse_object(response.body), ka.text_of(response.body)
    assert [ka.read_session_token(response, NOW), ka.read_session(written)]
    assert re.fullmatch(r"(TF|VS)?\d+", ka.refusal_code(response))
    assert len(ka.error_code(told)) < 100
    for outside in (text, written):
        assert ka.shown(outside).isprintable()
        ka.read_bearer("az", {"token": PERSON, **ka.find_token(outside)}, NOW)
        assert [ka.parse_date(outside), ka.number(outside), ka.claims(outside)]
        with contextlib.suppress(ka.ArtifactsError):
            ka.closest_endpoint(FEED, {ENDPOINTS: outside})
    with contextlib.suppress(ka.ArtifactsError):
        assert ka.read_challenge(FEED, response).tenant in (TENANT, "organizations")
    with contextlib.suppress(ka.ArtifactsError):
        ka.read_bearer("az", told, NOW)


@FAST
@given(TEXT)
def test_parse_feed_trusts_no_look_alike(service: str) -> None:
    feed = ka.parse_feed(service)
    if feed:
        host = urlsplit(feed.url).netloc
        assert host == urllib3.util.parse_url(feed.url).netloc
        assert re.fullmatch(r"pkgs\.dev\.azure\.com|[a-z0-9-]+\.pkgs\.visualstudio\.com", host)
        assert ka.parse_feed(feed.url) == feed._replace(bare=False)


# Stand-ins.  `Services` plays, on one loopback port, every host that Azure Artifacts is made of:
# real TLS behind an ordinary CONNECT proxy, plain http for the endpoints of managed identities.
# Conditions are plain attributes. `Machine` is a poor Linux computer, which has no other way out.

ARTIFACTS_CLIENT = "d5a56ea4-7369-46b8-a538-c370805301bf"
CONTOSO_TENANT = "11111111-1111-4111-8111-111111111111"
FABRIKAM_TENANT = "22222222-2222-4222-8222-222222222222"
NO_TENANT = "00000000-0000-0000-0000-000000000000"  # what feeds of personal accounts send
PERSONAL_TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"  # where those accounts are
TENANT_ALIASES = ("organizations", "common", "consumers")
FEDERATED_AUDIENCE = "api://AzureADTokenExchange"
GITHUB = ("https://token.actions.githubusercontent.com", "repo:contoso/app:ref:refs/heads/main")
PIPELINE = ("https://vstoken.dev.azure.com/33333333", "sc://contoso/p/feeds")
CLUSTER = ("https://oic.prod-aks.azure.com/44444444/", "system:serviceaccount:builds:installer")
JWT_KEY = secrets.token_bytes(32)
JSON_TYPE = ("Content-Type", "application/json; charset=utf-8")
HTML_TYPE = ("Content-Type", "text/html; charset=utf-8")
Environ = Optional[Mapping[str, str]]
SECRET_FIELDS = ("code", "code_verifier", "device_code", "refresh_token", "client_assertion")
BLOBS = "https://pkgsprodsu3weu.blob.core.windows.net"
BASIC = 'Basic realm="https://pkgsprodsu3weu.pkgs.visualstudio.com/"'
POLICY = "VS403463: The conditional access policy defined by your administrator has failed."
Handler = Callable[["Recorded"], "Reply"]
FEED_PATH = re.compile(r"([^/]*)(?:.*/_packaging/([^/@]+)[^/]*/pypi/(\w+)/?(.*)|.*)")


@dataclasses.dataclass
class Recorded:
    """One request as a service saw it; `status` is 0 until it is answered."""

    host: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = dataclasses.field(repr=False)  # by lower-case name
    body: bytes = dataclasses.field(repr=False)
    status: int = 0

    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def credential(self) -> tuple[str, str]:
        """Scheme and secret of the Authorization header; the user name does not matter."""
        scheme, _, secret = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            secret = base64.b64decode(secret).decode().partition(":")[2]
        return scheme.lower(), secret


class Reply(NamedTuple):
    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    manner: str = ""  # of sending it: "drop", "cut", "hang" or "drip"
    repeat: int = 1  # how often the body is sent


@dataclasses.dataclass
class Fault:
    """What goes wrong with the next `times` requests that match.

    `what` is a status, a whole Reply, or "drop" (no answer), "cut" (in the middle of the body),
    "hang", or "drip" (a byte a second).
    """

    what: int | str | Reply
    host: str = ""  # all of it
    path: str = ""  # a part of it
    body: str = ""  # a part of it, such as "grant_type=refresh_token"
    times: float = math.inf

    def reply(self, request: Recorded, regular: Callable[[], Reply]) -> Reply | None:
        """The answer in place of the regular one, which is not made where it would not be sent."""
        matches = self.host in ("", request.host) and self.path in request.path
        if self.times <= 0 or not matches or self.body.encode() not in request.body:
            return None
        self.times -= 1
        if isinstance(self.what, Reply):
            return self.what
        if isinstance(self.what, int):
            return Reply(self.what)
        gone = self.what in ("drop", "hang")
        return (Reply(0) if gone else regular())._replace(manner=self.what)


def json_reply(value: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), (JSON_TYPE,))


def devops_error(status: int, text: str, *headers: tuple[str, str], key: str = "Error") -> Reply:
    body = json.dumps({"$id": "1", "message": text, "typeKey": f"{key}Exception", "errorCode": 0})
    return Reply(status, body.encode("utf-8-sig"), (JSON_TYPE, *headers))  # as there, with a BOM


def entra_error(error: str, code: int, text: str, **more: str) -> Reply:
    """An error of the sign-in service, such as "interaction_required", 50076 and "Use MFA."."""
    described = f"AADSTS{code}: {text}\r\nTrace ID: {uuid.uuid4()}\r\nTimestamp: 2026-01-01"
    value = {"error": error, "error_description": described, "error_codes": [code], **more}
    return json_reply(value, 401 if error == "invalid_client" else 400)


def first_error(error: str, *checks: tuple[object, int, str]) -> Reply | None:
    return next((entra_error(error, *check[1:]) for check in checks if check[0]), None)


@dataclasses.dataclass(eq=False)
class Account:
    """A person, or an application (a service principal or a managed identity)."""

    name: str
    tenant: str
    guest_of: set[str] = dataclasses.field(default_factory=set)  # tenants
    client_id: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    secret: str = dataclasses.field(default_factory=secrets.token_urlsafe, repr=False)
    refresh_tokens: set[str] = dataclasses.field(default_factory=set, repr=False)  # live ones

    @property
    def kind(self) -> str:
        return "person" if "@" in self.name else "application"


class Token(NamedTuple):
    """A secret that the services gave out and know again; to revoke it, remove it."""

    kind: str  # "entra", "session" or "PAT"
    account: Account
    expires: float
    organization: str = ""  # of a session or a PAT
    tenant: str = ""  # of an Entra token
    audience: str = ""  # likewise


@dataclasses.dataclass
class SignIn:
    """What an authorization code or a device code stands for."""

    tenant: str = ""
    asked: Mapping[str, str] = dataclasses.field(default_factory=dict)  # in the request for it
    expires: float = 0.0
    account: Account | None = None  # of a device: once somebody has entered the code
    user_code: str = ""
    interval: float = 0.0
    last_poll: float = -math.inf
    declined: bool = False
    used: bool = False


@dataclasses.dataclass(eq=False)
class Organization:
    """An organization, its feed, members and policies; tests change the attributes at will."""

    name: str
    tenant: str | None  # None: one of personal accounts
    feeds: tuple[str, ...] = ("feed", "55555555-5555-4555-8555-555555555555")  # of the same files
    files: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)  # by package
    public: bool = False
    upstream: bool = False  # what it has not saved yet, it fetches for people who are signed in
    members: set[str] = dataclasses.field(default_factory=set)  # names of accounts, as below
    never_signed_in: set[str] = dataclasses.field(default_factory=set)
    refused_by_policy: set[str] = dataclasses.field(default_factory=set)  # 403 with VS403463
    authorization_uri: str = ""  # what the challenge says in place of the usual, as below
    authorization_endpoint: str = ""
    max_session_hours: float = 24.0  # whoever asks for more is refused

    def admits(self, token: Token) -> bool:
        fits = token.organization == self.name
        if token.kind == "entra":
            fits = (token.audience, token.tenant) == (RESOURCE, self.tenant or PERSONAL_TENANT)
        return fits and token.account.name in self.members

    def add_wheel(self, name: str, version: str = "1.0") -> None:
        """Publish a wheel with one module, whose `hello()` says its name."""
        info, content = f"{name}-{version}.dist-info", io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            add = archive.writestr
            add(f"{name}.py", f'def hello():\n    return "Hello from {name} {version}"\n')
            add(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            add(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            add(f"{info}/RECORD", "".join(f"{path},,\n" for path in archive.namelist()))
        self.files.setdefault(name, {})[f"{name}-{version}-py3-none-any.whl"] = content.getvalue()

    def marks(self) -> tuple[tuple[str, str], ...]:
        """The headers by which Azure DevOps is known."""
        endpoint = self.authorization_endpoint or f"https://vssps.dev.azure.com/{self.name}/"
        tenant = ("X-VSS-ResourceTenant", self.tenant or NO_TENANT)
        return (tenant, ("X-VSS-AuthorizationEndpoint", endpoint), ("X-VSS-E2EID", RESOURCE))

    def refusal(self, scheme: str) -> Reply:
        """The answer to no credential, or to one that is expired, revoked or unknown."""
        uri = self.authorization_uri or f"https://login.microsoftonline.com/{self.tenant}"
        value = f"Bearer authorization_uri={uri}, {BASIC}, TFS-Federated"
        value = value if self.tenant else f"{BASIC}, Bearer, TFS-Federated"
        value = {"": value, "basic": BASIC}.get(scheme, "Bearer")
        text = "TF400813: The user is not authorized to access this resource."
        return devops_error(401, text, ("WWW-Authenticate", value), *self.marks())


class Directory:
    """Who there is, what they may do, which secrets were made, and what time it is."""

    def __init__(self) -> None:
        self.clock = 0.0  # seconds that are added to real time
        self.secrets: dict[str, str] = {}  # value -> kind
        self.tokens: dict[str, Token] = {}
        self.sign_ins: dict[str, SignIn] = {}  # by code
        self.blobs: dict[str, bytes] = {}
        self.accounts: dict[str, Account] = {}
        self.organizations: dict[str, Organization] = {}
        self.browser_person: Account | None = None  # who is signed in there
        self.browser_error = ""  # what a sign-in there ends with, such as "access_denied"
        self.device_interval, self.device_lifetime = 1.0, 900.0
        self.identity: Account | None = None  # of the machine
        self.assigned_identities: list[Account] = []
        self.identity_header = self.note("identity header", secrets.token_urlsafe(30))
        self.job_token = self.note("job token", secrets.token_urlsafe(40))
        self.connection_id = str(uuid.uuid4())

    def organization(self, name: str, tenant: str | None, *packages: str) -> Organization:
        self.organizations[name] = organization = Organization(name, tenant)
        for package in packages:
            organization.add_wheel(package)
        return organization

    def account(self, name: str, tenant: str, *member_of: Organization) -> Account:
        """A person; what has no @ in its name is an application."""
        self.accounts[name] = account = Account(name, tenant)
        self.note("client_secret", account.secret)
        for organization in member_of:
            organization.members.add(name)
        return account

    def device(self, user_code: str) -> SignIn:
        """The sign-in of a device: set `account` to approve it, or `declined`."""
        return next(each for each in self.sign_ins.values() if each.user_code == user_code)

    def now(self) -> float:
        return time.time() + self.clock

    def note(self, kind: str, value: str) -> str:
        """Remember a secret; a few characters are none, as they would be found everywhere."""
        if len(value) >= 12:
            self.secrets.setdefault(value, kind)
        return value

    def jwt(self, lifetime: float, **claims: str) -> str:
        """A JWT that differs from all others from the first of its claims on."""
        times = {"iat": int(self.now()), "exp": int(self.now() + lifetime)}
        return jwt.encode({"jti": secrets.token_hex(16), **claims, **times}, JWT_KEY, "HS256")

    def entra_token(
        self, account: Account, tenant: str = "", audience: str = RESOURCE, lifetime: float = 3900
    ) -> str:
        tenant, own = tenant or account.tenant, account.client_id
        person = {"scp": "user_impersonation", "upn": account.name, "appid": ARTIFACTS_CLIENT}
        claims = person if account.kind == "person" else {"idtyp": "app", "sub": own, "appid": own}
        value = self.jwt(lifetime, aud=audience, tid=tenant, oid=own, **claims)
        expires = self.now() + lifetime
        self.tokens[value] = Token("entra", account, expires, "", tenant, audience)
        return self.note("entra", value)

    def devops_token(
        self, kind: str, account: Account, organization: str = "contoso", lifetime: float = 86400
    ) -> str:
        """A session token; or a PAT of 84 characters, with the marker that scanners look for."""
        value = self.jwt(lifetime, scp="vso.packaging_write")
        if kind == "PAT":
            value = f"{secrets.token_hex(38)}AZDO{secrets.token_hex(2)}"
        self.tokens[value] = Token(kind, account, self.now() + lifetime, organization)
        return self.note(kind, value)

    pat = functools.partialmethod(devops_token, "PAT")
    session_token = functools.partialmethod(devops_token, "session")

    def live(self, value: str) -> Token | None:
        token = self.tokens.get(value)
        return token if token and token.expires > self.now() else None

    def accepts(self, value: str, organization: str = "contoso") -> bool:
        token = self.live(value)
        return token is not None and self.organizations[organization].admits(token)


class AzureDevOps(Directory):
    """Feeds, the store of their files, and the service of session tokens."""

    def feed_service(self, request: Recorded) -> Reply:
        """Serve `[/ORGANIZATION][/PROJECT]/_packaging/FEED/pypi/{simple,download,upload}/...`."""
        legacy = request.host != "pkgs.dev.azure.com"
        place = request.host.partition(".")[0] + request.path if legacy else request.path[1:]
        match = FEED_PATH.fullmatch(unquote(place))
        name, feed, action, tail = match.groups("") if match else ("", "", "", "")
        organization = self.organizations.get(name.lower())
        if organization is None:
            return devops_error(404, f"No organization '{name}'.", key="ServiceHostDoesNotExist")
        package, (scheme, secret) = tail.partition("/")[0], request.credential()
        token = self.live(secret)
        if token is None or not organization.admits(token):
            saved = package in ("", *organization.files) or not organization.upstream
            if scheme or not organization.public or not saved or action == "upload":
                return organization.refusal(scheme)
        elif token.account.name in organization.refused_by_policy:
            return devops_error(403, POLICY)
        if feed not in organization.feeds:
            return devops_error(404, f"There is no feed with ID '{feed}'.", key="FeedIdNotFound")
        if action == "upload":
            return self.upload(organization, request)
        if action == "simple":
            return self.simple_page(organization, package)
        return self.download(organization.files[package][tail.rpartition("/")[2]])

    def simple_page(self, organization: Organization, package: str) -> Reply:
        """The index of PEP 503, whose links name the feed by its GUID."""
        links = {name: f"{name}/" for name in organization.files}
        if package:
            feed = f"{organization.name}/_packaging/{organization.feeds[-1]}"
            base = f"https://pkgs.dev.azure.com/{feed}/pypi/download/{package}"
            files = organization.files.get(package, ())
            links = {name: f"{base}/{name.split('-')[1]}/{name}" for name in files}
        if package and not links:
            return devops_error(404, f"There is no package '{package}'.", key="PackageNotFound")
        page = "\n".join(f'<a href="{links[name]}">{name}</a>' for name in links)
        return Reply(200, page.encode(), (HTML_TYPE, *organization.marks()))

    def download(self, content: bytes) -> Reply:
        """Send the client to the blob store, whose links are secret and take no credential."""
        path = "/" + self.note("link to a blob", secrets.token_hex(16))
        self.blobs[path] = content
        return Reply(303, headers=(("Location", BLOBS + path),))

    def blob_service(self, request: Recorded) -> Reply:
        return Reply(400 if "authorization" in request.headers else 200, self.blobs[request.path])

    def upload(self, organization: Organization, request: Recorded) -> Reply:
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        parts = email.message_from_bytes(head + request.body).walk()
        fields = {part.get_param("name", header="content-disposition"): part for part in parts}
        content: Any = fields["content"].get_payload(decode=True)
        filename = str(fields["content"].get_filename())
        files = organization.files.setdefault(str(fields["name"].get_payload()), {})
        status = 409 if filename in files else 200
        files.setdefault(filename, content)
        return Reply(status)

    def token_service(self, request: Recorded) -> Reply:
        name, path = request.host.partition(".")[0], request.path[1:]
        if request.host == "vssps.dev.azure.com":
            name, _, path = path.partition("/")
        name = "contoso" if name == "app" else name  # which serves all of them
        organization = self.organizations.get(name.lower())
        if organization is None:
            return devops_error(404, f"No organization '{name}'.", key="ServiceHostDoesNotExist")
        scheme, secret = request.credential()
        token = self.live(secret)
        if token is None or (scheme, token.account.kind) != ("bearer", "person"):
            return organization.refusal("bearer")
        person = token.account.name
        if person in organization.never_signed_in:
            return devops_error(401, f"TF401444: Please sign-in at least once as {person}.")
        if token.kind != "entra" or not organization.admits(token):
            return organization.refusal("bearer")
        if person in organization.refused_by_policy:
            return devops_error(403, POLICY)
        asked = (request.method, path.lower(), request.query.get("tokenType"))
        if asked != ("POST", "_apis/token/sessiontokens", "SelfDescribing"):
            return devops_error(400, "Only self-describing session tokens are made here.")
        return self.session(organization, token.account, json.loads(request.body))

    def session(self, organization: Organization, account: Account, body: Any) -> Reply:
        lifetime = 86400.0
        if body.get("scope") != "vso.packaging_write":
            return devops_error(400, f"Invalid scope '{body.get('scope')}'.")
        if body.get("validTo"):
            until = datetime.datetime.strptime(body["validTo"][:19] + "Z", "%Y-%m-%dT%H:%M:%S%z")
            lifetime = until.timestamp() - self.now()
            if not 0 < lifetime <= min(organization.max_session_hours, 24) * 3600 + 60:
                return devops_error(400, "validTo is not acceptable.", key="ArgumentOutOfRange")
        end = datetime.datetime.fromtimestamp(self.now() + lifetime, datetime.timezone.utc)
        value = self.session_token(account, organization.name, lifetime)
        valid_to = end.strftime("%Y-%m-%dT%H:%M:%S.%f0Z")  # seven digits, as there
        return json_reply({"token": value, "validTo": valid_to, "alternateToken": None})


class Entra(Directory):
    """The sign-in service, the issuers of other tokens, and the identities of machines."""

    def sign_in_service(self, request: Recorded) -> Reply:
        """Serve `/TENANT/oauth2/v2.0/{authorize,devicecode,token}`."""
        tenant, _, path = request.path[1:].partition("/oauth2/v2.0/")
        form = request.query if path == "authorize" else request.form()
        serve = {
            "authorize": self.authorize,
            "devicecode": self.device_code,
            "token authorization_code": self.redeem_code,
            "token urn:ietf:params:oauth:grant-type:device_code": self.redeem_device,
            "token refresh_token": self.redeem_refresh,
            "token client_credentials": self.redeem_application,
        }.get(f"{path} {form.get('grant_type', '')}".strip())
        known = {*TENANT_ALIASES, *(each.tenant for each in self.accounts.values())}
        wrong = form.get("client_id") != ARTIFACTS_CLIENT and serve != self.redeem_application
        scope = form.get("scope", SCOPE).split()
        error = first_error(
            "invalid_request",
            (serve is None, 90014, "The request is malformed."),
            (tenant not in known, 90002, f"Tenant '{tenant}' not found."),
            (wrong, 700016, "Application was not found."),
            (SCOPE not in scope, 65002, "The scope is not preauthorized."),
        )
        return error or serve(tenant, form)  # type: ignore[misc]  # None is an error above

    def authorize(self, tenant: str, query: Mapping[str, str]) -> Reply:
        """The page of a person who is signed in already: its form leads back at once."""
        redirect = query.get("redirect_uri", "")
        if not re.fullmatch(r"http://localhost:\d+/?", redirect):
            return Reply(400, b"AADSTS50011: The redirect URI does not match.")
        answer = {"state": query.get("state", "")}
        asked = (query.get("response_type"), query.get("code_challenge_method"))
        valid = asked == ("code", "S256") and len(answer["state"]) > 15
        if self.browser_error or not valid:
            error = self.browser_error or "invalid_request"
            answer.update(error=error, error_description=f"AADSTS65004: {error}")
        else:
            code = answer["code"] = self.note("code", secrets.token_urlsafe(60))
            self.sign_ins[code] = SignIn(tenant, query, self.now() + 600, self.browser_person)
        if query.get("response_mode") != "form_post":
            return Reply(302, headers=(("Location", f"{redirect}?{urlencode(answer)}"),))
        page = f'<form method="POST" action="{redirect}">'
        for name, text in answer.items():
            page += f'<input name="{name}" value="{html.escape(text)}"/>'
        return Reply(200, page.encode(), (HTML_TYPE,))

    def tokens_for(self, account: Account | None, tenant: str, scope: str) -> Reply:
        """The answer to every grant.  A new refresh token does not end the life of the old one."""
        assert account is not None
        tenant = account.tenant if tenant in TENANT_ALIASES else tenant
        if tenant not in (account.tenant, *account.guest_of):
            return entra_error("invalid_grant", 50020, "The account is not in the tenant.")
        token = self.entra_token(account, tenant)
        value = {"token_type": "Bearer", "expires_in": 3900, "access_token": token}
        if "offline_access" in scope.split():
            value["refresh_token"] = secrets.token_urlsafe(700)
            account.refresh_tokens.add(self.note("refresh_token", str(value["refresh_token"])))
        return json_reply(value)

    def redeem_code(self, tenant: str, form: Mapping[str, str]) -> Reply:
        kept = self.sign_ins.get(form.get("code", ""), SignIn())
        asked, verifier = kept.asked.get, form.get("code_verifier", "")
        digest = jwt.utils.base64url_encode(hashlib.sha256(verifier.encode()).digest()).decode()
        error = first_error(
            "invalid_grant",
            (kept.account is None, 70000, "The code is not valid."),
            (kept.used, 54005, "The code was already redeemed."),
            (kept.expires <= self.now(), 70008, "The code has expired."),
            (asked("redirect_uri") != form.get("redirect_uri"), 50011, "Another redirect URI."),
            (asked("code_challenge") != digest, 501481, "The verifier does not match."),
            (kept.tenant != tenant, 700005, "The code is for another tenant."),
        )
        kept.used = True
        return error or self.tokens_for(kept.account, tenant, kept.asked["scope"])

    def device_code(self, tenant: str, form: Mapping[str, str]) -> Reply:
        code, page = secrets.token_urlsafe(60), "https://microsoft.com/devicelogin"
        kept = SignIn(tenant, form, self.now() + self.device_lifetime)
        kept.user_code, kept.interval = secrets.token_hex(4).upper(), self.device_interval
        self.sign_ins[self.note("device_code", code)] = kept
        message = f"To sign in, open the page {page} and enter the code {kept.user_code}."
        times = {"expires_in": int(self.device_lifetime), "interval": int(kept.interval)}
        shown = {"user_code": kept.user_code, "verification_uri": page, "message": message}
        return json_reply({"device_code": code, **shown, **times})

    def redeem_device(self, tenant: str, form: Mapping[str, str]) -> Reply:
        kept = self.sign_ins.get(form.get("device_code", ""), SignIn())
        early = self.now() - kept.last_poll < kept.interval - 0.5
        kept.last_poll = self.now()
        kept.interval += 5 * early
        for error, wrong in (
            ("bad_verification_code", kept.tenant != tenant or kept.used),
            ("authorization_declined", kept.declined),
            ("expired_token", kept.expires <= self.now()),
            ("slow_down", early),
            ("authorization_pending", kept.account is None),
        ):
            if wrong:
                return entra_error(error, 70016, "There is no token.")
        kept.used = True
        return self.tokens_for(kept.account, tenant, kept.asked["scope"])

    def redeem_refresh(self, tenant: str, form: Mapping[str, str]) -> Reply:
        for account in self.accounts.values():
            if form.get("refresh_token") in account.refresh_tokens:
                return self.tokens_for(account, tenant, form["scope"])
        return entra_error("invalid_grant", 700082, "The refresh token has expired.")

    def redeem_application(self, tenant: str, form: Mapping[str, str]) -> Reply:
        """Client credentials: a secret, or a JWT that another issuer signed."""
        for app in self.accounts.values():
            if app.kind == "application" and app.client_id == form.get("client_id"):
                if "client_assertion" in form:
                    error = self.assertion_error(form)
                else:
                    wrong = form.get("client_secret") != app.secret
                    error = first_error("invalid_client", (wrong, 7000215, "Invalid secret."))
                return error or self.tokens_for(app, tenant, SCOPE)
        return entra_error("unauthorized_client", 700016, "Application was not found.")

    def federated_token(
        self, subject: tuple[str, str], audience: str = FEDERATED_AUDIENCE, lifetime: float = 3600
    ) -> str:
        """A token that an issuer outside of Entra signed: GITHUB, PIPELINE or CLUSTER."""
        value = self.jwt(lifetime, iss=subject[0], sub=subject[1], aud=audience)
        return self.note("client_assertion", value)

    def assertion_error(self, form: Mapping[str, str]) -> Reply | None:
        """What is wrong with an application's proof: a token of another issuer."""
        claims = jwt.decode(form["client_assertion"], options={"verify_signature": False})
        trusted = (claims["iss"], claims["sub"]) in (GITHUB, PIPELINE, CLUSTER)
        return first_error(
            "invalid_client",
            (not form.get("client_assertion_type", "").endswith(":jwt-bearer"), 900144, "No type."),
            (not trusted, 70021, "No matching record found."),
            (claims["aud"] != FEDERATED_AUDIENCE, 700212, "No matching audience."),
            (claims["exp"] <= self.now(), 700024, "Not within its valid time range."),
        )

    def job_service(self, request: Recorded) -> Reply:
        """The token of a job of GitHub Actions, or of Azure Pipelines for its connection."""
        if request.credential() != ("bearer", self.job_token):
            return json_reply({"message": "Bad credentials"}, 401)
        if request.host != "dev.azure.com":
            audience = request.query["audience"]
            return json_reply({"value": self.federated_token(GITHUB, audience, 300)})
        asked = (request.method, request.query.get("serviceConnectionId"))
        if asked != ("POST", self.connection_id):
            return devops_error(404, "No such service connection.")
        return json_reply({"oidcToken": self.federated_token(PIPELINE)})

    def identity_service(self, request: Recorded) -> Reply:
        """A virtual machine and App Service, each under a path of its own."""
        query = request.query
        needed, version = {
            "/metadata/identity/oauth2/token": ("metadata", "2018-02-01"),
            "/msi/token": ("x-identity-header", "2019-08-01"),
        }[request.path]
        named = [who for who in self.assigned_identities if who.client_id == query.get("client_id")]
        account = named[0] if named else None if "client_id" in query else self.identity
        asked = (query.get("api-version"), query.get("resource"))
        proved = request.headers.get(needed) in ("true", self.identity_header)
        if not proved or asked != (version, RESOURCE) or account is None:
            error = {"error": "invalid_request", "error_description": "Identity not found"}
            return json_reply(error, 400)
        expires = str(int(self.now() + 3900))
        return json_reply({"access_token": self.entra_token(account), "expires_on": expires})


class Services(AzureDevOps, Entra):
    def __init__(self) -> None:
        super().__init__()
        self.latency = 0.0  # seconds before each answer
        self.faults: list[Fault] = []
        self.requests: list[Recorded] = []
        self.tunnels: list[str] = []  # targets of CONNECT
        self.mishaps: list[str] = []  # errors of the stand-in itself
        self.proxy_login = ""  # "user:password", where the proxy asks for one
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.server = Server(("127.0.0.1", 0), Connection)
        self.server.services = self
        self.local_url = f"http://127.0.0.1:{self.server.server_address[1]}"  # past the proxy
        self.contoso = self.organization("contoso", CONTOSO_TENANT, "greeting")
        self.fabrikam = self.organization("fabrikam", FABRIKAM_TENANT, "farewell")
        self.ada = self.account("ada@contoso.example", CONTOSO_TENANT, self.contoso)
        self.robot = self.account("robot", CONTOSO_TENANT, self.contoso)
        self.routes: list[tuple[str, Handler]] = [
            (r"pkgs\.dev\.azure\.com|[\w-]+\.pkgs\.visualstudio\.com", self.feed_service),
            (r"[\w-]+\.blob\.core\.windows\.net", self.blob_service),
            (r"vssps\.dev\.azure\.com|[\w-]+\.vssps\.visualstudio\.com", self.token_service),
            (r"login\.microsoftonline\.com", self.sign_in_service),
            (r"127\.0\.0\.1|localhost", self.identity_service),
            (r"pipelines\.actions\.githubusercontent\.com|dev\.azure\.com", self.job_service),
        ]

    def __enter__(self) -> Services:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        assert kind or not self.mishaps, "the stand-in failed:\n" + "\n".join(self.mishaps)

    def variables(self, kind: str) -> dict[str, str]:
        """The variables of "github", "pipeline" or "app service"."""
        url = "https://pipelines.actions.githubusercontent.com/idtoken?api-version=2.0"
        prefix, header, local = ("ACTIONS_ID_TOKEN_REQUEST_", self.identity_header, self.local_url)
        return {
            "github": {f"{prefix}URL": url, f"{prefix}TOKEN": self.job_token},
            "pipeline": {
                "SYSTEM_OIDCREQUESTURI": "https://dev.azure.com/contoso/p/_apis/oidctoken",
                "SYSTEM_ACCESSTOKEN": self.job_token,
                "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID": self.connection_id,
            },
            "app service": {"IDENTITY_ENDPOINT": f"{local}/msi/token", "IDENTITY_HEADER": header},
        }[kind]

    def add_host(self, name: str, handler: Handler) -> None:
        self.routes.insert(0, (re.escape(name), handler))

    def route(self, host: str) -> Handler | None:
        return next((each for name, each in self.routes if re.fullmatch(name, host)), None)

    def asked(self) -> list[str]:
        with self.lock:
            seen = [f"{request.method} {request.host}" for request in self.requests]
            self.requests.clear()
        return seen

    @property
    def proxy_url(self) -> str:
        login = f"{quote(self.proxy_login, safe=':')}@" if self.proxy_login else ""
        return self.local_url.replace("://", f"://{login}")

    def answer(self, request: Recorded) -> Reply:
        """Record a request and answer it; one at a time, but for the latency."""
        time.sleep(self.latency)
        with self.lock:
            self.requests.append(request)
            regular = functools.partial(self.route(request.host) or (lambda _: Reply(502)), request)
            try:
                self.note_sent(request)
                struck = (fault.reply(request, regular) for fault in self.faults)
                reply = next(filter(None, struck), None) or regular()
            except Exception:  # a thread has nobody to raise to: told when the services stop
                self.mishaps.append(traceback.format_exc())
                reply = Reply(500)
            request.status = reply.status
        return reply

    def note_sent(self, request: Recorded) -> None:
        form = request.form() if b"=" in request.body[:4096] else {}
        sent = {name: form[name] for name in SECRET_FIELDS if name in form}
        for name in ("authorization", "x-identity-header"):
            sent[name] = request.headers.get(name, "").rpartition(" ")[2]
        for name, value in {**sent, "password": request.credential()[1]}.items():
            self.note(name, value)


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def tls_context(host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(host).configure_cert(context)
    return context


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
    services: Services

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # as errors of TLS and broken pipes are
            self.services.mishaps.append(traceback.format_exc())


class Connection(http.server.BaseHTTPRequestHandler):
    """A connection: plain http with this machine, or CONNECT and then https with one host."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    host = ""  # at the end of the tunnel

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def do_CONNECT(self) -> None:
        services = self.server.services
        services.tunnels.append(self.path)
        login = base64.b64encode(services.proxy_login.encode()).decode()
        self.host, _, port = self.path.rpartition(":")
        if login and self.headers.get("Proxy-Authorization") != f"Basic {login}":
            self.send(Reply(407, headers=(("Proxy-Authenticate", 'Basic realm="proxy"'),)))
        elif port != "443" or services.route(self.host) is None:
            self.send(Reply(403))
        else:
            # The client says nothing more before it has read this: nothing of it is in `rfile`.
            self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            context = tls_context(self.host)
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb")
            self.close_connection = False

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        host = self.host or self.headers.get("Host", "").partition(":")[0]
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        host = "proxied " + host if url.scheme else host  # in plain http, as nothing should be
        request = Recorded(host, self.command, url.path, query, headers, body)
        self.send(self.server.services.answer(request))

    do_HEAD = do_POST = do_GET  # noqa: N815  http.server's names

    def send(self, reply: Reply) -> None:
        closing = self.server.services.closing
        self.close_connection = bool(reply.manner) or self.close_connection
        if reply.manner == "hang":
            closing.wait()
        if reply.status == 0:
            return
        body = b"" if self.command == "HEAD" else reply.body
        pieces = [body] * reply.repeat
        if reply.manner == "cut":
            pieces = [body[: len(body) // 2]]
        elif reply.manner == "drip":
            pieces = [body[at : at + 1] for at in range(len(body))]
        self.connection.sendall(self.head(reply) + b"".join(pieces[:1]))
        for piece in pieces[1:]:
            closing.wait(1 if reply.manner == "drip" else 0)
            self.connection.sendall(piece)

    def head(self, reply: Reply) -> bytes:
        lines = [
            f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('',))[0]}",
            f"Date: {self.date_time_string(int(self.server.services.now()))}",
            f"Content-Length: {len(reply.body) * reply.repeat}",
            f"Connection: {'close' if self.close_connection else 'keep-alive'}",
            *(f"{name}: {value}" for name, value in reply.headers),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def log_message(self, format: str, *args: Any) -> None:
        pass


def watch(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook that keeps a Python on loopback, and notes where else it would go."""
    host: object = None
    if event == "socket.getaddrinfo":
        host = arguments[0]
    if event == "socket.connect" and isinstance(arguments[1], tuple):  # not a socket of Unix
        host = arguments[1][0]
    if host not in ("127.0.0.1", "::1", "localhost", None):
        with open(os.environ.get("STAND_IN_STRAYS", os.devnull), "a") as log:
            print(host, file=log)
        raise OSError(101, "Network is unreachable")


sys.addaudithook(watch)
# Run by every Python of a machine as it starts; the clock can move.
SITE = f"""
from __future__ import annotations
import os, sys, time
{inspect.getsource(watch)}
sys.addaudithook(watch)
shift, real_time = float(os.environ["STAND_IN_CLOCK"]), time.time
if shift:
    time.time = lambda: real_time() + shift
    time.time_ns = lambda: int(time.time() * 1e9)
"""

# The beginning of each program: it notes how it was called, and reads what only its owner may.
PROGRAM = """#!{python} -IS
import json, os, sys, time
with open("{own}/calls", "a") as log:
    environ = dict(os.environ)
    call = {{"program": "{name}", "argv": sys.argv[1:], "cwd": os.getcwd(), "environ": environ}}
    print(json.dumps(call), file=log)
with open("{own}/{name}.json") as file:
    does = json.load(file)
"""

AZ = """
mode, options = does["mode"], dict(zip(sys.argv, sys.argv[1:]))
home = next(iter(does["answers"]))
answer = does["answers"].get(options.get("--tenant", home))
logged_out = "Please run 'az login' to setup account." if mode == "logged out" else ""
managed = "Tenant shouldn't be specified for managed identity account" if mode == "managed" else ""
stranger = "" if answer else "AADSTS50020: User account does not exist. Run: az login --tenant ..."
time.sleep(600 if mode == "hang" else 0)
if sys.argv[2] != "get-access-token" or options.get("--resource") != does["resource"]:
    sys.exit("unexpected arguments")
if mode.startswith("AADSTS") or logged_out or stranger or (managed and "--tenant" in options):
    sys.exit("ERROR: " + (logged_out or managed or stranger or mode))
print({"garbage": "no JSON: ", "notice": "WARNING: You have 2 update(s).\\x1b[0m\\n"}.get(mode, ""))
print(json.dumps(answer.get(options.get("--query"), answer)))
"""

BROWSER = """
import html, re, urllib.error, urllib.parse, urllib.request
def fetch(url, fields=None):
    try:
        data = fields and urllib.parse.urlencode(fields).encode()
        return urllib.request.urlopen(url, data, timeout=20).read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()

url = sys.argv[-1]
back = urllib.parse.parse_qs(url)["redirect_uri"][0]
if does == "wrong state":
    fetch(back, {"code": "a guess", "state": "a guess"})
if does != "close":
    page = fetch(url.replace("form_post", "query") if does == "query" else url)
    fields = dict(re.findall('name="([^"]*)" value="([^"]*)"', page))
    if fields:
        fetch(back, {name: html.unescape(text) for name, text in fields.items()})
"""


class Done(NamedTuple):
    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


class Machine:
    def __init__(self, services: Services, folder: Path) -> None:
        self.services, self.folder = services, folder
        self.home, self.bin, self.site = folder / "home", folder / "bin", folder / "site"
        self.own, self.tmp = folder / "own", folder / "tmp"
        for each in (self.home, self.bin, self.site, self.own, self.tmp):
            each.mkdir(mode=0o700)
        (self.site / "sitecustomize.py").write_text(SITE)
        ca = self.own / "ca.pem"
        ca.write_bytes(authority().cert_pem.bytes())
        path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
        for name in ("keyring", "keyrings-artifacts", "pip", "uv", "sh", "env", "cat"):
            (self.bin / name).symlink_to(shutil.which(name, path=path) or "missing")
        self.done: list[Done] = []
        self.started: list[subprocess.Popen[str]] = []
        self.allowed: Collection[str] = ()  # kinds of secrets that a test shows on purpose
        self.clock_error = 0.0  # seconds by which its clock differs from that of the services
        self.environ = {
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "PATH": str(self.bin),
            "PYTHONPATH": str(self.site),
            "LANG": "C.UTF-8",
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), services.proxy_url),
            **dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), str(ca)),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "STAND_IN_STRAYS": str(self.own / "strays"),
            **{name: text for name, text in os.environ.items() if name.startswith("COV")},
        }
        for name, place in (("DATA", ".local/share"), ("CONFIG", ".config"), ("CACHE", ".cache")):
            self.environ[f"XDG_{name}_HOME"] = str(self.home / place)

    def start(self, *argv: str, env: Environ = None, **options: Any) -> subprocess.Popen[str]:
        clock = str(self.services.clock + self.clock_error)
        environ = {**self.environ, "STAND_IN_CLOCK": clock, **(env or {})}
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        options = {**streams, "cwd": self.home, "encoding": "utf-8", **options}
        self.started.append(subprocess.Popen(argv, env=environ, **options))
        return self.started[-1]

    def finish(self, process: subprocess.Popen[str], timeout: float = 60, stdin: str = "") -> Done:
        try:
            stdout, stderr = process.communicate(f"{stdin}\n" if stdin else None, timeout)
        finally:
            process.kill()
        argv: Any = process.args
        self.done.append(Done(argv, process.returncode, stdout, stderr or ""))
        return self.done[-1]

    def run(self, *argv: str, env: Environ = None, timeout: float = 60, stdin: str = "") -> Done:
        return self.finish(self.start(*argv, env=env), timeout, stdin)

    def keyring(self, *argv: str, **environ: str) -> Done:
        return self.run("keyring", *argv, env=environ, stdin="unread")  # but by `del` of keyring 23

    def terminal(self, *argv: str, env: Environ = None) -> Terminal:
        return Terminal(self, argv, env)

    def put_program(self, name: str, script: str, does: object = None) -> Path:
        """Put a Python program on PATH, with `does`, which may be secret, at hand."""
        data = self.own / f"{name}.json"
        data.touch(mode=0o600)
        data.write_text(json.dumps(does))
        start = PROGRAM.format(python=sys.executable, own=self.own, name=name)
        (self.bin / name).write_text(start + script)
        (self.bin / name).chmod(0o755)
        return self.bin / name

    def calls(self, name: str) -> list[dict[str, Any]]:
        calls = map(json.loads, read_lines(self.own / "calls"))
        return [call for call in calls if call["program"] == name]

    def strays(self) -> list[str]:
        """The hosts outside of loopback that a Python of this machine would have gone to."""
        return read_lines(self.own / "strays")

    def fake_az(self, account: Account, mode: str = "") -> None:
        """Put an `az` on PATH whose tokens of that account are made now.

        `mode` is "logged out", "hang", "garbage", "notice", "managed", or an error "AADSTS...".
        """
        answers = {}
        for tenant in (account.tenant, *account.guest_of):
            token = self.services.entra_token(account, tenant)
            expires = int(self.services.tokens[token].expires)
            answers[tenant] = {"accessToken": token, "expires_on": expires, "tenant": tenant}
        self.put_program("az", AZ, {"answers": answers, "mode": mode, "resource": RESOURCE})

    def fake_browser(self, account: Account, action: str = "sign in") -> None:
        """A browser, whose person may also "decline", "close" it, or do as the script says."""
        self.services.browser_person = account
        self.services.browser_error = "access_denied" if action == "decline" else ""
        self.environ["BROWSER"] = str(self.put_program("browser", BROWSER, action))


class Terminal:
    """A program on a terminal of its own, which is its stdin and stderr; stdout is a pipe."""

    def __init__(self, machine: Machine, argv: Collection[str], env: Environ) -> None:
        self.machine, self.screen = machine, ""
        import pty  # which Windows does not have

        self.ours, theirs = pty.openpty()
        # What a leader of a session opens first becomes its controlling terminal.
        take = 'tty=$1; shift; exec env --default-signal=INT "$@" <"$tty" 2>"$tty"'
        command = ("sh", "-c", take, "sh", os.ttyname(theirs), *argv)
        self.process = machine.start(*command, env=env, stderr=theirs, start_new_session=True)
        os.close(theirs)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # which is how a terminal ends
            while True:
                self.screen += os.read(self.ours, 4096).decode("utf-8", "replace")

    def read_until(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        for _ in range(int(timeout * 50)):
            match = re.search(pattern, self.screen)
            if match:
                return match
            time.sleep(0.02)
        raise AssertionError(f"{pattern!r} is not on the screen: {self.screen!r}")

    def type(self, text: str) -> None:
        """Type something; "\\x03" is Ctrl-C."""
        os.write(self.ours, text.encode())

    def end(self, timeout: float = 60) -> Done:
        """Wait for the end; `stderr` is the screen."""
        done = self.machine.finish(self.process, timeout)
        self.machine.done[-1] = done = done._replace(stderr=self.screen)
        return done


def leaks(machine: Machine, allowed: Collection[str] = ()) -> list[tuple[str, str]]:
    """Kind and place of each secret that the programs of a machine said or left behind."""
    places = []
    for done in machine.done:
        answers = "get" in done.argv and done.returncode == 0
        output = done.stdout.splitlines()[: -1 if answers else None]
        places += [("stdout", "".join(output)), ("stderr", done.stderr)]
    for path in (*machine.home.rglob("*"), *machine.tmp.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(machine.folder))
            places.append((name, path.read_bytes().decode("latin-1")))
    for call in map(json.loads, read_lines(machine.own / "calls")):
        places.append((f"{call['program']}: argv", " ".join(call["argv"])))
        places.append((f"{call['program']}: environ", " ".join(call["environ"].values())))
    found = set()
    for value, kind in machine.services.secrets.items():
        # The beginning gives it away too, but not that of a JWT, which all have.
        part = value.split(".")[1][:40] if value.startswith("eyJ") else value[:40]
        for place, said in places:
            kept = kind == "session" and "/.local/share/python_keyring/" in place
            if part in said and kind not in allowed and not kept:
                found.add((kind, place))
    return sorted(found)


# Another keyring; STAND_IN_KEYRING may have it "hang", be "locked", "small", or "refuse" to write.
KEYRING = """
import json, os, pathlib, time
from keyring import backend, errors

mode = os.environ.get("STAND_IN_KEYRING", "")
path = pathlib.Path(__file__).with_suffix(".json")

class Keyring(backend.KeyringBackend):
    priority = 5
    def entries(self):
        time.sleep(600 if mode == "hang" else 0)
        if mode == "locked":
            raise errors.KeyringLocked("it is locked")
        return json.loads(path.read_text()) if path.exists() else {}
    def save(self, entries):
        path.with_suffix(f".{os.getpid()}").write_text(json.dumps(entries))
        path.with_suffix(f".{os.getpid()}").replace(path)
    def get_password(self, service, username):
        return self.entries().get(f"{service} {username}")
    def set_password(self, service, username, password):
        if mode == "refuse" or (mode == "small" and len(password) > 1280):
            raise errors.PasswordSetError("it does not fit")
        self.save({**self.entries(), f"{service} {username}": password})
    def delete_password(self, service, username):
        entries = self.entries()
        if entries.pop(f"{service} {username}", None) is None:
            raise errors.PasswordDeleteError("there is none")
        self.save(entries)
"""


def fake_keyring(machine: Machine) -> Path:
    """Install another keyring; the answer is its file, JSON by "service username", if any."""
    info = machine.site / "stand_in_keyring-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[keyring.backends]\nstand_in = stand_in_keyring\n")
    (machine.site / "stand_in_keyring.py").write_text(KEYRING)
    return machine.site / "stand_in_keyring.json"


@contextlib.contextmanager
def secret_service(machine: Machine) -> Iterator[None]:
    """Have a real Secret Service: gnome-keyring, unlocked, on a message bus of its own."""
    runtime = machine.folder / "run"
    runtime.mkdir(mode=0o700)
    machine.environ["XDG_RUNTIME_DIR"] = str(runtime)
    bus = machine.start("/usr/bin/dbus-daemon", "--session", "--nofork", "--print-address")
    assert bus.stdout is not None
    machine.environ["DBUS_SESSION_BUS_ADDRESS"] = bus.stdout.readline().strip()
    daemon = machine.start("/usr/bin/gnome-keyring-daemon", "--unlock", "--foreground")
    assert daemon.stdin is not None
    daemon.stdin.write("password")
    daemon.stdin.close()
    pinned = {"PYTHON_KEYRING_BACKEND": "keyring.backends.SecretService.Keyring"}
    while machine.run("keyring", "set", "probe", "me", env=pinned, stdin="x").returncode:
        time.sleep(0.05)  # it is not open yet
    yield  # the fixture ends both


@pytest.fixture
def services() -> Iterator[Services]:
    if not sys.platform.startswith("linux"):
        pytest.skip("the machine of the stand-ins is a Linux one")
    with Services() as made:
        yield made


@pytest.fixture
def machine(services: Services, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(services, tmp_path)
    yield made
    for process in made.started:
        with process:
            process.kill()
    assert (leaks(made, made.allowed), made.strays()) == ([], [])


@pytest.mark.programs
def test_stand_ins_watch(machine: Machine) -> None:
    secret = machine.services.entra_token(machine.services.ada)
    code = "import sys; print(sys.argv); sys.audit('socket.connect', 0, ('169.254.169.254', 80))"
    assert "Network is unreachable" in machine.run(sys.executable, "-c", code, secret).stderr
    assert (leaks(machine), machine.strays()) == ([("entra", "stdout")], ["169.254.169.254"])
    with pytest.raises(OSError, match="unreachable"):
        sys.audit("socket.connect", 0, ("169.254.169.254", 80))  # what a connection would do first
    machine.done.clear()
    (machine.own / "strays").unlink()


# --- real programs: the main job -------------------------------------------------------------

HOST = "https://pkgs.dev.azure.com"
COLD = [f"GET {FEEDS}", f"POST {TOKENS}"]
PINNED = {"PYTHON_KEYRING_BACKEND": "keyrings_artifacts.ArtifactsKeyringBackend"}


def answer_of(done: Done) -> str:
    """What a program printed that succeeded and had nothing to remark."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.rstrip("\n")


@pytest.mark.programs
def test_keyring_get_of_a_given_pat_asks_nobody_and_leaves_no_trace(machine: Machine) -> None:
    services, kept = machine.services, fake_keyring(machine)
    pat = services.pat(services.ada)
    dead = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    assert answer_of(machine.keyring("get", URL, "me", AZURE_DEVOPS_EXT_PAT=pat, **dead)) == pat
    assert (services.asked(), services.tunnels) == ([], [])
    assert [*machine.home.rglob("*"), *machine.tmp.rglob("*")] == []
    assert not kept.exists()


@pytest.mark.programs
def test_keyring_get_exchanges_once(machine: Machine) -> None:
    services = machine.services
    services.ada.guest_of.add(FABRIKAM_TENANT)
    services.fabrikam.members.add(services.ada.name)
    machine.fake_az(services.ada)
    token = answer_of(machine.keyring("get", URL, "me"))
    assert services.asked() == COLD
    assert services.tokens[token].kind == "session"
    for feed in (
        URL.replace("://", "://VssSessionToken@").rstrip("/"),
        f"{HOST}/Contoso/My%20Project/_packaging/other@Release/pypi/simple/greeting/",
        f"{HOST}/contoso/_packaging/feed/pypi/upload/",
        "https://contoso.pkgs.visualstudio.com/_packaging/feed/pypi/simple/",
        "contoso.pkgs.visualstudio.com",
    ):
        assert answer_of(machine.keyring("get", feed, "me")) == token
    assert services.asked() == []
    fabrikam = URL.replace("contoso", "fabrikam")
    traced = machine.keyring("get", fabrikam, "me", KEYRINGS_ARTIFACTS_LOGLEVEL="DEBUG")
    assert services.asked() == COLD
    accepted = [services.accepts(traced.stdout.strip(), each) for each in ("fabrikam", "contoso")]
    assert accepted == [True, False]
    steps = traced.stderr.splitlines()
    assert len(steps) >= 2
    assert all(step.startswith("keyrings.artifacts: ") for step in steps)


@pytest.mark.programs
@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param("get {} __token__", "{}", id="twine's name"),
        pytest.param("--mode creds get {}", "VssSessionToken\n{}", id="get_credential(None)"),
        pytest.param("--mode creds get {} me", "me\n{}", id="get_credential"),
        pytest.param("--output json get {} me", '{{"password": "{}"}}', id="json"),
    ],
)
def test_keyring_answers_however_it_is_asked(asked: str, expected: str, machine: Machine) -> None:
    pat = machine.services.pat(machine.services.ada)
    done = machine.keyring(*asked.format(URL).split(), AZURE_DEVOPS_EXT_PAT=pat)
    assert answer_of(done) == expected.format(pat)


@pytest.mark.programs
def test_keyring_says_nothing_in_the_secrets_place(machine: Machine) -> None:
    shell, loud = 'exec "$@" 2>&-', {"KEYRINGS_ARTIFACTS_LOGLEVEL": "DEBUG", "CI": "true"}
    started = machine.start("sh", "-c", shell, "sh", *GET, env=loud, start_new_session=True)
    done = machine.finish(started)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.programs
def test_keyring_passes_another_service_on(machine: Machine) -> None:
    fake_keyring(machine)
    other, word = ("server.example", "me"), "a made-up password"
    assert answer_of(machine.run("keyring", "set", *other, stdin=word)) == ""
    assert answer_of(machine.keyring("get", *other)) == word
    assert answer_of(machine.keyring("del", *other)) == ""
    for verb in ("set", "get", "del"):  # with no keyring but ours
        done = machine.run("keyring", verb, *other, env=PINNED, stdin=word)
        assert (done.returncode, done.stdout) == (1, "")
        assert ("\nkeyrings_artifacts.NotOursError: " in done.stderr) == (verb != "get")
    assert machine.services.tunnels == []


@pytest.mark.programs
def test_keyring_set_and_del_of_a_feed(machine: Machine) -> None:
    """A PAT of one's own serves the organization until it is deleted; then nothing is left."""
    services, kept = machine.services, fake_keyring(machine)
    project = f"{HOST}/CONTOSO/project/_packaging/other/pypi/simple/"
    pat = services.pat(services.ada)
    assert answer_of(machine.run("keyring", "set", URL, "me", stdin=pat)) == ""
    assert answer_of(machine.keyring("get", project, "you")) == pat
    assert services.asked() == ["GET pkgs.dev.azure.com"]  # whether it is still accepted
    assert answer_of(machine.keyring("get", URL, "me")) == pat
    assert services.asked() == []
    assert answer_of(machine.keyring("del", project, "you")) == ""
    assert json.loads(kept.read_text()) == {}
    assert machine.keyring("get", URL, "me", CI="true").stdout == ""
    assert machine.keyring("del", URL, "me").returncode == 1


# --- real programs: environments of their own ------------------------------------------------

OURS = "the wheel of this project"
PATHS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
UV = shutil.which("uv", path=PATHS) or "uv"


class Clients:
    """Real programs from the package index of this computer, in environments of their own.

    Each is made once in a session, by whichever process of pytest-xdist is first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *argv: str, **environ: str) -> None:
        """Run what installs something, in this project's folder and not among the stand-ins."""
        environ = {**os.environ, "UV_PYTHON": sys.executable, **environ}
        options: Any = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 100}
        done = subprocess.run(argv, cwd=ROOT, env=environ, **options)
        if done.returncode and "CI" not in os.environ:
            pytest.skip(f"{argv} failed: is there no package index?")
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"

    def install(self, folder: Path, *requirements: str) -> Path:
        """Make an environment; the answer is the folder of its programs."""
        wheel = str(*self.dist().glob("*.whl")) if OURS in "".join(requirements) else ""
        self.run(UV, "venv", "--clear", str(folder))
        packages = [each.replace(OURS, wheel) for each in requirements]
        self.run(UV, "pip", "install", "--python", str(folder), *packages)
        return folder / "bin"

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        fcntl = pytest.importorskip("fcntl")  # which Windows does not have
        folder, ready = self.folder / name, self.folder / f"{name}.ready"
        with open(self.folder / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ready.exists():
                make(folder)
                ready.touch()
        return folder

    def programs(self, *requirements: str) -> Path:
        name = "-".join(re.findall(r"[\w.]+", " ".join(requirements)))
        return self.once(name, lambda folder: self.install(folder, *requirements)) / "bin"

    def dist(self) -> Path:
        """Our sdist, and the wheel that is built from it."""
        return self.once("dist", lambda folder: self.run(UV, "build", "-o", str(folder)))


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    own = tmp_path_factory.getbasetemp()  # below the session's where this is one of its processes
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "clients"
    folder.mkdir(exist_ok=True)
    return Clients(folder)


def put_first(machine: Machine, *folders: Path) -> None:
    """Put programs in front on PATH, of environments in which there is no coverage to measure."""
    machine.environ["PATH"] = os.pathsep.join([*map(str, folders), str(machine.bin)])
    for name in [name for name in machine.environ if name.startswith("COV")]:
        del machine.environ[name]


def opened_by(services: Services) -> tuple[set[str], int]:
    """The kinds of credential that opened a feed, and the number of exchanges, since last time."""
    passed = [each for each in services.requests if each.host == "pkgs.dev.azure.com"]
    values = [each.credential()[1] for each in passed if each.status < 400]
    exchanges = services.asked().count("POST vssps.dev.azure.com")
    return {services.tokens[each].kind if each else "none" for each in values}, exchanges


@pytest.mark.programs
@pytest.mark.parametrize("provider", ["subprocess", "import"])
@pytest.mark.parametrize("pip", ["pip==23.*", "pip"])
def test_pip_asks_by_provider(pip: str, provider: str, machine: Machine, clients: Clients) -> None:
    machine.fake_az(machine.services.ada)
    url, own = URL, [pip, OURS]
    if provider == "subprocess":
        url, own = URL.replace("://", "://VssSessionToken@"), [pip]
    put_first(machine, clients.programs(*own), clients.programs("keyring", OURS))
    argv = ("pip", "download", "--no-cache-dir", "--index-url", url, "greeting", "--dest")
    for exchanges in (1, 0):
        folder = str(machine.home / f"{exchanges}")
        done = machine.run(*argv, folder, env={"PIP_KEYRING_PROVIDER": provider})
        assert done.returncode == 0, done.stderr
        assert opened_by(machine.services) == ({"session"}, exchanges)
        assert os.listdir(folder) == ["greeting-1.0-py3-none-any.whl"]


@pytest.mark.programs
@pytest.mark.parametrize("pins", [("==23.0.*", "==1.26.*"), ("", "")], ids=["oldest", "newest"])
def test_copied_file_works_alone(pins: tuple[str, str], machine: Machine, clients: Clients) -> None:
    shutil.copy(ROOT / "keyrings_artifacts.py", machine.site)
    programs = clients.programs(f"keyring{pins[0]}", f"urllib3{pins[1]}")
    put_first(machine, programs)
    machine.environ.update(PINNED)
    machine.fake_az(machine.services.ada)
    tokens = {answer_of(machine.keyring("get", URL, "me")) for _ in range(2)}
    assert machine.services.asked() == COLD
    assert [machine.services.tokens[token].kind for token in tokens] == ["session"]
    machine.environ.update({f"{each}_KEYRING_PROVIDER": "subprocess" for each in ("PIP", "UV")})
    url = URL.replace("://", "://VssSessionToken@")
    doctor = machine.run(str(programs / "python"), "-m", "keyrings_artifacts", url)
    assert doctor.returncode == 0, doctor.stdout


# --- the README and what is released ---------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = (
    r"(?:[A-Z_]+=\S+ )?(?:az|azd|docker|export|keyring|keyrings-artifacts|pip|pipx|pixi|pwsh|python"
    r"|sh|type|uv|where\.exe|\.venv/bin/\S+) .*"
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def sections() -> Mapping[str, list[str]]:
    """The commands of the README's blocks for a shell, by the comment or the heading above."""
    found: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
    language = name = ""
    for line in README.splitlines():
        if line.startswith("```"):
            language = line[3:]
        elif line.startswith("#"):
            name = re.findall(r"\w+", line.lower())[0]
        elif language == "sh" and line:
            found[name].append(line.partition("  #")[0])
    return found


SHELL = sections()
PIPELINE_STEPS = re.findall(r"(?:\w*[sS]cript:|run:) (\S.* .*)$", "".join(blocks("yaml")), re.M)
LAYERS = re.findall(r"^RUN (.*)", "".join(blocks("dockerfile")), re.M)
SINGLE = re.findall(r"^\| .* \| `([^`]*)` \|$", README, re.M)  # what fills a table's last cell
TOKEN_COMMANDS = [each for each in SINGLE if re.fullmatch(COMMAND, each)]
LOOK = "keyring --list-backends"
# What somebody types who reads the README, and what has happened then; the first five everywhere.
TYPED = {
    "quick": (SHELL["quick"] + SHELL["uv"][:1] + SHELL["troubleshooting"], "installed"),
    "pip": (SHELL["pip"], "installed"),
    "uv": (SHELL["uv"], "installed published"),
    "uv always": ([*SHELL["uv"][:1], "uv pip install contoso-greeting"], "installed"),
    "twine by uv": (["uv tool install twine --with .", *SHELL["twine"][-1:]], "published"),
    "twine": (["pipx install twine", *SHELL["twine"]], "published"),
    "poetry": (["pipx install poetry", *SHELL["poetry"]], "installed"),
    "pdm": (["pipx install 'pdm[locked]'", *SHELL["pdm"]], "installed"),
    "hatch": (["pipx install hatch", *SHELL["hatch"]], "published"),
    "tox": (["uv tool install tox", "tox run"], "installed"),
    "pipenv": (["uv tool install pipenv", *SHELL["pipenv"]], "installed"),
    "pipx": (SHELL["uv"][:1] + SHELL["pipx"], "installed"),
    "inject": (["pipx install keyring", "pipx inject --include-apps keyring .", LOOK], ""),
    "extra": ([*re.findall(r"`(uv tool install [^`]* '\.\[\w+\]')`", README), LOOK], ""),
    "environment": (["python -m pip install .", LOOK], ""),
}
# Every other command of the README: the test that runs it, or why none can.
ELSEWHERE = {
    "keyring get URL me": "test_keyring_get_exchanges_once",
    "KEYRINGS_ARTIFACTS_LOGLEVEL=DEBUG keyring get URL me": "test_keyring_get_exchanges_once",
    "keyring set URL me": "test_keyring_set_and_del_of_a_feed",
    "keyring del URL me": "test_keyring_set_and_del_of_a_feed",
    "python -m keyrings_artifacts URL": "test_copied_file_works_alone",
    **dict.fromkeys(PIPELINE_STEPS, "test_readme_pipelines"),
    **dict.fromkeys(TOKEN_COMMANDS, "test_report_identity_of_another_program"),
    "export KEYRINGS_ARTIFACTS_TOKEN_COMMAND='company-broker token'": "stands for any program",
    **dict.fromkeys([*SHELL["demonstration"], *SHELL["tests"]], "typed by .ci/run"),
    **dict.fromkeys(SHELL["pixi"], "pixi is in no index of Python packages"),
    **dict.fromkeys(LAYERS, "there is no Docker in a test"),
    "docker build --secret id=azure_devops_ext_pat,env=AZURE_DEVOPS_EXT_PAT .": "likewise",
    **dict.fromkeys(("keyring del", "keyring get", "pip install"), "stands for those above"),
    "python -m pip wheel --no-deps --wheel-dir dist .": "builds what `pip install .` builds",
    ".venv/bin/python -m pytest -m benchmark": "takes minutes, and measures",
    **dict.fromkeys(re.findall("`(az login[^`]*)`", README), "signs in at Azure itself"),
    **dict.fromkeys(("type -a keyring", "where.exe keyring"), "a part of the system"),
}


def test_readme_commands_are_all_run_or_explained() -> None:
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))
    said = {*PIPELINE_STEPS, *LAYERS, *(span for span in spans if re.fullmatch(COMMAND, span))}
    said |= {command for each in SHELL.values() for command in each}
    typed = {command for commands, _ in TYPED.values() for command in commands}
    assert sorted(said - typed - set(ELSEWHERE)) == []
    assert sorted(set(ELSEWHERE) - said) == []
    tests = {how for how in ELSEWHERE.values() if how.startswith("test_")}
    assert sorted(tests - set(globals())) == []
    assert [len(SHELL[name]) for name in ("demonstration", "tests")] == [1, 1]


def type_in(command: str, machine: Machine, clients: Clients) -> None:
    """Type a command; what installs a program does so from the index of this computer."""
    for name, value in {"ORG": "contoso", "FEED": "pyfeed", "PACKAGE": "contoso-greeting"}.items():
        command = re.sub(rf"\b{name}\b", value, command)
    words = shlex.split(command)
    if words[0] == "export":
        machine.environ.update([words[1].partition("=")[::2]])
    elif re.match(r"uv tool|pipx inject|pipx install ['\w]|python -m pip install \.", command):
        own = {name: text for name, text in machine.environ.items() if name[:3] in ("UV_", "PIP")}
        clients.run(*words, **own, PATH=os.pathsep.join([machine.environ["PATH"], PATHS]))
        for folder in machine.folder.glob("installed/venvs/*/lib/*/site-packages"):
            shutil.copy(machine.site / "sitecustomize.py", folder)  # pipx ignores PYTHONPATH
    else:
        typed: list[str] = []
        for word in words:
            typed += map(str, machine.home.glob(word)) if "*" in word else [word]
        done = machine.run(*typed, timeout=100)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        assert command != LOOK or "keyrings_artifacts.Artifacts" in done.stdout


# A project that Poetry and PDM can install.
PROJECT = """
[project]
name = "example"
version = "1.0"
requires-python = ">=3.9"
dependencies = ["contoso-greeting"]
[tool.poetry]
package-mode = false
[tool.pdm]
distribution = false
"""
# `hatch publish` uses no proxy: this leads it into it nevertheless.
THROUGH_PROXY = """
import socket
connect, proxy = socket.create_connection, int(os.environ["HTTPS_PROXY"].rpartition(":")[2])
def through(address, *rest, **options):
    made = connect(("127.0.0.1", proxy), *rest, **options)
    if address[1] == 443:
        made.sendall(f"CONNECT {address[0]}:443 HTTP/1.1\\r\\n\\r\\n".encode())
        made.recv(4096)
    return made
socket.create_connection = through
"""
IN_CI = pytest.mark.skipif(
    "CI" not in os.environ or sys.version_info < (3, 13),
    reason="installs clients for a minute: in CI, on the newest Python",
)


@pytest.mark.programs
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[IN_CI] * (at > 4)) for at, each in enumerate(TYPED)]
)
def test_readme_can_be_typed(name: str, machine: Machine, clients: Clients) -> None:
    services, (commands, outcome) = machine.services, TYPED[name]
    machine.fake_az(services.ada)
    machine.allowed = ("link to a blob",)  # which pdm has in its cache
    put_example(services, machine.home)
    with (machine.site / "sitecustomize.py").open("a") as site:
        site.write(THROUGH_PROXY if name == "hatch" else "")
    services.faults = [Fault(404, path="/upload/%2Bsimple/")]  # where Hatch looks what is there
    folders = [machine.folder / "programs", clients.install(machine.folder / "venv", "pip")]
    if outcome and "keyring" not in commands[0]:
        folders.append(clients.programs("keyring", OURS))
    put_first(machine, *folders, clients.programs("pipx"))
    del machine.environ["PIP_CONFIG_FILE"]  # which has no room for `pip config set`
    places = {
        **dict.fromkeys(("UV_TOOL_BIN_DIR", "PIPX_BIN_DIR"), "programs"),
        **dict.fromkeys(("UV_TOOL_DIR", "PIPX_HOME", "PIPX_MAN_DIR"), "installed"),
        **{"VIRTUAL_ENV": "venv", "PIPX_DEFAULT_PYTHON": sys.executable},
    }
    machine.environ.update({key: str(machine.folder / path) for key, path in places.items()})
    machine.environ.update({"PIPX_DEFAULT_BACKEND": "uv", "PDM_CHECK_UPDATE": "0"})
    machine.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = services.local_url  # nothing watches tox
    for command in commands:
        type_in(command, machine, clients)
    assert opened_by(services) == (({"session"}, 1) if outcome else (set(), 0))
    installed = any(machine.folder.rglob("site-packages/contoso_greeting.py"))
    assert installed == ("installed" in outcome)
    assert ("hail" in services.contoso.files) == ("published" in outcome)


def put_example(services: Services, folder: Path) -> None:
    """Have the README's feed with its package, a program, and a project with a wheel to publish."""
    services.contoso.feeds = ("pyfeed", *services.contoso.feeds)
    services.contoso.add_wheel("contoso_greeting")
    ((name, content),) = services.contoso.files.pop("contoso_greeting").items()
    wheel = io.BytesIO(content)
    with zipfile.ZipFile(wheel, "a") as archive:
        points = "[console_scripts]\ncontoso-greeting = contoso_greeting:hello\n"
        archive.writestr("contoso_greeting-1.0.dist-info/entry_points.txt", points)
    services.contoso.files["contoso-greeting"] = {name: wheel.getvalue()}
    (folder / "pyproject.toml").write_text(PROJECT + blocks("toml")[0])
    ini = f"[tox]\nskipsdist = true\n{blocks('ini')[0]}deps = contoso-greeting\n"
    (folder / "tox.ini").write_text(ini)
    (folder / "dist").mkdir()
    services.fabrikam.add_wheel("hail")
    for name, content in services.fabrikam.files.pop("hail").items():
        (folder / "dist" / name).write_bytes(content)


@pytest.mark.programs
@pytest.mark.parametrize("place", ["Azure Pipelines", "GitHub Actions"])
def test_readme_pipelines(place: str, machine: Machine, clients: Clients) -> None:
    services, robot = machine.services, machine.services.robot
    put_example(services, machine.home)
    (machine.home / "wheels").symlink_to(clients.dist())
    put_first(machine, clients.install(machine.folder / "venv", "pip", OURS))
    azure, github = map(pytest.importorskip("yaml").safe_load, blocks("yaml"))
    values = {"AZURE_CLIENT_ID": robot.client_id, "AZURE_TENANT_ID": robot.tenant}
    environ = {**github["env"], **values, **services.variables("github")}
    if place == "Azure Pipelines":
        (given,) = [step["env"] for step in azure["steps"] if "env" in step]
        environ = {**azure["variables"], **dict.fromkeys(given, services.pat(robot))}
    for step in PIPELINE_STEPS[-2:]:
        done = machine.run(*shlex.split(step), env=environ)
        assert done.returncode == 0, done.stderr
    assert opened_by(services) == ({"entra" if "AZURE_CLIENT_ID" in environ else "PAT"}, 0)


def test_readme_names_sources_and_variables_of_the_module() -> None:
    assert re.findall(r"^\| `([a-z_]+)` \|", README, re.M) == [
        each.__name__ for each in (*ka.QUIET, *ka.ASKING)
    ]
    name = r"[A-Z]+(?:_[A-Z0-9]+)+|idToken|tenantId|servicePrincipal\w+"
    place = README.partition("\n## Where a credential")[2].partition("\n* Ignored")[0]
    said = set(re.findall(rf"`({name})[`=]", place))
    tree = ast.walk(ast.parse((ROOT / "keyrings_artifacts.py").read_text(encoding="utf-8")))
    found = {str(node.value) for node in tree if isinstance(node, ast.Constant)}
    read = {each for each in found if re.fullmatch(name, each)}
    elsewhere = {
        *("AZURE_CORE_NO_COLOR", "NO_COLOR", "CREATE_NO_WINDOW", "O_NOFOLLOW", "O_NONBLOCK"),
        *("SSH_CONNECTION", "SSH_TTY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"),  # "a desktop browser"
        *("KEYRINGS_ARTIFACTS_LOGLEVEL", "PYTHON_KEYRING_BACKEND", "UV_KEYRING_PROVIDER"),
        "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI",  # an older name
    }
    assert said - {"ALL_PROXY", "HTTPS_PROXY", "NO_PROXY"} == read - elsewhere  # urllib's are said


def test_documents_name_no_place_of_a_machine() -> None:
    others = [ROOT / ".github" / each for each in ("SECURITY.md", "CONTRIBUTING.md")]
    text = "".join([README, *(each.read_text(encoding="utf-8") for each in others)])
    hosts = set(re.findall(r"(?:[\w-]+\.)+(?:com|dev|io|local|net|org)\b(?!\.\w)", text))
    azure = {"dev.azure.com", "pkgs.dev.azure.com", "NAME.pkgs.visualstudio.com"}
    assert hosts == {"github.com", *azure}
    assert set(re.findall(r"(?<![\w.~/>*:}\])])/\w[\w.-]*", text)) == {"/run", "/wheels"}


def test_files_are_short_enough_to_review() -> None:
    limits = {"keyrings_artifacts.py": 1600, Path(__file__).name: 4500, "README.md": 260}
    lines = {name: len((ROOT / name).read_bytes().splitlines()) for name in limits}
    assert [name for name, limit in limits.items() if lines[name] > limit] == []


@pytest.mark.programs
def test_wheel_and_sdist_hold_what_they_should(clients: Clients) -> None:
    (wheel,), (sdist,) = (clients.dist().glob(each) for each in ("*.whl", "*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive:
        read = {each.rpartition("/")[2]: archive.read(each).decode() for each in archive.namelist()}
    names = "LICENSE METADATA RECORD WHEEL entry_points.txt keyrings_artifacts.py"
    assert " ".join(sorted(read)) == names
    points = "[console_scripts] keyrings-artifacts=keyrings_artifacts:main "
    points += "[keyring.backends] artifacts=keyrings_artifacts"
    assert " ".join(read["entry_points.txt"].split()) == points
    metadata = email.message_from_string(read["METADATA"])
    needed = [each for each in metadata.get_all("Requires-Dist", []) if "extra" not in each]
    assert sorted(needed) == ["keyring >=23", "urllib3 >=1.26,<3"]
    extras = " ".join(sorted(metadata.get_all("Provides-Extra", [])))
    assert extras == "encrypted-file test truststore"
    with tarfile.open(sdist) as packed:
        names = " ".join(sorted(name.partition("/")[2] for name in packed.getnames()))
    assert names == (
        ".ci/run .github/CONTRIBUTING.md .github/SECURITY.md .github/dependabot.yml "
        ".github/workflows/ci.yml .gitignore .pre-commit-config.yaml LICENSE PKG-INFO README.md "
        "keyrings_artifacts.py pyproject.toml test_keyrings_artifacts.py"
    )


# --- real programs: signing in ---------------------------------------------------------------

SIGN_IN_SCOPE = f"{SCOPE} offline_access openid profile"
RENEWED = [COLD[0], f"POST {ENTRA}", COLD[1]]
IN_SECRET_SERVICE = {"PYTHON_KEYRING_BACKEND": "keyring.backends.SecretService.Keyring"}
STDERR_HIDDEN = ("sh", "-c", 'exec "$@" 2>/dev/null', "sh")  # as pip 26 does
GET = ("keyring", "get", URL, "me")


def get(machine: Machine, **environ: str) -> Done:
    return machine.run(*GET, env=environ)


def session_of(machine: Machine, done: Done) -> str:
    """The session token that was printed, whatever was said to the person."""
    assert done.returncode == 0, done.stderr
    assert machine.services.tokens[done.stdout.strip()].kind == "session"
    return done.stdout.strip()


def refusal_of(done: Done) -> str:
    """What the person was told in place of an answer."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("keyrings.artifacts: ")
    return done.stderr


def contents(machine: Machine) -> list[str]:
    """What there is to read below HOME and TMPDIR; the file of a lock is empty."""
    paths = [path for folder in (machine.home, machine.tmp) for path in folder.rglob("*")]
    return list(filter(None, (path.read_text() for path in paths if path.is_file())))


def enter_code(terminal: Terminal, account: Account | None) -> None:
    """Do with the code on the screen what a person does; nobody is one who declines."""
    code = terminal.read_until(r"enter the code ([A-Z0-9]+)\s")[1]
    device = terminal.machine.services.device(code)
    device.account, device.declined = account, account is None


@pytest.mark.programs
@pytest.mark.parametrize("action", ["sign in", "query", "wrong state"])
def test_browser_signs_in_once(action: str, machine: Machine) -> None:
    services = machine.services
    machine.fake_browser(services.ada, action)
    token = session_of(machine, get(machine))
    [asked, redeemed] = [each for each in services.requests if each.host == ENTRA]
    assert (asked.method, redeemed.method) == ("GET", "POST")
    assert asked.path == f"/{CONTOSO_TENANT}/oauth2/v2.0/authorize"
    assert redeemed.path == f"/{CONTOSO_TENANT}/oauth2/v2.0/token"
    verifier, code = (redeemed.form()[name] for name in ("code_verifier", "code"))
    assert 43 <= len(verifier) <= 128  # RFC 7636
    assert services.secrets[code] == "code"
    assert asked.query == {
        "client_id": ARTIFACTS_CLIENT,
        "response_type": "code",
        "response_mode": {"query": "query"}.get(action, "form_post"),
        "redirect_uri": asked.query["redirect_uri"],
        "scope": SIGN_IN_SCOPE,
        "state": asked.query["state"],
        "code_challenge": ka.base64url(hashlib.sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
        "prompt": "select_account",
    }
    assert redeemed.form() == {
        "client_id": ARTIFACTS_CLIENT,
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": verifier,
        "redirect_uri": asked.query["redirect_uri"],
        "scope": SIGN_IN_SCOPE,
    }
    assert services.asked() == [COLD[0], f"GET {ENTRA}", f"POST {ENTRA}", COLD[1]]
    assert answer_of(get(machine)) == token
    assert (services.asked(), len(machine.calls("browser"))) == ([], 1)
    assert answer_of(machine.keyring("del", URL, "me")) == ""
    assert contents(machine) == []


@pytest.mark.programs
def test_browser_declined_ends_the_look_up(machine: Machine) -> None:
    machine.fake_browser(machine.services.ada, "decline")
    told = refusal_of(machine.terminal(*GET).end())
    assert "access_denied, AADSTS65004" in told
    assert machine.services.asked() == [COLD[0], f"GET {ENTRA}"]


@pytest.mark.programs
def test_browser_account_refused_by_the_organization_is_named(machine: Machine) -> None:
    """Then another account can be chosen."""
    services = machine.services
    fake_keyring(machine)
    machine.fake_browser(services.account("eve@contoso.example", CONTOSO_TENANT))
    told = refusal_of(get(machine))
    assert "'contoso'" in told
    assert "eve@contoso.example" in told
    services.browser_person = services.ada
    token = session_of(machine, get(machine))
    assert services.tokens[token].account is services.ada


def test_listen_takes_the_answer_to_its_own_question_alone() -> None:
    answer = {"code": "A", "state": "its own state"}
    with ka.listen(answer["state"]) as server:

        def wait() -> None:
            while not server.answer:
                server.handle_request()

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        idle = socket.create_connection(server.server_address)  # as browsers open some
        host, port = server.server_address
        page = functools.partial(urllib3.PoolManager().request, url=f"http://{host}:{port}/")
        assert page("GET").status == 404
        assert page("GET", fields={**answer, "state": "another"}).status == 404
        assert (host, server.answer) == ("127.0.0.1", {})
        assert page("POST", fields=answer, encode_multipart=False).status == 200
        waiting.join(10)
        assert server.answer == answer
        idle.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, port))


@pytest.mark.programs
@pytest.mark.parametrize("browser", ["", "/bin/false"], ids=["no browser", "a broken browser"])
def test_device_code_signs_in_once_where_stderr_is_hidden(browser: str, machine: Machine) -> None:
    services = machine.services
    machine.environ["BROWSER"] = browser
    terminal = machine.terminal(*STDERR_HIDDEN, *GET)
    enter_code(terminal, services.ada)
    token = session_of(machine, terminal.end())
    assert "https://microsoft.com/devicelogin" in terminal.screen
    forms = [each.form() for each in services.requests if each.host == ENTRA]
    assert forms[0] == {"client_id": ARTIFACTS_CLIENT, "scope": SIGN_IN_SCOPE}
    code = forms[-1].pop("device_code")
    assert services.secrets[code] == "device_code"
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    assert forms[-1] == {**forms[0], "grant_type": grant}
    services.asked()
    again = machine.terminal(*STDERR_HIDDEN, *GET).end()
    assert (again.stdout, again.stderr, services.asked()) == (f"{token}\n", "", [])


@pytest.mark.programs
def test_device_code_signs_in_under_the_newest_pip(machine: Machine, clients: Clients) -> None:
    put_first(machine, clients.programs("pip"), clients.programs("keyring", OURS))
    url = URL.replace("://", "://me@")
    options = ("--no-cache-dir", "--keyring-provider", "subprocess", "--index-url", url)
    terminal = machine.terminal("pip", "download", *options, "greeting")
    enter_code(terminal, machine.services.ada)
    assert terminal.end().returncode == 0, terminal.screen
    assert opened_by(machine.services) == ({"session"}, 1)


@pytest.mark.programs
@pytest.mark.parametrize("error", ["authorization_declined", "expired_token"])
def test_device_code_without_success_ends_the_look_up(error: str, machine: Machine) -> None:
    machine.services.device_lifetime = 0.0 if error == "expired_token" else 900.0
    terminal = machine.terminal(*GET)
    if error == "authorization_declined":
        enter_code(terminal, None)
    assert error in refusal_of(terminal.end())
    assert COLD[1] not in machine.services.asked()


@pytest.mark.programs
def test_device_code_interrupted_ends_as_a_shell_says_it(machine: Machine) -> None:
    terminal = machine.terminal(*GET)
    terminal.read_until("enter the code")
    terminal.type("\x03")
    done = terminal.end()
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr


SILENCING = """CI TF_BUILD GITHUB_ACTIONS PIP_NO_INPUT ARTIFACTS_KEYRING_NONINTERACTIVE_MODE
contoso.pkgs.visualstudio.com"""


@pytest.mark.programs
@pytest.mark.parametrize("name", SILENCING.split())
def test_nobody_is_asked_under_a_variable_or_for_a_host(name: str, machine: Machine) -> None:
    machine.fake_browser(machine.services.ada)
    bare = name.islower()
    terminal = machine.terminal("keyring", "get", name if bare else URL, "me", env={name: "true"})
    done = terminal.end()
    assert (done.returncode, done.stdout, machine.calls("browser")) == (1, "", [])
    assert (name in done.stderr, done.stderr == "") == (not bare, bare)
    assert machine.services.asked() == [f"GET {name}" if bare else COLD[0]]


@pytest.mark.programs
def test_refresh_token_renews_until_it_is_dead(machine: Machine) -> None:
    services, kept = machine.services, fake_keyring(machine)
    machine.fake_browser(services.ada)
    session_of(machine, get(machine))
    for days in (1, 400):
        services.clock = days * 86400.0
        services.asked()
        answer_of(get(machine))
        assert services.asked() == RENEWED
    services.ada.refresh_tokens.clear()
    services.clock += 86400.0
    services.asked()
    for asked in (RENEWED[:2], RENEWED[:1]):  # a dead one is forgotten
        assert get(machine, CI="true").returncode == 1
        assert services.asked() == asked
    for days, prompts in ((402, 2), (403, 2)):
        services.clock = days * 86400.0
        session_of(machine, get(machine))
        assert len(machine.calls("browser")) == prompts
    assert answer_of(machine.keyring("del", URL, "me")) == ""
    assert json.loads(kept.read_text()) == {}


@pytest.mark.programs
def test_refresh_token_lies_in_no_plain_file(machine: Machine) -> None:
    """Without a keyring a person signs in once a day; what is left is searched, as ever."""
    machine.fake_browser(machine.services.ada)
    assert session_of(machine, get(machine)) == answer_of(get(machine))
    machine.services.clock = 86400.0
    session_of(machine, get(machine))
    assert len(machine.calls("browser")) == 2


@pytest.mark.programs
@pytest.mark.skipif(
    "CI" not in os.environ and not all(map(shutil.which, ("dbus-daemon", "gnome-keyring-daemon"))),
    reason="there is no Secret Service here",
)
def test_refresh_token_lies_in_the_secret_service(machine: Machine) -> None:
    services = machine.services
    machine.fake_browser(services.ada)
    with secret_service(machine):
        token = session_of(machine, get(machine))
        services.asked()
        assert (answer_of(get(machine)), services.asked()) == (token, [])
        services.clock = 86400.0
        assert answer_of(get(machine)) != token
        assert (services.asked(), len(machine.calls("browser"))) == (RENEWED, 1)
        entry = ("get", "keyrings.artifacts/contoso", "1")
        assert machine.keyring(*entry, **IN_SECRET_SERVICE).returncode == 0
        machine.done.pop()  # which showed all of it
        assert answer_of(machine.keyring("del", URL, "me")) == ""
        assert machine.keyring(*entry, **IN_SECRET_SERVICE).returncode == 1
        assert "contoso" in refusal_of(get(machine, CI="true"))
        assert not [*machine.home.rglob("*.json")]


@pytest.mark.programs
def test_refresh_token_lies_encrypted_with_an_extra(machine: Machine, clients: Clients) -> None:
    services = machine.services
    machine.fake_browser(services.ada)
    put_first(machine, clients.programs("keyring", f"{OURS}[encrypted-file]"))
    session_of(machine, get(machine))
    services.clock = 86400.0
    answer_of(get(machine))
    assert (services.asked()[-len(RENEWED) :], len(machine.calls("browser"))) == (RENEWED, 1)
    found = [*machine.home.rglob("*.encrypted"), *machine.home.rglob("key")]
    assert [stat.filemode(path.stat().st_mode) for path in found] == ["-rw-------"] * 2
    found[1].chmod(0o644)  # the key, which is as good as lost and costs one more sign-in
    assert notices(get(machine)) == 0
    assert answer_of(machine.keyring("del", URL, "me")) == ""
    assert "contoso" in refusal_of(get(machine, CI="true"))


@pytest.mark.programs
def test_session_revoked_is_replaced_after_an_hour(machine: Machine) -> None:
    services = machine.services
    machine.fake_az(services.ada)
    token = answer_of(get(machine))
    del services.tokens[token]
    services.asked()
    services.clock = 3500.0
    assert (answer_of(get(machine)), services.asked()) == (token, [])
    services.clock = 3601.0
    assert services.accepts(answer_of(get(machine)))
    assert services.asked() == [COLD[0], *COLD]


# --- real programs: machines -----------------------------------------------------------------

Sent = tuple[str, dict[str, str]]
USUAL = "accept accept-encoding content-length content-type host user-agent x-tfs-fedauthredirect"


def sent(request: Recorded) -> Sent:
    """All that a request says, but for the headers of every request and what an issuer signed."""
    said = {**request.query, **request.form(), **request.headers}
    said = {name: value for name, value in said.items() if name not in USUAL.split()}
    said.update({name: "..." for name in said if name == "client_assertion"})
    return f"{request.method} {request.host}{request.path}", said


def identity(services: Services) -> dict[str, str]:
    return {"AZURE_CLIENT_ID": services.robot.client_id, "AZURE_TENANT_ID": CONTOSO_TENANT}


def platforms(machine: Machine) -> dict[str, tuple[dict[str, str], list[Sent]]]:
    """For each kind of machine its variables, and what is asked before the feed is."""
    services = machine.services
    robot, header, own = services.robot, services.identity_header, identity(services)
    token_file = machine.own / "federated"
    token_file.write_text(services.federated_token(CLUSTER) + "\n")
    bearer = {"authorization": f"Bearer {services.job_token}"}
    grant = {"grant_type": "client_credentials", "scope": SCOPE}
    grant["client_id"] = robot.client_id
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    entra = f"POST {ENTRA}/{CONTOSO_TENANT}/oauth2/v2.0/token"
    vouched = (entra, {**grant, "client_assertion": "...", "client_assertion_type": kind})
    github = {"api-version": "2.0", "audience": FEDERATED_AUDIENCE, **bearer}
    pipeline = {"api-version": "7.1", "serviceConnectionId": services.connection_id, **bearer}
    task = {"servicePrincipalId": robot.client_id, "tenantId": CONTOSO_TENANT}
    asked = {"resource": RESOURCE, "metadata": "true"}
    app = {**asked, "api-version": "2019-08-01", "x-identity-header": header}
    vm = {**asked, "api-version": "2018-02-01"}
    vm_path = "GET 127.0.0.1/metadata/identity/oauth2/token"
    moved = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": services.local_url}
    alone = {"AZURE_CLIENT_ID": robot.client_id}
    return {
        "a secret": (
            {**alone, "AZURE_CLIENT_SECRET": robot.secret},  # in the feed's tenant
            [(entra, {**grant, "client_secret": robot.secret})],
        ),
        "AKS": ({**own, "AZURE_FEDERATED_TOKEN_FILE": str(token_file)}, [vouched]),
        "AzureCLI@2": ({**task, "idToken": services.federated_token(PIPELINE)}, [vouched]),
        "GitHub Actions": (
            {**own, "GITHUB_ACTIONS": "true", **services.variables("github")},
            [("GET pipelines.actions.githubusercontent.com/idtoken", github), vouched],
        ),
        "Azure Pipelines": (
            {**own, "TF_BUILD": "True", **OF_FABRIKAM, **services.variables("pipeline")},
            [("POST dev.azure.com/contoso/p/_apis/oidctoken", pipeline), vouched],
        ),
        "App Service": (services.variables("app service"), [("GET 127.0.0.1/msi/token", app)]),
        "App Service, user-assigned": (
            {**alone, **services.variables("app service")},
            [("GET 127.0.0.1/msi/token", {**app, "client_id": robot.client_id})],
        ),
        "a VM": (moved, [(vm_path, vm)]),
        "a VM, user-assigned": (
            {**alone, **moved},
            [(vm_path, {**vm, "client_id": robot.client_id})],
        ),
    }


PLATFORMS = """a secret|AKS|AzureCLI@2|GitHub Actions|Azure Pipelines
App Service|App Service, user-assigned|a VM|a VM, user-assigned"""


@pytest.mark.programs
@pytest.mark.parametrize("name", re.split(r"[|\n]", PLATFORMS))
def test_machine_signs_in(name: str, machine: Machine) -> None:
    """The token of its own identity is used as it is, and kept nowhere."""
    services = machine.services
    if name in ("App Service", "a VM"):
        services.identity = services.robot
    services.assigned_identities.append(services.robot)
    kept = fake_keyring(machine)
    environ, expected = platforms(machine)[name]
    token = answer_of(get(machine, **environ))
    assert services.tokens[token].kind == "entra"
    assert services.tokens[token].account is services.robot
    stranger, *asked, last = services.requests
    assert list(map(sent, asked)) == expected
    assert (stranger.credential()[1], last.credential()[1]) == ("", token)
    assert (contents(machine), kept.exists()) == ([], False)


@pytest.mark.programs
@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [
        pytest.param("a secret", {"AZURE_CLIENT_SECRET": "made up"}, "AADSTS7000215", id="secret"),
        pytest.param("a secret", {"AZURE_CLIENT_ID": NO_TENANT}, "AADSTS700016", id="application"),
        pytest.param("a secret", {"AZURE_TENANT_ID": NO_TENANT}, "AADSTS90002", id="tenant"),
        pytest.param("a VM", {}, "invalid_request", id="no identity"),
    ],
)
def test_machine_refused_by_its_issuer_says_the_code(
    name: str, changes: dict[str, str], code: str, machine: Machine
) -> None:
    environ = {**platforms(machine)[name][0], **changes}
    assert code in refusal_of(get(machine, **environ))


@pytest.mark.programs
def test_machine_refused_by_the_organization_leaves_it_to_the_next_source(machine: Machine) -> None:
    services = machine.services
    services.contoso.members.remove("robot")
    machine.fake_az(services.ada)
    token = answer_of(get(machine, **platforms(machine)["a secret"][0]))
    assert services.tokens[token].account is services.ada
    assert services.asked() == [COLD[0], f"POST {ENTRA}", *COLD]


# --- real programs: what people reported -----------------------------------------------------


@pytest.mark.programs
def test_report_output_is_not_the_token_alone(machine: Machine) -> None:
    machine.fake_az(machine.services.ada, "notice")
    session_of(machine, get(machine))


@pytest.mark.programs
def test_report_relative_setting(machine: Machine) -> None:
    machine.fake_az(machine.services.ada)
    answer_of(get(machine, AZURE_CONFIG_DIR=".azure-dev"))
    [call] = machine.calls("az")
    assert call["environ"]["AZURE_CONFIG_DIR"] == str(machine.home / ".azure-dev")
    assert call["cwd"] == "/"


@pytest.mark.programs
def test_report_advised_command_helps(machine: Machine) -> None:
    machine.fake_az(machine.services.ada, "AADSTS50076: Due to a configuration change")
    told = refusal_of(get(machine))
    assert "AADSTS50076" in told
    assert f"az login --tenant {CONTOSO_TENANT} --scope {SCOPE}'" in told


@pytest.mark.programs
@pytest.mark.parametrize("place", ["the exchange", "the feed"])
def test_report_refusal_that_is_no_401(place: str, machine: Machine) -> None:
    """Nothing wider is handed out, although the feed would take it."""
    services, environ = machine.services, {}
    if place == "the exchange":
        machine.fake_az(services.ada)
        services.faults = [Fault(devops_error(403, POLICY), path="/SessionTokens")]
    else:
        environ = platforms(machine)["a secret"][0]
        services.contoso.refused_by_policy.add("robot")
    assert "VS403463" in refusal_of(get(machine, **environ))


@pytest.mark.programs
def test_report_url_as_a_person_writes_it(machine: Machine) -> None:
    machine.fake_az(machine.services.ada)
    path = "/contoso/My Project/_packaging/feed/pypi/simple/"
    session_of(machine, machine.keyring("get", HOST + path, "me"))
    assert machine.services.requests[0].path == path.replace(" ", "%20")


@pytest.mark.programs
def test_report_keyring_keeps_nothing(machine: Machine) -> None:
    fake_keyring(machine)
    machine.fake_az(machine.services.ada)
    machine.environ["STAND_IN_KEYRING"] = "refuse"
    assert len({answer_of(get(machine)) for _ in range(2)}) == 1
    assert machine.services.asked() == COLD


@pytest.mark.programs
def test_report_browser_opens_nothing(machine: Machine) -> None:
    machine.fake_browser(machine.services.ada)
    terminal = machine.terminal(*STDERR_HIDDEN, *GET, env={"BROWSER": "/bin/true"})
    address = terminal.read_until(rf"(https://{re.escape(ENTRA)}/\S+/authorize\?\S+)\s")[1]
    machine.run("browser", address)  # by hand
    session_of(machine, terminal.end())


@pytest.mark.programs
@pytest.mark.parametrize("name", ["AZURE_DEVOPS_EXT_PAT", "AZURE_DEVOPS_EXT_PAT_FILE"])
def test_report_secret_is_missing_or_ends_with_a_line_break(name: str, machine: Machine) -> None:
    services = machine.services
    machine.fake_az(services.ada)
    session_of(machine, get(machine, **{name: ""}))
    pat = services.pat(services.ada)
    path = machine.own / "pat"
    path.write_text(f"{pat}\r\n")
    value = f"{pat}\n" if name == "AZURE_DEVOPS_EXT_PAT" else str(path)
    assert get(machine, **{name: value}).stdout == f"{pat}\n"


@pytest.mark.programs
@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="not mapped"),
        pytest.param({**OF_FABRIKAM, "SYSTEM_ACCESSTOKEN": "made-up-token"}, id="of another"),
    ],
)
def test_report_advice_for_another_place(environ: dict[str, str], machine: Machine) -> None:
    told = refusal_of(get(machine, TF_BUILD="True", **environ))
    assert "SYSTEM_ACCESSTOKEN: $(System.AccessToken)" in told
    assert ("'fabrikam'" in told) == bool(environ)
    assert "az login" not in told


def lax_authority() -> trustme.CA:
    """As of an inspecting proxy: its basicConstraints are not critical, which Python 3.13 minds."""
    strict = trustme.CA()
    old = x509.load_pem_x509_certificate(strict.cert_pem.bytes())
    times = (old.not_valid_before_utc, old.not_valid_after_utc)
    made = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), 1, *times)
    for each in old.extensions:
        made = made.add_extension(each.value, critical=False)
    key = strict.private_key_pem.bytes()
    private: Any = load_pem_private_key(key, None)
    signed = made.sign(private, SHA256())
    return trustme.CA.from_pem(signed.public_bytes(Encoding.PEM), key)


def test_report_authority_of_an_inspecting_proxy(tmp_path: Path) -> None:
    lax, host = lax_authority(), "pkgs.dev.azure.com"
    lax.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ka.trust({"REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")})
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lax.issue_cert(host).configure_cert(serving)
    ours, theirs = socket.socketpair()
    serve = functools.partial(serving.wrap_socket, theirs, server_side=True)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with context.wrap_socket(ours, server_hostname=host) as connection:
        assert connection.version()
    thread.join()
    theirs.close()


@pytest.mark.programs
@pytest.mark.parametrize(
    "secret", [{}, {"AZURE_CLIENT_SECRET": "of a web app"}], ids=["alone", "with its secret"]
)
def test_report_variable_for_something_else(secret: dict[str, str], machine: Machine) -> None:
    services = machine.services
    machine.fake_browser(services.ada)
    environ = {"AZURE_CLIENT_ID": str(uuid.uuid4()), **secret}
    environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = services.local_url
    assert len({session_of(machine, get(machine, **environ)) for _ in range(2)}) == 1
    assert len(machine.calls("browser")) == 1


@pytest.mark.programs
def test_report_200_that_is_no_feed(machine: Machine) -> None:
    machine.fake_az(machine.services.ada)
    machine.services.faults = [Fault(Reply(200, b"<p>Blocked.", (HTML_TYPE,)), HOST[8:])]
    told = refusal_of(get(machine))
    assert (told.count("\n"), HOST[8:] in told, machine.calls("az")) == (1, True, [])


@pytest.mark.programs
def test_report_public_but_not_for_this_package(machine: Machine) -> None:
    machine.services.contoso.public = machine.services.contoso.upstream = True
    machine.fake_browser(machine.services.ada)
    done = machine.terminal(*GET).end()
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    machine.fake_az(machine.services.ada)
    session_of(machine, get(machine))
    assert machine.calls("browser") == []


@pytest.mark.programs
def test_report_spent_twice(machine: Machine) -> None:
    services = machine.services
    machine.fake_browser(services.ada)
    services.faults = [Fault("drop", ENTRA, body="grant_type=authorization_code")]
    assert ENTRA in refusal_of(get(machine))
    assert services.asked().count(f"POST {ENTRA}") == 1


@pytest.mark.programs
def test_report_platform_with_an_address_of_its_own(machine: Machine) -> None:
    """It is asked past the proxy; here nobody answers, and the next source does."""
    machine.fake_az(machine.services.ada)
    machine.allowed = ("identity header",)  # which az uses too
    environ = machine.services.variables("app service")
    environ["IDENTITY_ENDPOINT"] = "http://172.16.5.3:8081/msi/token"
    session_of(machine, get(machine, **environ))
    assert machine.strays() == ["172.16.5.3"]
    assert machine.services.asked() == COLD
    (machine.own / "strays").unlink()


@pytest.mark.programs
def test_report_token_service_of_a_scale_unit(machine: Machine) -> None:
    machine.services.contoso.authorization_endpoint = "https://wcus0.app.vssps.visualstudio.com/"
    machine.fake_az(machine.services.ada)
    session_of(machine, get(machine))
    assert machine.services.asked() == COLD


# What tox 4 passes on by itself, and what the stand-ins need.
TOX_PASSES = "HOME LANG PATH PIP_* SSL_CERT_FILE TMPDIR https_proxy PYTHONPATH STAND_IN_* COV*"


@pytest.mark.programs
def test_report_environment_is_cleaned(machine: Machine) -> None:
    """By tox; the README's `pass_env` lets an application and a Secret Service through."""
    services, whole = machine.services, machine.environ
    whole.update(identity(services), AZURE_CLIENT_SECRET=services.robot.secret)
    whole["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/missing"
    [pass_env] = re.findall(r"^pass_env = (.*)", README, re.M)
    for passed, status in ("", 1), (pass_env, 0):
        names = f"{TOX_PASSES} {passed}".replace("*", ".*").replace(",", "").replace(" ", "|")
        cleaned = {name: text for name, text in whole.items() if re.fullmatch(names, name)}
        assert ("DBUS_SESSION_BUS_ADDRESS" in cleaned) == bool(passed)
        machine.environ = cleaned
        assert get(machine).returncode == status


@pytest.mark.programs
@pytest.mark.parametrize("fresh", [True, False], ids=["a new one", "none"])
def test_report_old_proof_beside_a_new_one(fresh: bool, machine: Machine) -> None:
    services = machine.services
    environ = {**identity(services), **OF_FABRIKAM}
    environ["idToken"] = services.federated_token(PIPELINE, lifetime=-60)
    if fresh:
        environ.update(services.variables("pipeline"))
        token = answer_of(get(machine, **environ))
        assert services.tokens[token].account is services.robot
    else:
        assert "AADSTS700024" in refusal_of(get(machine, **environ))


# The programs of the README's token commands, and what they print around a token.
AROUND_TOKEN = {
    "azd": 'WARNING: update available\n{{"token": "{}", "expiresOn": "2099-01-01T00:00:00Z"}}',
    "pwsh": "\x1b[33;1mWARNING: a breaking change is near.\x1b[0m\n{}\r\n",
    "sh": "{}",
    "python": "{}",
}
AZURE_IDENTITY = f"""
class Token(str):
    token = property(str)
class ManagedIdentityCredential:
    def get_token(self, scope):
        assert scope == {SCOPE!r}
        return Token({{!r}})
"""


@pytest.mark.programs
@pytest.mark.parametrize("command", TOKEN_COMMANDS, ids=lambda command: command.split()[0])
def test_report_identity_of_another_program(command: str, machine: Machine) -> None:
    services, (program, *argv) = machine.services, shlex.split(command)
    around, token = AROUND_TOKEN[program], services.entra_token(services.ada)
    if program == "python":
        (machine.bin / "python").symlink_to(sys.executable)
        (machine.site / "azure").mkdir()
        (machine.site / "azure" / "identity.py").write_text(AZURE_IDENTITY.format(token))
    else:
        if program == "sh":  # runs what lies in the home folder of a codespace
            program, argv = "ado-auth-helper", ["get-access-token"]
            (machine.home / program).symlink_to(machine.bin / program)
        machine.put_program(program, "print(does)", around.format(token))
    session_of(machine, get(machine, KEYRINGS_ARTIFACTS_TOKEN_COMMAND=command))
    [exchange] = [each for each in services.requests if each.method == "POST"]
    assert exchange.credential() == ("bearer", token)
    calls = [call["argv"] for call in machine.calls(program)]
    assert calls == ([] if program == "python" else [argv])


# --- real programs: faults -------------------------------------------------------------------

TOO_MANY = Reply(429, headers=(("Retry-After", "1"),))
GARBAGE = Reply(200, bytes(range(256)))
Prepare = Callable[[Machine], object]
FORMS = ("_packaging/feed", "p/_packaging/feed", "_packaging/feed@Local", "p/_packaging/other")


def of_both(machine: Machine, *forms: str) -> list[str]:
    """Feeds of two organizations in turn, in both of which a person is."""
    services = machine.services
    services.fabrikam.tenant = services.contoso.tenant
    services.fabrikam.members.add(services.ada.name)
    names = ("contoso", "fabrikam")
    return [f"{HOST}/{name}/{form}/pypi/simple/" for form in forms for name in names]


@pytest.fixture
def machines(services: Services, tmp_path: Path) -> Iterator[Callable[[], Machine]]:
    """Makes machines among services of their own, so that they can wait at the same time."""
    made: list[Machine] = []
    with contextlib.ExitStack() as stack:

        def make() -> Machine:
            folder = tmp_path / str(len(made))
            folder.mkdir()
            made.append(Machine(stack.enter_context(Services()), folder))
            return made[-1]

        yield make
        for machine in made:
            for process in machine.started:
                with process:
                    process.kill()
            assert (leaks(machine), machine.strays()) == ([], [])


def kept_entry(machine: Machine, **changes: object) -> Path:
    """Have a keyring in which a sign-in of two hours ago is kept."""
    services, kept = machine.services, fake_keyring(machine)
    entry = {"token": services.session_token(services.ada), "kind": "session", "refresh": ""}
    times = {"checked": services.now() - 7200, "expires": services.now() + 7200}
    text = json.dumps({**entry, **times, **changes})
    kept.write_text(json.dumps({"keyrings.artifacts/contoso 1": f"1:{text}"}))
    return kept


def by_az(machine: Machine) -> None:
    machine.fake_az(machine.services.ada)


def by_secret(machine: Machine) -> None:
    robot = machine.services.robot
    machine.environ.update(AZURE_CLIENT_ID=robot.client_id, AZURE_CLIENT_SECRET=robot.secret)


def by_issuer(machine: Machine) -> None:
    machine.environ.update(identity(machine.services), **machine.services.variables("github"))


def by_identity(machine: Machine) -> None:
    services = machine.services
    services.identity = services.robot  # past the proxies, which are there for others
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), services.proxy_url)
    machine.environ.update(services.variables("app service"), **proxies)


def by_pat(machine: Machine) -> None:
    machine.environ["AZURE_DEVOPS_EXT_PAT"] = machine.services.pat(machine.services.ada)


def by_browser(machine: Machine) -> None:
    machine.fake_browser(machine.services.ada)


def by_device_code(machine: Machine) -> None:
    """On a terminal, for a person who enters each code at once."""
    services = machine.services

    def approve(request: Recorded) -> Reply:
        for each in services.sign_ins.values():
            each.account = services.ada
        return services.sign_in_service(request)

    services.add_host(ENTRA, approve)
    machine.environ["TERM"] = "xterm"


def by_refresh_token(machine: Machine) -> None:
    value = machine.services.note("refresh_token", secrets.token_urlsafe(700))
    machine.services.ada.refresh_tokens.add(value)
    kept_entry(machine, token="", kind="refresh", refresh=value)


def begin(machine: Machine, url: str = URL) -> Callable[..., Done]:
    """Start a look-up in a folder of its own, which is there for traps; the answer ends it."""
    argv, folder = ("keyring", "get", url, "me"), machine.home / "here"
    folder.mkdir(exist_ok=True)
    if "TERM" in machine.environ:
        return machine.terminal(*argv).end
    return functools.partial(machine.finish, machine.start(*argv, cwd=folder))


def notices(done: Done) -> int:
    """How often something was said, but for where to sign in."""
    assert "Traceback" not in done.stderr
    return len(re.findall("^keyrings.artifacts: (?!To sign in|Sign in)", done.stderr, re.M))


class Step(NamedTuple):
    """A request on the way to a credential, and the faults that it survives if they pass."""

    prepare: Prepare
    host: str
    path: str = ""
    passes: Sequence[int | str | Reply] = (503, "drop")
    ends: Sequence[int | str | Reply] = ()  # after which it may have been done: not sent again
    lasts: Sequence[int | str | Reply] = (503, "drop", GARBAGE)  # for ever


STEPS = {
    "discovery": Step(by_az, FEEDS, passes=(503, 502, TOO_MANY, "drop")),
    "secret": Step(by_secret, ENTRA, "/token", passes=(503, "drop", "cut")),
    "exchange": Step(by_az, TOKENS, passes=(), ends=(503, TOO_MANY, "drop", "cut")),
    "code": Step(by_browser, ENTRA, "/token", passes=(), ends=(503, TOO_MANY, "drop")),
    "refresh": Step(by_refresh_token, ENTRA, "/token"),
    "device code": Step(by_device_code, ENTRA, "/devicecode"),
    "device poll": Step(by_device_code, ENTRA, "/token", (503, 502, "drop"), (), (GARBAGE,)),
    "identity": Step(by_identity, "127.0.0.1"),
    "issuer": Step(by_issuer, "pipelines.actions.githubusercontent.com"),
    "check": Step(kept_entry, FEEDS),
}


@pytest.mark.programs
@pytest.mark.parametrize("name", STEPS)
def test_faults_at_a_step(name: str, machines: Callable[[], Machine]) -> None:
    """What passes is survived; what lasts is one sentence, but where a session is kept."""
    step, running = STEPS[name], list[Any]()
    for what in (*step.passes, *step.ends, *step.lasts):
        lasts = len(running) >= len((*step.passes, *step.ends))
        machine = machines()
        step.prepare(machine)
        machine.services.faults = [Fault(what, step.host, step.path, times=99 if lasts else 1)]
        running.append((what, lasts, machine, begin(machine)))
    for what, lasts, machine, end in running:
        done, asked = end(), machine.services.requests
        times = sum(each.host == step.host and step.path in each.path for each in asked)
        succeeds = name == "check" or not (lasts or what in step.ends)
        assert (what, lasts, done.returncode) == (what, lasts, int(not succeeds)), done.stderr
        if succeeds:
            assert machine.services.accepts(done.stdout.strip())
            continue
        expected = 1 if what == GARBAGE or what in step.ends else 3
        assert (what, times, notices(done), done.stdout) == (what, expected, 1, "")


@pytest.mark.programs
def test_faults_that_never_end(machines: Callable[[], Machine]) -> None:
    """Who hangs, or drips a byte a second, is given up; all at once, as they take long."""
    rows: dict[str, tuple[Prepare, Fault, int, int]] = {
        "a feed that hangs": (by_az, Fault("hang", FEEDS), 1, 1),
        "a feed whose body drips, unread": (by_az, Fault("drip", FEEDS), 0, 0),
        "a token that drips": (by_secret, Fault("drip", ENTRA), 1, 1),
        "an exchange that drips": (by_az, Fault("drip", TOKENS), 1, 1),
        "a code that hangs": (by_browser, Fault("hang", ENTRA, "/token"), 1, 1),
        "an identity that hangs": (by_identity, Fault("hang", "127.0.0.1"), 1, 1),
        "a check that hangs": (kept_entry, Fault("hang", FEEDS), 0, 0),
        "polls that fail": (by_device_code, Fault(502, ENTRA, "/token"), 1, 1),
        "az that hangs": (lambda each: each.fake_az(each.services.ada, "hang"), Fault(0), 1, 1),
        "a keyring that hangs": (by_az, Fault(0), 0, 1),
    }
    running = {}
    for name, (prepare, fault, _, _) in rows.items():
        machine = machines()
        prepare(machine)
        machine.services.faults = [fault] if fault.what else []
        if "keyring" in name:
            fake_keyring(machine)
            machine.environ["STAND_IN_KEYRING"] = "hang"
        running[name] = machine, begin(machine)
    for name, (machine, end) in running.items():
        done = end(timeout=60)
        assert (name, done.returncode, notices(done)) == (name, *rows[name][2:])
        assert machine.services.accepts(done.stdout.strip()) == (done.returncode == 0)


PEAK = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.programs
@pytest.mark.parametrize(
    ("host", "status", "size", "expected"),
    [
        pytest.param(FEEDS, 401, 250, 0, id="discovery"),
        pytest.param(FEEDS, 200, 60, 0, id="an index of 60 MB"),
        pytest.param(TOKENS, 200, 250, 1, id="exchange"),
    ],
)
def test_faults_of_size(host: str, status: int, size: int, expected: int, machine: Machine) -> None:
    by_az(machine)
    marks = machine.services.contoso.marks()
    machine.services.faults = [Fault(Reply(status, b"{" * 2**20, marks, repeat=size), host)]
    done = machine.run(sys.executable, "-c", PEAK, *GET)
    assert (done.returncode, done.stdout == "") == (expected, expected > 0)
    assert int(done.stderr.splitlines()[-1]) < 150 * 1024  # KB


# --- real programs: proxies and certificates -------------------------------------------------


@pytest.mark.programs
@pytest.mark.parametrize(
    ("login", "given", "status"),
    [
        pytest.param("corp\\ada:p@ss:w/rd%1", "corp\\ada:p@ss:w/rd%1", 0, id="right"),
        pytest.param("ada:made-up-password", "ada:another-made-up", 1, id="wrong"),
    ],
)
def test_proxy_that_wants_a_password(login: str, given: str, status: int, machine: Machine) -> None:
    services = machine.services
    services.proxy_login = login
    services.note("password", given.partition(":")[2])
    by_az(machine)
    url = services.local_url.replace("://", f"://{quote(given, safe=':')}@")
    done = get(machine, HTTPS_PROXY=url, https_proxy=url)
    told = (done.returncode, notices(done), "HTTPS_PROXY" in done.stderr)
    assert told == (status, status, status == 1)
    assert len(services.tunnels) == (1 if status else 2)  # a wrong one, tried again, locks accounts


@pytest.mark.programs
def test_proxy_that_is_dead_or_not_for_this_host(machine: Machine) -> None:
    dead = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    assert "HTTPS_PROXY" in refusal_of(get(machine, **dead))
    assert FEEDS in refusal_of(get(machine, NO_PROXY="localhost,dev.azure.com"))
    assert (set(machine.strays()), machine.services.tunnels) == ({FEEDS}, [])
    (machine.own / "strays").unlink()


@pytest.mark.programs
@pytest.mark.parametrize(
    ("name", "trusted"),
    [(each, True) for each in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")]
    + [(each, False) for each in ("", "SSL_CERT_FILE", "PIP_CERT")],
)
def test_certificate_of_an_authority(name: str, trusted: bool, machine: Machine) -> None:
    """It is looked for where a variable says; where that does not help, it is named."""
    by_az(machine)
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
    [ca] = {machine.environ.pop(each) for each in names}
    if not trusted:
        trustme.CA().cert_pem.write_to_path(ca)
    machine.environ.update({name: ca} if name else {})
    if trusted:
        session_of(machine, get(machine))
    else:
        assert (name or "REQUESTS_CA_BUNDLE") in refusal_of(get(machine))
        assert (machine.services.requests, len(machine.services.tunnels)) == ([], 1)


# --- real programs: attacks ------------------------------------------------------------------

HONEST = {FEEDS, TOKENS, ENTRA, "127.0.0.1", "pipelines.actions.githubusercontent.com"}
TWO_LINES = "made-up-token\r\nHost: evil.example"
ESCAPES = "\x1b[2J\x1b]0;ada\x07\nkeyrings.artifacts: all is well"


class Attack(NamedTuple):
    prepare: Prepare
    status: int  # 0: a credential is found nevertheless
    says: Mapping[str, object] = {}  # in the name of the organization
    fault: Fault | None = None
    url: str = URL


def at(step: str, status: int, says: object, code: int = 200, **headers: str) -> Attack:
    """A step that somebody else answers; once, with a header Retry-After."""
    more = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    reply = json_reply(says, code)._replace(headers=more)
    times = 1 if "Retry_After" in headers else math.inf
    fault = Fault(reply, STEPS[step].host, STEPS[step].path, times=times)
    return Attack(STEPS[step].prepare, status, fault=fault)


def device(**says: object) -> Attack:
    page = "https://microsoft.com/devicelogin"
    usual = {"device_code": "made-up-code", "user_code": "ABCD", "verification_uri": page}
    return at("device code", 1, {**usual, "expires_in": 900, "interval": 1, **says})


def by(prepare: Callable[..., object], status: int, **more: object) -> Attack:
    return Attack(functools.partial(prepare, **more), status)


def trap(machine: Machine, path: str, text: str = '#!/bin/sh\n: > "{}/stolen"\n') -> None:
    """Put into the current folder what no one should run."""
    script = machine.home / "here" / path
    script.parent.mkdir(parents=True)
    script.write_text(text.format(machine.folder))
    script.chmod(0o755)


def az_lies(machine: Machine, path: str, entry: str) -> None:
    """An az in a folder that anybody may write to, and the entry of PATH that leads there."""
    by_az(machine)
    trap(machine, path)
    entries = (entry.format(machine.home / "here"), machine.environ["PATH"])
    machine.environ["PATH"] = os.pathsep.join(entries)


def module_lies(machine: Machine) -> None:
    """A module in the current folder, from where `python -m`, as in az, imports first."""
    answer = machine.own / "answer"
    answer.write_text(json.dumps({"token": machine.services.entra_token(machine.services.ada)}))
    (machine.bin / "az").write_text(f'#!/bin/sh\nexec {sys.executable} -m json.tool "{answer}"\n')
    (machine.bin / "az").chmod(0o755)
    trap(machine, "json.py", 'open("{}/stolen", "w")')


def token_lies(machine: Machine) -> None:
    az_lies(machine, "token", ".")
    machine.environ["KEYRINGS_ARTIFACTS_TOKEN_COMMAND"] = "token"
    machine.environ["KEYRINGS_ARTIFACTS_SOURCES"] = "token_command"


def issuer_in_the_clear(machine: Machine) -> None:
    by_issuer(machine)
    machine.environ["ACTIONS_ID_TOKEN_REQUEST_URL"] = "http://evil.example/?api-version=2.0"
    machine.environ["HTTP_PROXY"] = machine.services.proxy_url


def strange_name(machine: Machine) -> None:
    services = machine.services
    services.contoso.never_signed_in.add(f"{ESCAPES}@contoso.example")
    machine.fake_az(services.account(f"{ESCAPES}@contoso.example", CONTOSO_TENANT))


EVIL, AUTHORITY = "https://evil.example", f"https://{ENTRA}/{CONTOSO_TENANT}"
AUTHORITIES = f"""
{EVIL}/{CONTOSO_TENANT} https://{ENTRA}.evil.example/{CONTOSO_TENANT}
https://{ENTRA}@evil.example/{CONTOSO_TENANT} {AUTHORITY},authorization_uri={EVIL}
"""
TOKEN_SERVICES = f"""
{EVIL}/contoso https://{TOKENS}/fabrikam https://fabrikam.vssps.visualstudio.com
https://app.vssps.visualstudio.com@evil.example/
"""
IMITATIONS = f"""
https://{FEEDS}.evil.example https://{FEEDS}@evil.example https://evil.example\\@{FEEDS}
https://{FEEDS}:8443 http://{FEEDS}
"""
REDIRECTED = ("discovery", "secret", "exchange", "code", "identity", "issuer", "check")
ATTACKS = {
    **{
        f"authority {uri}": Attack(by_secret, 1, {"authorization_uri": uri})
        for uri in AUTHORITIES.split()
    },
    "tenant that is a host": Attack(by_secret, 1, {"tenant": "@evil.example"}),
    "tenants that differ": Attack(
        by_secret, 1, {"tenant": FABRIKAM_TENANT, "authorization_uri": AUTHORITY}
    ),
    **{
        f"token service {url}": Attack(by_az, 0, {"authorization_endpoint": url})
        for url in TOKEN_SERVICES.split()
    },
    **{
        f"redirect of {step}": at(step, int(step != "discovery"), "", 307, Location=f"{EVIL}/")
        for step in REDIRECTED
    },
    **{
        f"Retry-After {value!a}": at("discovery", 0, "", 429, Retry_After=value)
        for value in ("1e9", "-1", "\x1b[2J")
    },
    "device page elsewhere": device(verification_uri=f"{EVIL}/"),
    "device page that looks alike": device(verification_uri="https://microsoft.com.evil.example/"),
    "device page that is a script": device(verification_uri="javascript:alert(1)"),
    "device code with escapes": device(user_code=ESCAPES),
    "kept token of two lines": by(kept_entry, 1, token=TWO_LINES),
    "kept refresh token of two lines": by(kept_entry, 1, refresh=TWO_LINES),
    "kept in the future": by(kept_entry, 1, checked=9e9, token="made-up-token"),
    "kept times that are none": by(kept_entry, 1, expires="never", checked=[]),
    "kept with a host": by(kept_entry, 1, token_service=EVIL),
    "session of two lines": at("exchange", 1, {"token": TWO_LINES}),
    "proof of two lines": at("issuer", 1, {"value": TWO_LINES}),
    "issuer in the clear": Attack(issuer_in_the_clear, 1),
    "identity of two lines": at("identity", 1, {"access_token": TWO_LINES}),
    "identity of a list": at("identity", 1, ["access_token"]),
    "identity with escapes": at("identity", 1, {"error": ESCAPES}, 400),
    "identity through a proxy": Attack(by_identity, 0),
    "account with escapes": Attack(strange_name, 1),
    **{
        f"feed {url}": Attack(by_pat, 1, url=f"{url}/contoso/_packaging/feed/pypi/simple/")
        for url in IMITATIONS.split()
    },
    "module in the current folder": Attack(module_lies, 0),
    "az in the current folder": by(az_lies, 0, path="az", entry="."),
    "az in the current folder, unnamed": by(az_lies, 0, path="az", entry=""),
    "az in the current folder, by its full name": by(az_lies, 0, path="az", entry="{}"),
    "az on a relative PATH": by(az_lies, 0, path="bin/az", entry="bin"),
    "token command in the current folder": Attack(token_lies, 1),
}


@pytest.mark.programs
@pytest.mark.parametrize("name", ATTACKS)
def test_attack_gains_nothing(name: str, machine: Machine) -> None:
    services, attack = machine.services, ATTACKS[name]
    services.routes.append((".*", lambda _: json_reply({"access_token": "a" * 80})))
    attack.prepare(machine)
    vars(services.contoso).update(attack.says)
    services.faults = [dataclasses.replace(attack.fault)] if attack.fault else []
    done = begin(machine, attack.url)()
    assert done.returncode == attack.status, done.stderr
    honest = {FEEDS} if attack.says and attack.status else HONEST  # in doubt nothing is sent on
    assert {each.host for each in services.requests} <= honest
    assert {each.partition(":")[0] for each in services.tunnels} <= HONEST
    assert not any("fabrikam" in each.path for each in services.requests)
    assert not (machine.folder / "stolen").exists()
    assert "evil.example/" not in done.stderr
    assert all(map(str.isprintable, done.stderr.splitlines()))
    assert services.accepts(done.stdout.strip()) == (attack.status == 0)
    if attack.url != URL:
        assert (done.stderr, services.tunnels) == ("", [])


# --- real programs: stores -------------------------------------------------------------------


@pytest.mark.programs
def test_keyring_that_is_locked_leaves_it_to_the_next_place(machine: Machine) -> None:
    """That is a file here, for the session alone; each process says so once."""
    fake_keyring(machine)
    machine.environ["STAND_IN_KEYRING"] = "locked"
    by_browser(machine)
    [token] = {session_of(machine, get(machine)) for _ in range(2)}
    assert (len(machine.calls("browser")), [*map(notices, machine.done)]) == (1, [1, 1])
    assert [token in each for each in contents(machine)] == [True]


@pytest.mark.programs
@pytest.mark.parametrize("text", ["", "2:{", "1:[]", "1:" + "[" * 99999, '99:{"token": "a"}'])
def test_keyring_entry_that_is_broken_is_replaced(text: str, machine: Machine) -> None:
    fake_keyring(machine).write_text(json.dumps({"keyrings.artifacts/contoso 1": text}))
    by_az(machine)
    tokens = {answer_of(get(machine)) for _ in range(2)}
    assert (len(tokens), machine.services.asked()) == (1, COLD)


def given_away(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may give files away")
    os.chown(path, 12345, 12345)


def linked(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.programs
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe\x00"), id="no text"),
        pytest.param(lambda path: path.chmod(0o604), id="open to others"),
        pytest.param(lambda path: path.chmod(0o660), id="open to a group"),
        pytest.param(given_away, id="of another"),
        pytest.param(linked, id="a link"),
        pytest.param(piped, id="a pipe"),
    ],
)
def test_file_that_is_spoiled_is_replaced(spoil: Callable[[Path], None], machine: Machine) -> None:
    by_az(machine)
    first = session_of(machine, machine.run("sh", "-c", 'umask 000; exec "$@"', "sh", *GET))
    [path] = machine.home.rglob("*contoso*")
    machine.services.asked()
    spoil(path)
    path.parent.chmod(0o770)
    second = answer_of(get(machine))
    assert (second != first, machine.services.asked()) == (True, COLD)
    assert (answer_of(get(machine)), machine.services.asked()) == (second, [])
    modes = [stat.filemode(each.lstat().st_mode) for each in (path, path.parent)]
    assert (modes, path.stat().st_uid) == (["-rw-------", "drwx------"], os.geteuid())
    assert {each.name for each in path.parent.iterdir()} == {path.name, "sign-in.lock"}


TWO_LOOK_UPS = """
import keyring, sys
found = [keyring.get_password(url, "me") for url in sys.argv[2:]]
print(len({*found} - {None}), "found")
"""


@pytest.mark.programs
@pytest.mark.parametrize(
    ("shell", "environ"),
    [
        pytest.param("", {"XDG_DATA_HOME": "relative"}, id="no absolute folder"),
        pytest.param("", {"XDG_DATA_HOME": "/proc/nowhere"}, id="a home that is read-only"),
        pytest.param("unset XDG_DATA_HOME;", {"HOME": "/dev/null"}, id="no home"),
        pytest.param("ulimit -f 0;", {}, id="a full disk"),
    ],
)
def test_no_place_costs_one_notice(shell: str, environ: dict[str, str], machine: Machine) -> None:
    """Nobody is kept from an answer, though nothing can be kept."""
    services = machine.services
    urls = of_both(machine, FORMS[0])
    (machine.own / "token").write_text(services.entra_token(services.ada))
    machine.environ["KEYRINGS_ARTIFACTS_TOKEN_COMMAND"] = f"cat {machine.own / 'token'}"
    unmeasured = {name: "" for name in machine.environ if name.startswith("COV")}
    program = (sys.executable, "-c", TWO_LOOK_UPS, "get", *urls)
    done = machine.run("sh", "-c", f'{shell} exec "$@"', "sh", *program, env=environ | unmeasured)
    assert (done.returncode, done.stdout) == (0, "2 found\n"), done.stderr
    assert notices(done) == 1


# --- real programs: many at once -------------------------------------------------------------


def wait_until(condition: Callable[[], bool]) -> None:
    while True:  # in time, or the test ends
        with contextlib.suppress(FileNotFoundError):  # closed while it was looked at
            if condition():
                return
        time.sleep(0.02)


def at_the_lock(machine: Machine) -> list[bool]:
    """Whether each process that was started has a file in HOME open."""
    folders = [Path(f"/proc/{process.pid}/fd") for process in machine.started]
    files = [[os.readlink(each) for each in folder.iterdir()] for folder in folders]
    return [any(each.startswith(str(machine.home)) for each in opened) for opened in files]


@pytest.mark.programs
def test_processes_at_once_sign_in_once_an_organization(machine: Machine) -> None:
    urls = of_both(machine, *FORMS)
    by_browser(machine)
    ends = [begin(machine, url) for url in urls]
    tokens = [session_of(machine, end()) for end in ends]
    assert len({*tokens[::2]}) == len({*tokens[1::2]}) == len(machine.calls("browser")) - 1 == 1


@pytest.mark.programs
def test_processes_that_wait_fail_with_the_one_that_asked(machine: Machine) -> None:
    machine.fake_browser(machine.services.ada, "close")
    ends = [begin(machine) for _ in range(8)]
    wait_until(lambda: all(at_the_lock(machine)) and machine.calls("browser") != [])
    [call] = machine.calls("browser")
    asked = dict(parse_qsl(urlsplit(call["argv"][-1]).query))
    answer = {"error": "access_denied", "state": asked["state"]}
    with urllib3.PoolManager() as client:
        client.request("POST", asked["redirect_uri"], fields=answer, encode_multipart=False)
    done = [end() for end in ends]
    assert len({refusal_of(each).splitlines()[-1] for each in done}) == 1
    assert [*map(notices, done)] == [1] * 8
    assert len(machine.calls("browser")) == 1


@pytest.mark.programs
def test_process_that_is_killed_leaves_its_turn_to_the_next(machine: Machine) -> None:
    machine.fake_browser(machine.services.ada, "close")
    first = machine.start(*GET)
    wait_until(lambda: machine.calls("browser") != [])
    end = begin(machine)
    wait_until(lambda: all(at_the_lock(machine)))
    by_browser(machine)
    first.send_signal(signal.SIGKILL)
    session_of(machine, end())
    assert len(machine.calls("browser")) == 2


THREADS = """
import sys, threading, keyrings_artifacts
backends = [keyrings_artifacts.ArtifactsKeyringBackend() for _ in range(4)]
found = []
def look_up(number):
    url = sys.argv[2 + number % (len(sys.argv) - 2)]
    found.append(backends[number % 4].get_password(url, "me"))
threads = [threading.Thread(target=look_up, args=(number,)) for number in range(8)]
for each in threads: each.start()
for each in threads: each.join()
assert len(found) == 8
print(*{*found})
"""


@pytest.mark.programs
def test_threads_of_several_backends_sign_in_once(machine: Machine) -> None:
    by_az(machine)
    machine.services.latency = 0.1
    urls = [f"{HOST}/contoso/{form}/pypi/simple/" for form in FORMS]
    done = machine.run(sys.executable, "-c", THREADS, "get", *urls)
    assert machine.services.accepts(done.stdout.strip()), done.stderr
    assert (machine.services.asked().count(COLD[1]), len(machine.calls("az"))) == (1, 1)


class Weather(Fault):
    """One request in three meets with a fault."""

    kinds: Iterator[Any] = itertools.cycle((503, 0, 0, "drop", 0, 0, 0, TOO_MANY, 0, 0, 502, 0))

    def reply(self, request: Recorded, regular: Callable[[], Reply]) -> Reply | None:
        what = next(self.kinds)
        return Fault(what).reply(request, regular) if what else None


@pytest.mark.programs
def test_processes_among_faults_spoil_nothing(machine: Machine) -> None:
    """Each ends with a token or with one sentence, and what is kept can be read."""
    urls, services = of_both(machine, *FORMS), machine.services
    by_az(machine)
    kept_alone = {"KEYRINGS_ARTIFACTS_SOURCES": "refresh_token"}
    moods = itertools.cycle(({}, {}, {"STAND_IN_CLOCK": "3700"}, kept_alone, {}))
    services.faults = [Weather(0)]
    for each in (urls * 2, urls * 3):
        started = [machine.start("keyring", "get", url, "me", env=next(moods)) for url in each]
        for process in started:
            done = machine.finish(process)
            if done.returncode:
                assert (done.returncode, done.stdout, notices(done)) == (1, "", 1)
            else:
                assert services.accepts(answer_of(done), done.argv[2].split("/")[3])
    services.faults = []
    for url in urls[:2]:
        token = session_of(machine, machine.keyring("get", url, "me"))
        assert answer_of(machine.keyring("get", url, "me", **kept_alone)) == token


# --- real programs: the doctor ---------------------------------------------------------------

NAMED_URL = URL.replace("://", "://me@")
MADE_UP = "made-up-password"
URL_WITH_PASSWORD = URL.replace("://", f"://me:{MADE_UP}@")
PIP = 'print(f"pip {does[0]} from somewhere" if sys.argv[1] == "--version" else does[1])'
QUICK_KEYRING = """
listed = "keyrings_artifacts.ArtifactsKeyringBackend (priority: 9)"
print(listed if "--list-backends" in sys.argv else os.environ["AZURE_DEVOPS_EXT_PAT"])
"""


def put_instead(machine: Machine, name: str, script: str, does: object = None) -> Path:
    """Put a program in the place of a real one."""
    (machine.bin / name).unlink()
    return machine.put_program(name, script, does)


def examined(machine: Machine, url: str = NAMED_URL) -> tuple[int, str]:
    """Exit status of the doctor, who opens nothing and keeps nothing, and the last of its lines."""
    kept = machine.site / "stand_in_keyring.json"
    before = kept.read_text() if kept.exists() else ""
    done = machine.terminal("keyrings-artifacts", url).end()
    assert (done.stderr, machine.calls("browser")) == ("", [])
    assert not any("devicecode" in each.path for each in machine.services.requests)
    assert MADE_UP not in done.stdout
    assert "NONINTERACTIVE" not in done.stdout  # which nobody set
    assert all(map(str.isprintable, done.stdout.splitlines()))
    assert (kept.read_text() if kept.exists() else "") == before
    assert {path.name for path in machine.home.rglob("*") if path.is_file()} <= {".netrc"}
    return done.returncode, done.stdout.splitlines()[-1]


def by_nothing(machine: Machine) -> None:
    machine.services.contoso.public = True


def make_healthy(machine: Machine) -> None:
    """Have programs as they should be, quick ones."""
    machine.environ["UV_KEYRING_PROVIDER"] = "subprocess"
    put_instead(machine, "pip", PIP, ("26.2", ""))
    put_instead(machine, "keyring", QUICK_KEYRING)
    (machine.home / ".netrc").write_bytes(b"# f\xfcr andere\n")  # which is no UTF-8


@pytest.mark.programs
@pytest.mark.parametrize(
    "prepare", [by_az, by_secret, by_pat, kept_entry, by_refresh_token, by_nothing]
)
def test_doctor_finds_nothing_wrong(prepare: Prepare, machine: Machine) -> None:
    prepare(machine)
    make_healthy(machine)
    has_pip("23.2", "global.keyring-provider='import'")(machine)  # which needs no user name
    sets(UV_INDEX_CORP_USERNAME="me")(machine)
    status, said = examined(machine, URL)
    assert (status, "Nothing" in said) == (0, True)


@pytest.mark.programs
@pytest.mark.parametrize("url", ["https://example.org/simple/", "pkgs.dev.azure.com", "feed"])
def test_doctor_of_no_feed_shows_one(url: str, machine: Machine) -> None:
    status, said = examined(machine, url)
    assert (status, f"https://{FEEDS}/" in said) == (1, True)
    assert (machine.services.tunnels, machine.calls("az")) == ([], [])


@pytest.mark.programs
def test_doctor_is_a_module_too_among_real_programs(machine: Machine) -> None:
    by_az(machine)
    machine.environ["UV_KEYRING_PROVIDER"] = "subprocess"
    done = machine.run(sys.executable, "-m", "keyrings_artifacts", NAMED_URL)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.run(sys.executable, "-m", "keyrings_artifacts").returncode == 2


def sets(**environ: str) -> Prepare:
    return lambda machine: machine.environ.update(environ)


def has_keyring_without_us(machine: Machine) -> None:
    put_instead(machine, "keyring", "print('keyring.backends.fail.Keyring (priority: 0)')")


def has_real_keyring(machine: Machine) -> None:
    """The one of the machine, which knows what is pinned and what stands in front."""
    (machine.bin / "keyring").unlink()
    (machine.bin / "keyring").symlink_to(Path(sys.executable).parent / "keyring")


def has_null_backend(machine: Machine) -> None:
    has_real_keyring(machine)
    machine.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"


def has_no_backend(machine: Machine) -> None:
    has_real_keyring(machine)
    machine.environ["PYTHON_KEYRING_BACKEND"] = ""


def has_null_backend_in_a_file(machine: Machine) -> None:
    has_real_keyring(machine)
    folder = machine.folder / "config" / "python_keyring"
    folder.mkdir(parents=True)
    pin = "[backend]\ndefault-keyring=keyring.backends.null.Keyring\n"
    (folder / "keyringrc.cfg").write_text(pin)
    machine.environ["XDG_CONFIG_HOME"] = str(folder.parent)


def has_backend_in_front(machine: Machine) -> None:
    has_real_keyring(machine)
    fake_keyring(machine)
    module = machine.site / "stand_in_keyring.py"
    module.write_text(module.read_text().replace("priority = 5", "priority = 10.5"))
    machine.environ["STAND_IN_KEYRING"] = "locked"


def has_pip(version: str, config: str = "") -> Prepare:
    return lambda machine: put_instead(machine, "pip", PIP, (version, config))


def has_another_authority(machine: Machine) -> None:
    trustme.CA().cert_pem.write_to_path(machine.environ["SSL_CERT_FILE"])


def has_wrong_clock(machine: Machine) -> None:
    machine.clock_error = 2 * 86400.0


def has_expired_session(machine: Machine) -> None:
    (machine.bin / "az").unlink()
    kept_entry(machine, expires=time.time() - 60, refresh="made-up-refresh-token")


def has_no_permission(machine: Machine) -> None:
    machine.services.contoso.members.clear()


def has_revoked_pat(machine: Machine) -> None:
    by_pat(machine)
    machine.services.tokens.clear()


def has_wrong_secret(machine: Machine) -> None:
    by_secret(machine)
    machine.environ["AZURE_CLIENT_SECRET"] = MADE_UP


def has_netrc(machine: Machine) -> None:
    path = machine.home / ".netrc"
    path.write_text(f"default login me password {MADE_UP}\n")
    path.chmod(0o600)


DEAD = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
UNNAMED = r"https://VssSessionToken@pkgs\.dev\.azure\.com/"
# What is broken, the URL, and what the last line names: variable, program or command.
SET_UPS: dict[str, tuple[Prepare, str, str]] = {
    "keyring without this backend": (has_keyring_without_us, NAMED_URL, "/bin/keyring.* install "),
    "no keyring": (lambda each: (each.bin / "keyring").unlink(), NAMED_URL, "uv tool install key"),
    "provider off": (has_pip("26.2", "global.keyring-provider='disabled'"), NAMED_URL, "keyring-"),
    "no input": (has_pip("26.2", ":env:.no-input='1'"), NAMED_URL, "PIP_KEYRING_PROVIDER=subpro"),
    "provider off, variable": (sets(PIP_KEYRING_PROVIDER="disabled"), NAMED_URL, "PIP_KEYRING_PR"),
    "no user name for uv": (has_pip("26.2"), URL, f"^ERROR: uv .*{UNNAMED}"),
    "no user name for an old pip": (has_pip("23.2"), URL, f"pip 23.2 .*{UNNAMED}"),
    "null backend": (has_null_backend, NAMED_URL, "PYTHON_KEYRING_BACKEND"),
    "empty name of a backend": (has_no_backend, NAMED_URL, "PYTHON_KEYRING_BACKEND"),
    "null backend in a file": (has_null_backend_in_a_file, NAMED_URL, "keyringrc.cfg"),
    "backend in front that raises": (has_backend_in_front, NAMED_URL, "keyring --list-backends"),
    "proxy that is dead": (sets(**DEAD), NAMED_URL, "HTTPS_PROXY"),
    "TLS intercepted": (has_another_authority, NAMED_URL, "REQUESTS_CA_BUNDLE"),
    "clock two days off": (has_wrong_clock, NAMED_URL, "clock .*48.0 hours"),
    "session expired": (has_expired_session, NAMED_URL, f"keyring get {URL}"),
    "wrong organization": (sets(), NAMED_URL.replace("contoso", "contozo"), "404.*/contozo/"),
    "wrong feed": (sets(), NAMED_URL.replace("/feed/", "/fed/"), "404.*/fed/"),
    "no permission": (has_no_permission, NAMED_URL, "TF400813.*https://dev.azure.com/contoso"),
    "token revoked": (has_revoked_pat, NAMED_URL, "AZURE_DEVOPS_EXT_PAT"),
    "token not expanded": (
        sets(SYSTEM_ACCESSTOKEN="$(System.AccessToken)"),
        NAMED_URL,
        "SYSTEM_ACCESSTOKEN holds no token",
    ),
    "secret that is wrong, beside az": (has_wrong_secret, NAMED_URL, "AADSTS7000215"),
    "command that fails, beside az": (sets(**{RUNS: "/bin/false"}), NAMED_URL, RUNS),
    "password in the URL": (sets(), URL_WITH_PASSWORD, "URL has a password"),
    "password in a variable": (sets(PIP_INDEX_URL=URL_WITH_PASSWORD), NAMED_URL, "PIP_INDEX_URL"),
    "password for uv": (
        sets(UV_INDEX_CORP_PASSWORD=MADE_UP, UV_INDEX_CORP_USERNAME="me"),
        NAMED_URL,
        "UV_INDEX_CORP_PASSWORD",
    ),
    "password in a file": (has_netrc, NAMED_URL, r"/\.netrc"),
    "provider of uv unset": (sets(UV_KEYRING_PROVIDER=""), NAMED_URL, "UV_KEYRING_PROVIDER=subpro"),
}


@pytest.mark.programs
@pytest.mark.parametrize("name", SET_UPS)
def test_doctor_names_what_is_broken(name: str, machine: Machine) -> None:
    breaks, url, names = SET_UPS[name]
    by_az(machine)
    make_healthy(machine)
    breaks(machine)
    status, said = examined(machine, url)
    assert (status, said) == (1, said if re.search(names, said) else names)


# Speed: `pytest -m benchmark` prints a table of ratios, and asserts only what is counted.

ROUNDS = 15  # and one before them, which fills what is kept
NOTHING = """
from keyring.backend import KeyringBackend
class Nothing(KeyringBackend):
    priority = 9.95
    def get_password(self, service, username):
        return "nothing"
    def set_password(self, service, username, password):
        raise NotImplementedError
"""
# Runs a program from a process so small that the memory counted is the program's own.
STOPWATCH = """
import resource, subprocess, sys, time
null, began = subprocess.DEVNULL, time.perf_counter()
subprocess.run(sys.argv[1:], stdin=null, stderr=null)
seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print(seconds, used.ru_maxrss, file=sys.stderr)
"""
USER = "VssSessionToken"  # on which 1.0.2 insists
MANY = f"import sys, keyring as k; print(*(k.get_password(u, '{USER}') for u in sys.argv[1:]))"
IMPORT = """
import time, keyring.cli
began = time.perf_counter()
import {}
print((time.perf_counter() - began) * 1000)
"""


class Measure(NamedTuple):
    seconds: float
    memory: float
    asked: list[str]
    good: bool  # every answer opens the feed


class Look(NamedTuple):
    """One or more feeds, looked up by one process or by several at once."""

    name: str
    cold: bool = True  # in a home that is empty
    latency: float = 0.0
    feeds: int = 0  # of one organization, asked for through keyring's API; 0: by `keyring get`
    processes: int = 1
    given: bool = False  # whether a token is, of the kind that a backend takes


LOOKS = (
    Look("`keyring get`, PAT given", given=True),
    Look("`keyring get`, session stored", cold=False),
    Look("`keyring get`, `az`, first call"),
    Look("`keyring get`, `az`, first call, latency 40 ms", latency=0.04),
    *(Look(f"feeds of one organization: {number}", feeds=number) for number in (1, 10, 50)),
    Look("processes at once: 8", processes=8),
)
CONTESTANTS = (
    ("nothing", "nothing", "keyring urllib3"),
    ("this", "keyrings_artifacts", str(ROOT)),
    ("1.0.2", "keyrings_artifacts.artifacts", "keyrings.artifacts==1.0.2"),
    ("nofuss 1.3.3", "artifacts_keyring_nofuss", "artifacts-keyring-nofuss==1.3.3"),
)


class Contestant:
    """A backend in an environment and on a machine of its own; `trouble` is why it is not there."""

    def __init__(self, title: str, module: str, needs: str, services: Services, at: Path) -> None:
        self.title, self.module, place = title, module, at / "venv"
        self.python, self.keyring = str(place / "bin/python"), str(place / "bin/keyring")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", "-q")
        done = subprocess.run([*pip, *needs.split()], capture_output=True, text=True)
        self.trouble = done.stderr.strip().rpartition("\n")[2] if done.returncode else ""
        self.site = next(place.glob("lib/python*/site-packages"))
        if module == "nothing":
            info = self.site / "nothing-1.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nothing\nVersion: 1\n")
            (info / "entry_points.txt").write_text("[keyring.backends]\nnothing = nothing\n")
            (self.site / "nothing.py").write_text(NOTHING)
        self.machine = Machine(services, at)
        self.machine.fake_az(services.ada)

    def size(self) -> str:
        """What it takes on the disk, without byte code."""
        found = distributions(path=[str(self.site)])
        own = next(x for x in found if any(e.value.startswith(self.module) for e in x.entry_points))
        files = [Path(str(own.locate_file(file))) for file in own.files or ()]
        return f"{sum(x.stat().st_size for x in files if x.suffix != '.pyc') / 1000:.0f} kB"

    def opens(self, answer: str) -> bool:
        return answer == self.module == "nothing" or self.machine.services.accepts(answer)

    def look(self, look: Look, variables: Mapping[str, str]) -> Measure:
        machine, services = self.machine, self.machine.services
        urls = [URL.replace("/feed/", f"/feed{number}/") for number in range(look.feeds)]
        arguments = ["-c", MANY, *urls] if urls else [self.keyring, "get", URL, USER]
        watch = (sys.executable, "-IS", "-c", STOPWATCH, self.python, *arguments)
        environ = variables if look.given else {}
        if look.cold:
            shutil.rmtree(machine.home)
            machine.home.mkdir(mode=0o700)
        services.latency = look.latency
        running = [machine.start(*watch, env=environ) for _ in range(look.processes)]
        done = [machine.finish(each, timeout=300) for each in running]
        seconds, memory = map(max, zip(*(map(float, each.stderr.split()) for each in done)))
        answers = "".join(each.stdout for each in done).split()
        good = len(answers) == look.processes * (look.feeds or 1) and all(map(self.opens, answers))
        return Measure(seconds, memory, services.asked(), good)


def counted(asked: Sequence[str]) -> str:
    exchanges = sum(each.startswith("POST vssps.") for each in asked)
    return f"(requests: {len(asked)}, exchanges: {exchanges})"


def token_service_for_peers(services: Services, request: Recorded) -> Reply:
    """The token service, which also makes PATs, and session tokens by the peers' requests."""
    if request.path.endswith("/tokens/pats"):
        return json_reply({"patToken": {"token": services.pat(services.ada)}})
    body = request.body.replace(b'"vso.packaging"', b'"vso.packaging_write"')
    query = {**request.query, "tokenType": "SelfDescribing"}
    return services.token_service(dataclasses.replace(request, query=query, body=body))


@pytest.mark.benchmark
@pytest.mark.timeout(0)
def test_speed(services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whole processes; all contestants take turns, in every round anew."""
    services.contoso.feeds += tuple(f"feed{number}" for number in range(50))
    services.add_host("vssps.dev.azure.com", functools.partial(token_service_for_peers, services))
    variables = {"AZURE_DEVOPS_EXT_PAT": services.pat(services.ada)}
    variables["ARTIFACTS_KEYRING_NOFUSS_TOKEN"] = services.entra_token(services.ada)  # no PAT
    variables["ARTIFACTS_KEYRING_NOFUSS_PROVIDER"] = "env_var"
    every = [Contestant(*each, services, tmp_path / each[1]) for each in CONTESTANTS]
    able = [each for each in every if not each.trouble]
    rows: dict[str, list[str]] = {"": [each.title for each in able], "---": ["---"] * len(able)}
    for look in LOOKS:
        rounds = [[each.look(look, variables) for each in able] for _ in range(ROUNDS + 1)][1:]
        rows[look.name] = []
        for runs in zip(*rounds):
            ratios = [run.seconds / row[0].seconds for run, row in zip(runs, rounds)]
            told = f"{statistics.median(ratios):.2f} {counted(runs[-1].asked)}"
            rows[look.name].append(told if all(run.good for run in runs) else "no answer")
        if not look.cold:
            peaks = [run.memory / rounds[-1][0].memory for run in rounds[-1]]
            rows["peak memory, session stored"] = [f"{peak:.2f}" for peak in peaks]
    times: dict[str, list[float]] = {each.module: [] for each in able}
    for each in able * 40:
        done = each.machine.run(each.python, "-I", "-c", IMPORT.format(each.module))
        times[each.module].append(float(done.stdout))
    rows["import after `keyring.cli`, ms"] = [f"{statistics.median(x):.1f}" for x in times.values()]
    rows["installed, without byte code"] = [each.size() for each in able]
    with capsys.disabled():
        print("", *(f"| {' | '.join([name, *cells])} |" for name, cells in rows.items()), sep="\n")
        print(*(f"{each.title} is not here: {each.trouble}" for each in every if each.trouble))
    counts = [rows[look.name][1].partition(" ")[2] for look in LOOKS[:-1]]
    assert counts == ["(requests: 0, exchanges: 0)"] * 2 + ["(requests: 2, exchanges: 1)"] * 5
    assert rows[LOOKS[-1].name][1].endswith("exchanges: 1)")


# Run as a program: the demonstration, or any command among the stand-ins.


def backend_requests(services: Services) -> int:
    """Tell the requests since the last call; how many of them the backend sent, not pip."""
    count = 0
    for request in services.requests:
        who = "pip" if request.headers.get("user-agent", "").startswith("pip/") else "backend"
        print(f"     {who:7} {request.method:4} {request.host:42} {request.status}")
        count += who == "backend"
    services.requests.clear()
    return count


def demonstrate(machine: Machine) -> str:
    """Have pip install a package from a private feed, twice; what failed, or nothing."""
    url = URL.replace("https://", "https://VssSessionToken@")
    machine.fake_az(machine.services.ada)
    machine.environ["PIP_KEYRING_PROVIDER"] = "subprocess"
    print("Azure DevOps and Entra are mocked on 127.0.0.1. The URL holds a user name, no password;")
    print("no file holds one either. `az` is a script, signed in as ada@contoso.example.")
    for number, words, most in (
        (1, "The feed refuses pip, pip asks keyring, and the backend gets a session token:", 2),
        (2, "The session was kept. The backend is asked again, and needs no request:", 0),
    ):
        install = ("pip", "install", "-q", "--target", f"folder{number}", "-i", url, "greeting")
        print(f"\n{number}. {words}\n   $ PIP_KEYRING_PROVIDER=subprocess {' '.join(install)}")
        done = machine.run(*install, timeout=300)
        sent = backend_requests(machine.services)
        if done.returncode:
            told = "" if leaks(machine) else done.stderr
            return f"pip ended with {done.returncode}.\n{told}"
        hello = "import greeting; print(greeting.hello())"
        path = os.pathsep.join([str(machine.home / f"folder{number}"), str(machine.site)])
        done = machine.run(sys.executable, "-c", hello, env={"PYTHONPATH": path})
        print(f'   The package says "{done.stdout.strip()}". Requests by the backend: {sent}.')
        if done.stdout != "Hello from greeting 1.0\n" or sent > most:
            return "this is not what was expected."
    found = [*leaks(machine), *machine.strays()]
    return f"secrets or strays were found: {found}" if found else ""


def run_among(machine: Machine, command: Sequence[str]) -> int:
    """Run a command of this computer among the stand-ins, where `az` is signed in; its status."""
    machine.fake_az(machine.services.ada)
    kept = {name: text for name, text in os.environ.items() if not name.lower().endswith("_proxy")}
    environ = {**kept, **machine.environ, "STAND_IN_CLOCK": "0"}
    environ["PATH"] = os.pathsep.join([str(machine.bin), kept.get("PATH", os.defpath)])
    try:
        return subprocess.run(command, env=environ).returncode
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127


def program(arguments: Sequence[str]) -> int:
    """Return the exit status of the demonstration, or of the command after `--`."""
    if arguments and (arguments[0] != "--" or len(arguments) == 1):
        print(f"usage: python {Path(__file__).name} [-- COMMAND ...]", file=sys.stderr)
        return 2
    if os.name == "nt":
        print("The mock services need a Unix: use WSL or a container.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name, Services() as services:
        machine = Machine(services, Path(name))
        if arguments:
            return run_among(machine, arguments[1:])
        failure = demonstrate(machine)
    print(f"\nFailed: {failure}" if failure else "\nEverything worked.")
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(program(sys.argv[1:]))
