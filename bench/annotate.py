"""The teacher's throughput against a plain `AsyncOpenAI` + semaphore loop, on a local endpoint with a fixed latency.

    python bench/annotate.py [--answers 1500] [--in_flight 64] [--latency 0.2] [--runs 3]

Both ask the same prompts of the same server, which runs in a process of its own, in turns; medians of the runs. The
ideal is in_flight / latency answers a second. CPU is this process's, imports aside.
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from dataset_builder.config import TeacherConfig  # noqa: E402
from dataset_builder.journal import Journal  # noqa: E402
from dataset_builder.passages import Passage  # noqa: E402
from dataset_builder.questions import build_messages  # noqa: E402
from dataset_builder.teacher import annotate  # noqa: E402

REPLY = '[("Ada Lovelace", "person"), ("London", "city"), ("Analytical Engine", "invention")]'


def serve(latency: float, port: "multiprocessing.Queue[int]") -> None:
    """An OpenAI-compatible endpoint that answers everything after `latency` seconds."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(latency)
        message = {"role": "assistant", "content": REPLY}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 200, "completion_tokens": 40, "total_tokens": 240}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "bench", "choices": [choice]}
        return web.json_response({**body, "usage": usage})

    async def main() -> None:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        port.put(site._server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    asyncio.run(main())


def ours(passages: list[Passage], base_url: str, in_flight: int) -> int:
    """The project's teacher with its journal."""
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.jsonl") as journal:
        config = TeacherConfig(base_url=base_url, model="bench", concurrency=in_flight)
        return annotate(passages, journal, config).asked


def plain(passages: list[Passage], base_url: str, in_flight: int) -> int:
    """What people write themselves: a client, a semaphore, gather; the answers stay in memory."""
    import openai

    async def main() -> int:
        gate = asyncio.Semaphore(in_flight)
        async with openai.AsyncOpenAI(base_url=base_url) as client:

            async def ask(passage: Passage) -> str:
                async with gate:
                    messages = build_messages("type", passage.text)
                    completion = await client.chat.completions.create(model="bench", messages=messages, temperature=0)
                    return completion.choices[0].message.content

            return len(await asyncio.gather(*map(ask, passages)))

    return asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=1500)
    parser.add_argument("--in_flight", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()

    import openai  # noqa: F401  (imports are not part of the measurement)

    os.environ.setdefault("OPENAI_API_KEY", "bench")
    queue: multiprocessing.Queue[int] = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(args.latency, queue), daemon=True)
    server.start()
    base_url = f"http://127.0.0.1:{queue.get()}/v1"
    text = "Ada Lovelace wrote notes on the Analytical Engine in London. " * 8
    passages = [Passage(f"p{i}", f"{text}{i}", "", f"p{i}", "", 0, 1, 1) for i in range(args.answers)]
    ways = {"this project": ours, "plain AsyncOpenAI": plain}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.runs):
        for name, way in ways.items():
            used, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            if way(passages, base_url, args.in_flight) != args.answers:
                sys.exit(f"{name} lost answers")
            seconds[name].append(time.perf_counter() - started)
            after = resource.getrusage(resource.RUSAGE_SELF)
            cpu[name].append(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)
    server.terminate()
    ideal = args.in_flight / args.latency
    rates = {name: args.answers / statistics.median(values) for name, values in seconds.items()}
    for name, rate in rates.items():
        each = 1000 * statistics.median(cpu[name]) / args.answers
        print(f"{name:<20} {rate:7.1f} answers/s, {rate / ideal:.2f} of the ideal, {each:.2f} CPU s per 1,000 answers")
    print(f"ratio {rates['this project'] / rates['plain AsyncOpenAI']:.2f} at {args.in_flight} in flight")


if __name__ == "__main__":
    main()
