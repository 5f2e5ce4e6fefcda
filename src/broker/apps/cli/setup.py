"""``pgb setup``: make everything that an instance is made of."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from broker.apps.cli._options import options
from broker.apps.cli._output import print_json, print_table
from broker.apps.cli._places import confirmed, opened, place_options
from broker.apps.cloud.opening import Opened
from broker.apps.cloud.plan import Step, apply, plan

_DO_ABOUT_IT = "what differs was left as it is: change it by hand, or remove it and run this again"


@click.command()
@options("survey", "home", "testid", "json")
@place_options()
@click.option("--image", default="", metavar="NAME", help="Container image of the machines.")
@click.option("--adopt", is_flag=True, help="Take over what others made under these names.")
def command(dry_run: bool, yes: bool, adopt: bool, image: str, as_json: bool, **flags: Any) -> None:
    """Make what an instance is made of: topics, subscriptions, buckets, tables, machines.

    In a Google Cloud project, or in a home if no project is named. The plan is printed first.
    What is there stays; a setup that was stopped goes on when it is run again.

    \b
      pgb setup --survey ztf --testid mytest --dry-run
      pgb setup --survey ztf --testid mytest --project my-project --yes
    """
    instance = opened(image, **flags)
    steps = plan(instance.resources, instance.target, adopt=adopt)
    if as_json:
        print_json([_summary(step) for step in steps])
    else:
        _show(steps, instance)
    differ = [step for step in steps if step.state == "differs"]
    if not dry_run:
        _apply(steps, instance, yes=yes)
    if differ:
        click.secho(_DO_ABOUT_IT, fg="yellow", err=True)
    sys.exit(bool(differ))


def _apply(steps: Sequence[Step], instance: Opened, *, yes: bool) -> None:
    todo = [step for step in steps if step.state in ("create", "change")]
    place = instance.target.title
    if todo and not confirmed(f"Make or change {len(todo)} things in {place}?", yes=yes):
        click.echo("nothing was changed", err=True)
        return
    apply(todo, instance.target, lambda step: click.echo(_done(step), err=True))
    number, is_new = _upload(instance)
    words = "uploaded" if is_new else "already there"
    click.echo(f"broker files: version {number} {words}", err=True)
    click.echo(f"take in alerts: {_next(instance)}", err=True)


def _next(instance: Opened) -> str:
    """Spell the command that uses what was made."""
    made, settings = instance.context.instance, instance.settings
    words = ["pgb run PLACE", f"--survey {made.survey}"]
    words += [f"--testid {made.testid}"] if made.testid else []
    if not instance.context.project:
        return " ".join([*words, f"--home {settings.home_path}"])
    places = [f"--{name} {getattr(settings, name)}" for name in ("bus", "files", "tables")]
    return " ".join([*words, *places])


def _upload(instance: Opened) -> tuple[int, bool]:
    """Store the broker files unless they are there; return their version."""
    from broker.apps.cli.broker_files import note
    from broker.apps.cloud.broker_files import default_content, open_broker_files

    versioned = open_broker_files(instance.settings)
    before = versioned.latest()
    after = versioned.push(dict(default_content(instance.settings)), note("pgb setup"))
    return after.number, before is None or after.number != before.number


def _done(step: Step) -> str:
    return f"{'made' if step.state == 'create' else 'changed'} {step.resource}"


def _summary(step: Step) -> dict[str, Any]:
    resource = step.resource
    return {
        "kind": resource.kind,
        "name": resource.name,
        "state": step.state,
        "words": step.words,
    }


def _show(steps: Sequence[Step], instance: Opened) -> None:
    planned = [it for it in steps if it.state != "left out"]
    rows = [(it.resource.kind.replace("_", " "), it.resource.name, it.state) for it in planned]
    click.echo(f"Instance {instance.context.instance.label} in {instance.target.title}")
    print_table("", ("kind", "name", "plan"), rows)
    for step in planned:
        if step.words:
            click.echo(f"{step.resource}: {step.words}")
    reasons: dict[str, list[str]] = {}
    for step in steps:
        if step.state == "left out":
            reasons.setdefault(step.words, []).append(str(step.resource))
    for reason, names in reasons.items():
        click.echo(f"left out ({reason}): {', '.join(names)}")
