"""``pgb teardown``: remove everything that ``pgb setup`` and runs of an instance made."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from broker.apps.cli._options import options
from broker.apps.cli._output import print_json, print_table
from broker.apps.cli._places import confirmed, opened, place_options
from broker.apps.cloud.home import HomeTarget
from broker.apps.cloud.opening import Opened
from broker.apps.cloud.plan import Removal, plan_removal, remove
from broker.apps.cloud.registry import Resource
from broker.errors import UsageError


@click.command()
@options("survey", "home", "testid", "json")
@place_options()
def command(dry_run: bool, yes: bool, as_json: bool, **flags: Any) -> None:
    """Remove everything of a test instance, data included; other instances stay untouched.

    Production, which has no test id, is refused. What could not be removed is listed, and the
    exit code is 1 then.

    \b
      pgb teardown --survey ztf --testid mytest --dry-run
      pgb teardown --survey ztf --testid mytest --project my-project --yes
    """
    instance = opened(**flags)
    if not instance.context.instance.testid:
        raise UsageError(
            "this is the production instance, which is never torn down: give the --testid of a"
            " test instance"
        )
    with nullcontext() if dry_run else _at_rest(instance):
        removals = plan_removal(instance.resources, instance.target)
        if not as_json:
            _show(removals, instance)
        failed = [] if dry_run else _remove(removals, instance, yes=yes)
    if as_json:
        print_json([_summary(it, failed) for it in removals])
    for resource, reason in failed:
        click.secho(f"could not remove {resource}: {reason}", fg="red", err=True)
    sys.exit(bool(failed))


def _at_rest(instance: Opened) -> AbstractContextManager[None]:
    target = instance.target
    return target.at_rest() if isinstance(target, HomeTarget) else nullcontext()


def _remove(
    removals: Sequence[Removal], instance: Opened, *, yes: bool
) -> list[tuple[Resource, str]]:
    todo = [it for it in removals if it.fate == "remove"]
    question = f"Remove {len(todo)} things with all that is in them from {instance.target.title}?"
    if todo and not confirmed(question, yes=yes):
        click.echo("nothing was removed", err=True)
        return []
    return remove(
        removals, instance.target, lambda it: click.echo(f"removed {it.resource}", err=True)
    )


def _summary(removal: Removal, failed: Sequence[tuple[Resource, str]]) -> dict[str, Any]:
    resource = removal.resource
    reasons = [reason for it, reason in failed if it is resource]
    return {
        "kind": resource.kind,
        "name": resource.name,
        "fate": removal.fate,
        "failed": reasons[0] if reasons else None,
    }


def _show(removals: Sequence[Removal], instance: Opened) -> None:
    rows = [
        (it.resource.kind.replace("_", " "), it.resource.name, it.fate)
        for it in removals
        if it.fate in ("remove", "not ours")
    ]
    click.echo(f"Instance {instance.context.instance.label} in {instance.target.title}")
    if not rows:
        click.echo("there is nothing to remove")
        return
    print_table("", ("kind", "name", "plan"), rows)
