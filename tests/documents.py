"""The code blocks of a Markdown page, and how each of them is tested.

A block of `bash` or `python` without a mark is run by tests/test_docs_run.py, word for word; one of `sh` has commands
of other tools. A mark is a comment on the line above a block:

    <!-- needs a GPU -->                      not run, with what it needs: see NEEDS
    <!-- run by tests/test_journey.py -->     a test runs the same command with smaller settings
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

NEEDS = ("a GPU", "a key", "a server", "a browser", "hours", "minutes", "the network", "the Hub", "several machines")
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A code block with the mark above it, which is empty for a block that is run."""

    language: str
    code: str
    mark: str

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a shell block as words, without comments."""
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]

    @property
    def runs(self) -> bool:
        """True for a block that is run word for word."""
        return not self.mark.startswith(("needs ", "run by "))


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page in these languages, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    every = [Block(match["language"], match["code"], match["mark"] or "") for match in found]
    return [block for block in every if block.language in languages]
