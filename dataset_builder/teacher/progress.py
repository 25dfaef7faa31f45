"""The display of a run of the teacher: a bar on a terminal, a plain line now and then elsewhere."""

import asyncio
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from .records import ReplyCounts

PLAIN_LINE_SECONDS = 15.0


class Progress:
    """Done, failed, tokens, cost, rate and time left. `count()` is all there is to do, `note()` what else to say."""

    def __init__(self, tally: ReplyCounts, count: Callable[[], int], name: str, note: Callable[[], str]) -> None:
        self.tally, self.count, self.note, self.started = tally, count, note, time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=count(), unit=" answers", desc=name, disable=not self.terminal, smoothing=0.05)

    async def keep_showing(self) -> None:
        """Renew the display until cancelled."""
        while True:
            await asyncio.sleep(0.5 if self.terminal else PLAIN_LINE_SECONDS)
            self.show()

    def show(self) -> None:
        """Show where the run stands."""
        tally = self.tally
        state = f"{tally.prompt_tokens + tally.reply_tokens:,} tokens, ${tally.cost_before + tally.cost:.4f}, "
        state += f"{tally.failed} failed{self.note()}"
        done, total = tally.asked + tally.failed, self.count()
        if self.terminal:
            self.bar.total = total
            self.bar.set_postfix_str(state, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        rate = done / max(1e-9, time.monotonic() - self.started)
        left = f"{(total - done) / rate:.0f} s left" if rate else "no answer yet"
        print(f"{done}/{total} answers, {rate:.1f} a second, {left}; {state}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line of its own that leaves the bar whole."""
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Show the end."""
        self.show()
        self.bar.close()
