"""One way to ask a local endpoint, in a new process, for bench/annotate.py; not meant to be run by hand.

    python bench/parts/annotate_ways.py WAY BASE_URL FILE IN_FLIGHT OUTPUT_FOLDER

FILE is a JSONL file of passages for this project's way, and of prompts for the others. The last line printed is a JSON
object: `answers` received, `seconds` and `cpu` seconds after the imports, and peak memory in `mib`.
"""

import asyncio
import json
import os
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

TIMEOUT = 3.0  # seconds for one reply; some requests of the bench get none
MODEL = "bench"


def read_prompts(path: str) -> list[Any]:
    """Return the messages of every question."""
    return [json.loads(line)["messages"] for line in Path(path).open()]


def uniner_distill(base_url: str, passages: str, in_flight: int, folder: str):
    """This project's teacher with its journal; it reads the passages when it needs them."""
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))
    import aiohttp  # noqa: F401
    import openai  # noqa: F401

    from dataset_builder.config import TeacherConfig
    from dataset_builder.corpus.passages import StoredPassages
    from dataset_builder.teacher.journal import Journal
    from dataset_builder.teacher.stage import fetch_replies

    def ask() -> int:
        with Journal(Path(folder) / "journal.jsonl") as journal:
            config = TeacherConfig(base_url=base_url, model=MODEL, concurrency=in_flight, timeout=TIMEOUT)
            config = replace(config, **json.loads(os.environ.get("BENCH_OPTIONS", "{}")))
            fetch_replies(StoredPassages(Path(passages).parent), journal, config)
            return len(journal)

    return ask


def plain(base_url: str, prompts: str, in_flight: int, folder: str):
    """What users write themselves: a client, a semaphore, gather, and a file at the end."""
    import openai

    async def main() -> int:
        gate = asyncio.Semaphore(in_flight)
        async with openai.AsyncOpenAI(base_url=base_url, timeout=TIMEOUT) as client:

            async def one(messages: Any) -> str | None:
                async with gate:
                    try:
                        done = await client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
                        return done.choices[0].message.content
                    except (openai.OpenAIError, AttributeError, ValueError):  # also a body that is not a completion
                        return None

            replies = await asyncio.gather(*map(one, read_prompts(prompts)))
            Path(folder, "replies.json").write_text(json.dumps(replies))
            return sum(reply is not None for reply in replies)

    return lambda: asyncio.run(main())


def flexllm(base_url: str, prompts: str, in_flight: int, folder: str):
    """PyPI `flexllm`, which writes its results when they arrive."""
    from flexllm import LLMClient  # pyright: ignore[reportMissingImports]  # in an environment of bench/annotate.py --others

    limits = {"concurrency_limit": in_flight, "max_qps": 100_000, "timeout": int(TIMEOUT)}
    client = LLMClient(base_url=base_url, api_key="bench", model=MODEL, provider="openai", **limits)

    async def main() -> int:
        output = f"{folder}/replies.jsonl"
        results = await client.chat_batch(read_prompts(prompts), show_progress=False, output_jsonl=output)
        return sum(bool(getattr(result, "content", result)) for result in results)

    return lambda: asyncio.run(main())


def main() -> None:
    way, base_url, file, in_flight, folder = sys.argv[1:]
    os.environ["OPENAI_API_KEY"] = "bench"
    ways = {"uniner-distill": uniner_distill, "plain AsyncOpenAI": plain, "flexllm": flexllm}
    ask = ways[way](base_url, file, int(in_flight), folder)
    started, before = time.perf_counter(), time.process_time()
    result = {"answers": ask(), "seconds": time.perf_counter() - started, "cpu": time.process_time() - before}
    print(json.dumps({**result, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
