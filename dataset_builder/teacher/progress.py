"""The display of a run of the teacher: a bar on a terminal, a line from time to time elsewhere."""

import asyncio
import sys
import time

from tqdm import tqdm

from .pacing import Pacer
from .records import ReplyCounts

PLAIN_LINE_SECONDS = 15.0


class Progress:
    """Shows replies, failures, tokens, cost, rate and time left, and what the rate limit does."""

    def __init__(self, counts: ReplyCounts, name: str, pacer: Pacer) -> None:
        self.counts, self.pacer, self.started = counts, pacer, time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(total=counts.to_ask, unit=" replies", desc=name, disable=not self.terminal, smoothing=0.05)

    async def keep_showing(self) -> None:
        """Update the display until cancelled."""
        while True:
            await asyncio.sleep(0.5 if self.terminal else PLAIN_LINE_SECONDS)
            self.show()

    def show(self) -> None:
        """Update the display."""
        counts = self.counts
        state = f"{counts.prompt_tokens + counts.reply_tokens:,} tokens, ${counts.cost_before + counts.cost:.4f}, "
        state += f"{counts.failed} failed"
        state += f", {self.pacer.throttled} rate-limit errors (429)" if self.pacer.throttled else ""
        state += f", waiting {self.pacer.waiting:.0f} s" if self.pacer.waiting > 2 else ""
        done, total = counts.paid + counts.failed, counts.to_ask
        if self.terminal:
            self.bar.total = total
            self.bar.set_postfix_str(state, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        rate = done / max(1e-9, time.monotonic() - self.started)
        left = f"{(total - done) / rate:.0f} s left" if rate else "no reply yet"
        print(f"{done}/{total} replies, {rate:.1f} a second, {left}; {state}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        """Show the final state."""
        self.show()
        self.bar.close()
