"""One worker of the broker, for tests that end it in unkind ways."""

import os
import signal
import sys
from contextlib import closing, suppress

from broker.config import Settings
from broker.connectors.sources.kafka import KafkaSource
from broker.ports import SourceBatch
from broker.wiring import Broker


class DyingSource(KafkaSource):
    """A source whose process is killed when it is about to commit its n-th batch."""

    lives = -1

    def commit(self, batch: SourceBatch) -> None:
        """Commit, or die."""
        if self.lives == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.lives -= 1
        super().commit(batch)


def main(url: str, home: str, worker: str, dies_after: int, follow: bool, batch: int) -> None:
    """Take in what the place has."""
    settings = Settings(home=home, survey="ztf", worker=worker, batch_alerts=batch)
    broker = Broker(settings)
    source = DyingSource.from_url(url, settings, follow=follow)
    assert isinstance(source, DyingSource)
    source.lives = dies_after
    with broker.working(), closing(source), suppress(KeyboardInterrupt):
        print(broker.pipeline().run(source))


if __name__ == "__main__":
    place, folder, name, *numbers = sys.argv[1:]
    main(place, folder, name, int(numbers[0]), numbers[1] == "1", int(numbers[2]))
