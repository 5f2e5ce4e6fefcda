"""From what should be and what is there to what is to be done; and doing it.

Nothing is written down about how far a setup came: what is there is asked for each time, so
that a setup that was stopped goes on when it is started again.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from broker.apps.cloud.registry import KINDS, Resource
from broker.errors import BrokerError, NotFoundError

_NO_LONGER_LISTED = "no longer in the list of resources"

_DONE = {"create": "made", "change": "changed"}

State = Literal["create", "exists", "change", "differs", "left out"]
Fate = Literal["remove", "absent", "not ours", "left out"]


@dataclass(frozen=True, slots=True)
class Found:
    """A resource as it is there.

    Parameters
    ----------
    settings : mapping
        As far as the service tells them, in the registry's words.
    ours : bool
        Whether it bears the instance's label.
    """

    settings: Mapping[str, Any]
    ours: bool = True


class Adapter(Protocol):
    """Makes and removes the resources of one kind at one place."""

    mutable: frozenset[str]
    """Settings that can be changed later without loss."""

    def wanted(self, resource: Resource) -> Mapping[str, Any]:
        """Return the settings that count, as `find` would tell them."""
        ...

    def find(self, resource: Resource) -> Found | None:
        """Look for a resource; None if it is not there."""
        ...

    def create(self, resource: Resource) -> None:
        """Make a resource with the instance's label."""
        ...

    def change(self, resource: Resource, names: Sequence[str]) -> None:
        """Set some of the mutable settings as the registry has them."""
        ...

    def adopt(self, resource: Resource) -> None:
        """Give a resource the instance's label."""
        ...

    def delete(self, resource: Resource) -> None:
        """Remove a resource with all that is in it; one that is not there is no error."""
        ...

    def labelled(self) -> Sequence[str]:
        """Name the resources of this kind that bear the instance's label."""
        ...


class Target(Protocol):
    """Where an instance is set up."""

    @property
    def title(self) -> str:
        """The place, in words."""
        ...

    def adapter(self, kind: str) -> Adapter | str:
        """Return what makes resources of a kind here, or why they are left out."""
        ...

    def left_out(self, resource: Resource) -> str:
        """Say why one resource cannot be made here; empty if it can."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """What a setup does about one resource."""

    resource: Resource
    state: State
    words: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Removal:
    """What a teardown does about one resource."""

    resource: Resource
    fate: Fate
    words: str = ""


def plan(resources: Sequence[Resource], target: Target, *, adopt: bool = False) -> list[Step]:
    """Compare what should be with what is there.

    Parameters
    ----------
    resources : sequence of Resource
        What should be.
    target : Target
        Where.
    adopt : bool
        Whether resources of the right name that others made become the instance's.

    Raises
    ------
    ServiceError, ConfigError
        If the place cannot be looked at.
    """
    return [_step(resource, target, adopt=adopt) for resource in resources]


def _step(resource: Resource, target: Target, *, adopt: bool) -> Step:
    adapter = target.adapter(resource.kind)
    if isinstance(adapter, str):
        return Step(resource, "left out", adapter)
    if reason := target.left_out(resource):
        return Step(resource, "left out", reason)
    found = adapter.find(resource)
    if found is None:
        return Step(resource, "create")
    names = differences(adapter.wanted(resource), found.settings)
    fixed = [name for name in names if name not in adapter.mutable]
    if fixed:
        return Step(resource, "differs", _differing(adapter, resource, found, fixed))
    if not found.ours and adopt:
        return Step(resource, "change", "becomes this instance's", ("label", *names))
    if names:
        return Step(resource, "change", _differing(adapter, resource, found, names), tuple(names))
    words = "" if found.ours else "made by another hand, so pgb teardown leaves it: see --adopt"
    return Step(resource, "exists", words)


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Name the settings that are there but not as wanted."""
    return [name for name, value in wanted.items() if name in found and found[name] != value]


def _differing(adapter: Adapter, resource: Resource, found: Found, names: Sequence[str]) -> str:
    wanted = adapter.wanted(resource)
    return "; ".join(
        f"{it} is {_short(found.settings[it])}, not {_short(wanted[it])}" for it in names
    )


def _short(value: Any) -> str:
    text = str(value) if value not in ("", None, ()) else "not set"
    return text if len(text) < 80 else text[:77] + "…"


def apply(steps: Sequence[Step], target: Target, on_step: Callable[[Step], None]) -> None:
    """Make and change what the steps say; `on_step` hears of each that is done.

    Raises
    ------
    BrokerError
        If one cannot be done; the message names it. What was done stays.
    """
    for step in steps:
        adapter = target.adapter(step.resource.kind)
        if step.state not in ("create", "change") or isinstance(adapter, str):
            continue
        try:
            _do(step, adapter)
        except BrokerError as error:
            raise type(error)(
                f"{step.resource} could not be {_DONE[step.state]}: {error}. What was made stays;"
                " the same command again goes on from here"
            ) from error
        on_step(step)


def _do(step: Step, adapter: Adapter) -> None:
    if step.state == "create":
        adapter.create(step.resource)
        return
    if "label" in step.names:
        adapter.adopt(step.resource)
    if names := [name for name in step.names if name != "label"]:
        adapter.change(step.resource, names)


def plan_removal(resources: Sequence[Resource], target: Target) -> list[Removal]:
    """Find everything of an instance, last made first.

    Besides what the registry lists, whatever else bears the instance's label is found, such as
    the topic of a filter that is gone.
    """
    listed = {(it.kind, it.name) for it in resources}
    others = [
        Removal(Resource(kind, name, name, _NO_LONGER_LISTED), "remove", _NO_LONGER_LISTED)
        for kind, name in _labelled(target)
        if (kind, name) not in listed
    ]
    everything = [*(_removal(resource, target) for resource in resources), *others]
    return sorted(everything, key=lambda it: -KINDS.index(it.resource.kind))


def _labelled(target: Target) -> Iterator[tuple[str, str]]:
    for kind in KINDS:
        adapter = target.adapter(kind)
        if not isinstance(adapter, str):
            yield from ((kind, name) for name in adapter.labelled())


def _removal(resource: Resource, target: Target) -> Removal:
    adapter = target.adapter(resource.kind)
    if isinstance(adapter, str):
        return Removal(resource, "left out", adapter)
    found = adapter.find(resource)
    if found is None:
        return Removal(resource, "absent")
    if not found.ours:
        return Removal(resource, "not ours", "it was not made by pgb setup: remove it by hand")
    return Removal(resource, "remove")


def remove(
    removals: Sequence[Removal], target: Target, on_removal: Callable[[Removal], None]
) -> list[tuple[Resource, str]]:
    """Remove what is to be removed; return what could not be, and why.

    A failure does not stop the rest.
    """
    failed = []
    for removal in removals:
        adapter = target.adapter(removal.resource.kind)
        if removal.fate == "not ours":
            failed.append((removal.resource, removal.words))
        if removal.fate != "remove" or isinstance(adapter, str):
            continue
        try:
            adapter.delete(removal.resource)
        except NotFoundError:
            pass
        except BrokerError as error:
            failed.append((removal.resource, str(error)))
            continue
        on_removal(removal)
    return failed
