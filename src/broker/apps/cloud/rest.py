"""Resources that are made through Google's REST interfaces, described in services.yaml."""

import base64
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from google.api_core.exceptions import from_http_response

from broker.apps.cloud.plan import Found
from broker.apps.cloud.registry import LABEL, Context, Resource
from broker.connectors.gcp import plain_words
from broker.errors import NotFoundError

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIMEOUT_S = 60.0
_WORD = re.compile(r"\$\{([a-z_0-9]+)\}")
_HOME = "/home/pgb"


@cache
def described() -> Mapping[str, Mapping[str, Any]]:
    """Return how each kind is made."""
    text = files("broker.apps.cloud").joinpath("services.yaml").read_text()
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return found


def authorized_session(project: str) -> Any:
    """Return a session that bears the credentials of this machine.

    Raises
    ------
    ConfigError
        If there are none.
    """
    import google.auth
    from google.auth.transport.requests import AuthorizedSession

    with plain_words("Google Cloud", project):
        credentials, _ = google.auth.default(scopes=[SCOPE])
        return AuthorizedSession(credentials)


class RestAdapter:
    """Resources of one kind.

    Parameters
    ----------
    kind : str
        A kind that services.yaml describes.
    context : Context
        The instance and where it is.
    session : callable
        Returns what sends requests, with credentials: a ``requests.Session`` or alike.
    root : str
        Address of the service, by default Google's.
    layout : callable, optional
        Returns the value of the word ``layout``.
    """

    def __init__(
        self,
        kind: str,
        context: Context,
        session: Callable[[], Any],
        root: str = "",
        layout: Callable[[], Any] = dict,
    ) -> None:
        self._how = described()[kind]
        self._context = context
        self._session = session
        self._root = root or self._how["root"]
        self._layout = layout
        self.mutable = frozenset(self._how["compare"] if "change" in self._how else ())

    def wanted(self, resource: Resource) -> Mapping[str, Any]:
        """Return the settings that count."""
        body = self._body(resource)
        return {name: _at(body, path) for name, path in self._how["compare"].items()}

    def find(self, resource: Resource) -> Found | None:
        """Look for a resource; None if it is not there."""
        found = self._found(resource)
        if found is None:
            return None
        wanted, compared = self.wanted(resource), self._how["compare"]
        told = {name: _at(found, path) for name, path in compared.items()}
        same = {name: wanted[name] for name in wanted if _same(wanted[name], told[name])}
        return Found(told | same, self._is_ours(found))

    def create(self, resource: Resource) -> None:
        """Make a resource; a schedule of an instance with a test id is paused."""
        self._ask("POST", self._path("create", resource), json=self._body(resource))
        if self._how.get("pause_when_testing") and self._context.instance.testid:
            self._ask("POST", f"{self._path('find', resource)}:pause", json={})

    def change(self, resource: Resource, names: Sequence[str]) -> None:  # noqa: ARG002 - all at once
        """Set what can be set later."""
        found = self._found(resource) or {}
        query = self._how["change"]
        path = self._own_path(resource, found) + (f"?{query}" if query else "")
        # The service refuses a change that does not name the state it starts from.
        known = {"etag": found["etag"]} if "etag" in found else {}
        self._ask("PATCH", path, json={**self._body(resource), **known})

    def adopt(self, resource: Resource) -> None:
        """Give a resource the instance's label, with all other settings."""
        self.change(resource, ())

    def delete(self, resource: Resource) -> None:
        """Remove a resource."""
        found = self._found(resource)
        if found is not None:
            self._ask("DELETE", self._own_path(resource, found))

    def labelled(self) -> Sequence[str]:
        """Name the resources that bear the label."""
        return [_short_name(it) for it in self._listed() if self._is_ours(it)]

    def _found(self, resource: Resource) -> dict[str, Any] | None:
        if "find" not in self._how:
            named = (it for it in self._listed() if it.get("displayName") == resource.name)
            return next(named, None)
        try:
            return self._ask("GET", self._path("find", resource))
        except NotFoundError as error:
            if "no Google Cloud project" in str(error):
                raise
            return None

    def _listed(self) -> Iterator[dict[str, Any]]:
        path, token = _filled(self._how["list"], self._context.words), ""
        while True:
            answer = self._ask("GET", path + (f"?pageToken={token}" if token else ""))
            yield from answer.get(self._how["items"], ())
            token = answer.get("nextPageToken", "")
            if not token:
                return

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        with plain_words(self._how["service"], self._context.project):
            url = f"{self._root}/{path}"
            answer = self._session().request(method, url, timeout=_TIMEOUT_S, **more)
            if answer.status_code >= 400:
                raise from_http_response(answer)
            found: dict[str, Any] = answer.json() if answer.content else {}
            return found

    def _path(self, action: str, resource: Resource) -> str:
        return str(_filled(self._how[action], self._words(resource)))

    def _own_path(self, resource: Resource, found: Mapping[str, Any]) -> str:
        return self._path("find", resource) if "find" in self._how else str(found["name"])

    def _body(self, resource: Resource) -> dict[str, Any]:
        body: dict[str, Any] = _filled(self._how["body"], self._words(resource))
        return body

    def _words(self, resource: Resource) -> dict[str, Any]:
        words: dict[str, Any] = {**self._context.words, **resource.settings}
        words |= {"name": resource.name, "purpose": resource.purpose, "mark": self._mark}
        words |= {"labels": {LABEL: self._context.instance.label}, "layout": self._layout()}
        words["body_base64"] = base64.b64encode(str(words.get("body", "")).encode()).decode()
        words["script"] = _script(words) if "disk_gb" in words else ""
        return words

    @property
    def _mark(self) -> str:
        return f"[{LABEL}={self._context.instance.label}]"

    def _is_ours(self, found: Mapping[str, Any]) -> bool:
        label = found.get(self._how["label"]) or {}
        if isinstance(label, str):
            return self._mark in label
        return bool(label.get(LABEL) == self._context.instance.label)


def _script(words: Mapping[str, Any]) -> str:
    """Write what a machine does when it starts: run the image, data on its own disk."""
    environment = {
        "GOOGLE_CLOUD_PROJECT": words["project"],
        "PGB_SURVEY": words["survey"],
        "PGB_TESTID": words["testid"],
        **words.get("environment", {}),
    }
    run = ["docker", "run", "--detach", "--restart=unless-stopped", "--name=pgb", "--network=host"]
    run += [f"--volume=/var/lib/pgb:{_HOME}"]
    run += [f"--env={name}={value}" for name, value in environment.items()]
    run += [words["image"], *words["command"]]
    registry = str(words["image"]).split("/", 1)[0]
    lines = [
        "#! /bin/bash",
        "mkdir -p /var/lib/pgb",
        "export HOME=/var/lib/pgb",
        f"docker-credential-gcr configure-docker --registries={shlex.quote(registry)}",
        "docker rm --force pgb 2>/dev/null",
        shlex.join(run),
    ]
    return "\n".join(lines) + "\n"


def _filled(value: Any, words: Mapping[str, Any]) -> Any:
    """Fill the words of a template; a text that is nothing but one takes its value."""
    if isinstance(value, Mapping):
        return {key: _filled(it, words) for key, it in value.items()}
    if isinstance(value, list):
        return [_filled(it, words) for it in value]
    if not isinstance(value, str):
        return value
    if whole := _WORD.fullmatch(value):
        return words[whole[1]]
    return _WORD.sub(lambda it: str(words[it[1]]), value)


def _at(value: Any, path: str) -> Any:
    """Return what is at a dotted path; None if nothing is."""
    for part in path.split("."):
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _same(wanted: Any, found: Any) -> bool:
    """Compare values; a service tells paths as addresses, adds defaults and leaves out zeros."""
    if found is None:
        return not wanted
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return all(_same(value, found.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(_same, wanted, found))
    if isinstance(wanted, str) and isinstance(found, str) and "/" in wanted:
        return found.endswith(wanted)
    return bool(wanted == found)


def _short_name(found: Mapping[str, Any]) -> str:
    """Return the name under which the registry knows a resource."""
    if "conditions" in found:
        return str(found["displayName"])
    return str(found["name"]).rsplit("/", 1)[-1]
