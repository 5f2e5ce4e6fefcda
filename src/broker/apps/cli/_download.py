"""What a source fetches before it is read: once, with a progress bar."""

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from broker.connectors.sources.archive import ArchiveSource
from broker.ports import Source


def fetched(source: Source) -> Source:
    """Fetch what a source reads from afar, with a progress bar on a terminal.

    Raises
    ------
    ServiceError
        If it cannot be had.
    """
    if not isinstance(source, ArchiveSource):
        return source
    console = Console(stderr=True)
    columns = (TextColumn("fetching {task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TransferSpeedColumn(), console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(source.download.file.name, total=None)
        for step in source.fetch():
            progress.update(task, completed=step.done, total=step.total)
    return source
