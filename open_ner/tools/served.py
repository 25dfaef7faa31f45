"""The pipeline's call for a served model: `ServedNER("http://localhost:8000/v1")(text, types=["person"])`.

Any OpenAI-compatible server of chat completions works (docs/serving.md covers vLLM and llama.cpp). Each type of a
passage is a request with the same messages as in the pipeline: the passage comes first and the query last, so a server
that caches prefixes encodes a passage once for all its types. The result is the pipeline's. A server does not give the
probability of the empty answer, so the saved presence bias has no effect; without token probabilities spans have no
scores, and no threshold applies.
"""

import json
import logging
import math
import os
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, cast

import httpx2
import openai
from openai.types.chat import ChatCompletion, ChatCompletionTokenLogprob
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from ..answers import Answer, Entity, end_of_repeat, token_ends
from ..conversation import Message, build_query, neutralize, read_answer
from ..long_texts import Answered, Count, RawResult, Window, cut, read_entities, read_raw, token_counter
from ..pipeline import (
    DEFAULTS,
    SPAN_OPTIONS,
    check_positive,
    check_thresholds,
    iterate,
    read_queries,
    saved_defaults,
    to_selection,
)
from ..prompts import refuse_surrogates, special_tokens
from .escapes import without_key

logger = logging.getLogger(__name__)

BYTES_A_TOKEN = 4  # bytes of English text; used without a tokenizer
# markers of turns in common chat templates; neutralized if there is no tokenizer with its special tokens
MARKER = re.compile(r"<[|｜][^<>\s]{1,64}[|｜]>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")
ANSWER_SCHEMA = {"name": "answer", "schema": {"type": "array", "items": {"type": "string"}}}
READ_AHEAD = 2  # requests prepared for each request that may be in flight
PendingWindow = tuple[str, Window, list[Future[Answer]]]  # a window of a text, and the answer to each query


class ServedNER:
    """Named-entity recognition by a student behind an OpenAI-compatible server; called like the pipeline.

    Args:
        base_url: address of the server with its `/v1`. The API key is read from `OPENAI_API_KEY`, if it is set.
        model: name of the served model; may be omitted if the server has only one.
        types: default types of a call.
        tokenizer: the student's (folder, Hub id or object). Long texts are then cut exactly as in the pipeline, and
            its special tokens are neutralized; without it a token counts as four bytes, and common chat markers are
            neutralized. A folder or Hub id also gives the saved defaults: types, window, calibration of scores.
        window: tokens of text read at once.
        max_new_tokens: bound of one answer, in tokens.
        concurrency: number of requests in flight.
        timeout: seconds for one request, which is tried three times in all.
        scores: ask for token probabilities. If a server gives none, spans have the score None.
        structured: require a JSON list with `response_format`, for students that do not always answer with one.
        extra_body: fields to add to each request, such as `{"chat_template_kwargs": {"enable_thinking": False}}`.

    Raises:
        ValueError: the input is invalid, or the server rejects it.
        ConnectionError: the server cannot be reached, fails, or rejects the key or the model.
    """

    def __init__(
        self, base_url: str, model: str | None = None, *, types: Any = None,
        tokenizer: PreTrainedTokenizerBase | str | os.PathLike[str] | None = None, window: int | None = None,
        max_new_tokens: int | None = None, concurrency: int = 32, timeout: float = 300.0, scores: bool = True,
        structured: bool = False, extra_body: Mapping[str, object] | None = None,
    ) -> None:  # fmt: skip
        if not re.match(r"https?://[^/\s]", base_url):
            raise ValueError(f"base_url={base_url!r} is not an address: write http(s)://host/v1")
        check_positive(window=window, max_new_tokens=max_new_tokens, concurrency=concurrency)
        self.defaults = DEFAULTS.copy()
        if isinstance(tokenizer, str | os.PathLike):
            tokenizer = os.fspath(tokenizer)
            with suppress(OSError, ValueError):  # a folder may have a tokenizer but no config
                self.defaults = saved_defaults(AutoConfig.from_pretrained(tokenizer))
            try:
                tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(tokenizer))
            except (OSError, ValueError) as error:
                cause = " ".join(str(error).split())
                raise ValueError(f"tokenizer {tokenizer!r} cannot be loaded ({cause:.150})") from None
        self.types = read_queries(self.defaults["types"] if types is None else types)
        self.window = window or self.defaults["window"]
        self.max_new_tokens = max_new_tokens or self.defaults["max_new_tokens"]
        self.base_url, self.concurrency, self.scores, self.structured = base_url, concurrency, scores, structured
        self.extra_body = dict(extra_body or {})
        key = os.environ.get("OPENAI_API_KEY", "").strip() or "EMPTY"  # local servers need none, but the client does
        if not (key.isascii() and key.isprintable()):
            raise ValueError("$OPENAI_API_KEY contains characters that are not valid in an API key; set it again")
        try:
            self.client = openai.OpenAI(base_url=base_url, api_key=key, timeout=timeout)
        except httpx2.InvalidURL as error:
            raise ValueError(f"base_url={base_url!r} is not an address ({error}): write http(s)://host/v1") from None
        self.special_tokens: list[str] | None = None
        self.count: Count = lambda texts: [-(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN) for text in texts]
        if tokenizer is not None:
            self.special_tokens = special_tokens(tokenizer)
            self.count = token_counter(tokenizer, self.special_tokens)
        with _explained(base_url, key):
            names = [model] if model else [served.id for served in self.client.models.list()]
        if len(names) != 1:
            raise ValueError(f"{base_url} serves {', '.join(names) or 'no model'}: pass one of them as model")
        self.model = names[0]

    def __call__(
        self, inputs: Any, types: Any = None, *, dataset: str | None = None, return_raw: bool = False, **options: Any
    ) -> Any:
        """Return the entities of one text, of each text of a list or column, or a generator of them for a generator.

        `options` are `threshold`, `overlaps`, `best` and `occurrences` of `OpenNERPipeline`.
        """
        if unknown := sorted(set(options) - set(SPAN_OPTIONS)):
            raise ValueError(f"unknown option {unknown[0]!r}: choose from {sorted(SPAN_OPTIONS)}")
        given = {name: value for name, value in options.items() if value is not None}
        selection = to_selection(self.defaults, given)
        queries = self.types if types is None else read_queries(types)
        check_thresholds(given.get("threshold"), queries)
        dataset = self.defaults.get("dataset") if dataset is None else dataset
        refuse_surrogates(*queries.values(), dataset or "")
        one = isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable | Sized)
        answered = self._answer([inputs] if one else inputs, queries, dataset, scores=bool(given.get("threshold")))
        read = read_raw if return_raw else read_entities
        results: Iterator[list[Entity] | RawResult] = (read(text, answers, selection) for text, answers in answered)
        if one:
            return next(results)
        return list(results) if isinstance(inputs, Sequence) else results

    def _answer(
        self, texts: Iterable[Any] | Sized, queries: Mapping[str, str], dataset: str | None, scores: bool
    ) -> Iterator[tuple[str, list[Answered]]]:
        """Yield each text with its answered windows, in order; `scores` requires probabilities."""
        pool = ThreadPoolExecutor(self.concurrency)

        def asked() -> Iterator[PendingWindow]:
            for text in iterate(texts):
                if not isinstance(text, str):
                    raise ValueError(f"open-ner reads strings, not {type(text).__name__}: {text!r:.80}")
                refuse_surrogates(text)
                for window in cut(text, self.count, self.window):
                    part = text[window.start : window.end]
                    prompts = [build_query(part, wording, dataset) for wording in queries.values()]
                    yield text, window, [pool.submit(self._ask, prompt) for prompt in prompts]

        try:
            answered: list[Answered] = []
            for text, window, futures in _ahead(asked(), max(1, READ_AHEAD * self.concurrency // len(queries))):
                answers = [future.result() for future in futures]
                if scores and (unknown := [answer for answer in answers if answer.text and not answer.logprobs]):
                    what = f" for the answer {unknown[0].text!r:.60}" if self.scores else ""
                    raise ValueError(
                        f"{self.base_url} gives no probabilities{what} to compare with a threshold: omit the threshold"
                    )
                if unread := sum(_unread(answer.text) for answer in answers):
                    place = f"{unread} of {len(answers)} answers on characters {window.start} to {window.end}"
                    logger.warning("%s are not complete lists of strings", place)
                answered.append((window, dict(zip(queries, answers, strict=True))))
                if window.after is None:  # the last one of its text
                    yield text, answered
                    answered = []
        finally:  # after an error, or if the caller stops reading, unsent requests are canceled
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, messages: list[Message]) -> Answer:
        """Return the answer to one query, without scores if the server rejects a request for token probabilities."""
        special = self.special_tokens
        if special is None:
            special = {marker for message in messages for marker in MARKER.findall(message["content"])}
        request: dict[str, Any] = {
            "model": self.model, "messages": neutralize(messages, special), "temperature": 0,
            "max_tokens": self.max_new_tokens, "extra_body": self.extra_body,
        }  # fmt: skip
        if self.structured:
            request["response_format"] = {"type": "json_schema", "json_schema": ANSWER_SCHEMA}
        create = self.client.chat.completions.create
        with _explained(self.base_url, self.client.api_key):
            try:
                completion = create(**request, logprobs=True if self.scores else openai.omit)
            except openai.APIStatusError as error:
                if not self.scores or "logprob" not in error.response.text.lower():
                    raise
                completion = create(**request)
        answer = _to_answer(completion, self.base_url)
        if self.scores and answer.text and not _tokens(completion):
            self.scores = False
            logger.warning(
                "%s gives no token probabilities: the longest of overlapping spans is kept",
                self.base_url,
            )
        return answer


def _ahead(asked: Iterator[PendingWindow], size: int) -> Iterator[PendingWindow]:
    """Yield the items of an iterator, but take up to `size` items ahead, so that requests are sent early."""
    waiting: deque[PendingWindow] = deque()
    for each in asked:
        waiting.append(each)
        if len(waiting) > size:
            yield waiting.popleft()
    yield from waiting


def _unread(raw: str) -> bool:
    """Whether an answer neither is a whole list of strings nor ends at a repeated string, as in the pipeline."""
    return read_answer(raw) is None and end_of_repeat(raw) is None


def _tokens(completion: ChatCompletion) -> list[ChatCompletionTokenLogprob]:
    """Return the tokens of an answer with their probabilities; empty if the server gives no probabilities."""
    logprobs = completion.choices[0].logprobs
    return (logprobs and logprobs.content) or []


def _to_answer(completion: ChatCompletion, base_url: str) -> Answer:
    """Return the answer of a chat completion, with each token's probability and where the token ends in the text."""
    if not getattr(completion, "choices", None):  # the client also returns a plain string for a reply of another kind
        raise ConnectionError(f"{base_url} sends no chat completion: {str(completion)!r:.100}; does it end in /v1?")
    choice = completion.choices[0]
    answer = Answer(choice.message.content or "", complete=choice.finish_reason == "stop")
    tokens = _tokens(completion)
    pieces = [token.token.encode(errors="replace") if token.bytes is None else bytes(token.bytes) for token in tokens]
    # llama.cpp leaves a code fence before the list out of the content; vLLM's last token ends the turn
    begin = b"".join(pieces).decode("utf-8", "replace").find(answer.text)
    if begin >= 0:
        logs = [-math.inf if token.logprob is None else token.logprob for token in tokens]  # None: too small to send
        within = [(log, end - begin) for log, end in zip(logs, token_ends(pieces), strict=True) if end > begin]
        answer.logprobs, answer.ends = [logprob for logprob, _ in within], [end for _, end in within]
    if repeat := end_of_repeat(answer.text):  # the pipeline ends an answer with the token that ends its first repeat
        size = bisect_left(answer.ends, repeat) + 1
        answer.logprobs, answer.ends = answer.logprobs[:size], answer.ends[:size]
        answer.text = answer.text[: max([repeat, *answer.ends[-1:]])]
    return answer


@contextmanager
def _explained(base_url: str, key: str) -> Iterator[None]:
    """Turn the client's errors into one line: ValueError for a rejected request, ConnectionError for the others."""
    try:
        yield
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, Mapping) else {}
        said = str(body.get("message") or error.response.text or "no reason")
        reason = " ".join(without_key(said, key).split())
        line = f"{base_url} answers with status {error.status_code}: {reason:.300}"
        if error.status_code in (400, 413, 422):
            raise ValueError(f"{line}: give shorter texts, or a smaller window or max_new_tokens") from None
        if error.status_code == 429 or error.status_code >= 500:
            raise ConnectionError(f"{line}: try later, or with less concurrency") from None
        raise ConnectionError(f"{line}: check the address (it ends in /v1), the model and $OPENAI_API_KEY") from None
    except json.JSONDecodeError as error:
        raise ConnectionError(f"{base_url} does not send JSON: {error.doc!r:.100}") from None
    except openai.APIConnectionError as error:
        cause = "no answer in time" if isinstance(error, openai.APITimeoutError) else error.__cause__ or error
        raise ConnectionError(f"{base_url} cannot be reached ({str(cause):.200}): is the server up?") from None
