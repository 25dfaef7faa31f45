"""The pipeline's call against a served model: `ServedNER("http://localhost:8000/v1")(text, types=["person"])`.

Any OpenAI-compatible server of chat completions will do (docs/serving.md has vLLM and llama.cpp). Each type of a
passage is a request of its own, with the very messages of the pipeline: the passage comes first and the question last,
so that a server which caches prefixes encodes a passage once for all its types. Answers are decoded freely, as with
`grounded=False`; the rest of the call and the result are the pipeline's.
"""

import json
import logging
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import Any

import openai
from transformers import AutoConfig, AutoTokenizer

from ..answers import Answer
from ..conversation import Message, build_query, neutralize, read_answer
from ..long_texts import Window, cut, token_counter
from ..pipeline import DEFAULTS, read_answers, to_queries, up_to_last_window
from ..prompts import refuse_surrogates, special_tokens

logger = logging.getLogger(__name__)

BYTES_A_TOKEN = 4  # of English, where no tokenizer counts
# what marks turns in the chat templates in use, where no tokenizer names its special tokens
MARKER = re.compile(r"<[|｜][^<>\s]{1,64}[|｜]>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>")
ANSWER_SCHEMA = {"type": "array", "items": {"type": "string"}}
READ_AHEAD = 2  # requests prepared for each that may be in flight


class ServedAnswer(Answer):
    """An answer whose spans have no score where the server told no probabilities."""

    def scored_strings(self) -> list[tuple[str, float | None]] | None:
        """`(string, score)` for each string of the answer; None when it is no JSON list of strings."""
        if self.logprobs:
            return super().scored_strings()
        strings = read_answer(self.text)
        return None if strings is None else [(string, None) for string in strings if string.strip()]


class ServedNER:
    """Named-entity recognition by a student behind an OpenAI-compatible server; called like the pipeline.

    base_url: the server's address, with its `/v1`. The key, where one is needed, is read from `OPENAI_API_KEY`.
    model: the name it is served by; absent, the only one the server has.
    types: those asked where a call names none.
    tokenizer: the student's (folder, Hub id or object). With it long texts are cut exactly as in the pipeline, and its
        special tokens are neutralized; without, a token is taken for four bytes, and the usual chat markers are. A
        folder or Hub id brings the defaults saved with the student too: types, window, how scores are calibrated.
    window, max_new_tokens: tokens of text asked at once and of one answer.
    concurrency: requests in flight. timeout: seconds for one; it is tried three times in all.
    scores: ask for the tokens' probabilities. A server that tells none gives spans with the score None.
    structured: ask for a JSON list by `response_format`, for students that do not keep to it by themselves.
    extra_body: fields to add to each request, such as `{"chat_template_kwargs": {"enable_thinking": False}}`.

    Raises ValueError for bad input, also where the server finds it bad, and ConnectionError for a server that cannot
    be reached, fails, or refuses the key or the model.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        types: Any = None,
        tokenizer: Any = None,
        window: int | None = None,
        max_new_tokens: int | None = None,
        concurrency: int = 32,
        timeout: float = 300.0,
        scores: bool = True,
        structured: bool = False,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        if not re.match(r"https?://[^/\s]", base_url):
            raise ValueError(f"base_url={base_url!r} is no address: write http(s)://host/v1")
        self.defaults = {**DEFAULTS, **(_saved_with(tokenizer) if isinstance(tokenizer, str) else {})}
        self.window = self.defaults["window"] if window is None else window
        self.max_new_tokens = self.defaults["max_new_tokens"] if max_new_tokens is None else max_new_tokens
        self.concurrency = concurrency
        for name in ("window", "max_new_tokens", "concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: give at least 1")
        self.base_url, self.types = base_url, to_queries(self.defaults["types"] if types is None else types)
        self.scores, self.structured, self.extra_body = scores, structured, dict(extra_body or {})
        key = os.environ.get("OPENAI_API_KEY", "").strip() or "EMPTY"  # local servers ask for none, the client does
        if not (key.isascii() and key.isprintable()):
            raise ValueError("$OPENAI_API_KEY holds characters that no key has: set it anew")
        self.client = openai.OpenAI(base_url=base_url, api_key=key, timeout=timeout)
        self.special_tokens: list[str] | None = None
        self.count = lambda texts: [-(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN) for text in texts]
        if tokenizer is not None:
            tokenizer = _load_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
            self.special_tokens = special_tokens(tokenizer)
            self.count = token_counter(tokenizer, self.special_tokens)
        self.model = model or self._only_model()

    def __call__(
        self,
        inputs: Any,
        types: Any = None,
        *,
        dataset: str | None = None,
        threshold: float | None = None,
        occurrences: str | None = None,
        return_raw: bool = False,
    ) -> Any:
        """Entities of one text, of each text of a list or a column, or lazily of a generator's."""
        queries = self.types if types is None else to_queries(types)
        threshold = self.defaults["threshold"] if threshold is None else threshold
        occurrences = self.defaults["occurrences"] if occurrences is None else occurrences
        dataset = self.defaults.get("dataset") if dataset is None else dataset
        if occurrences not in ("all", "first"):
            raise ValueError(f"occurrences={occurrences!r}: choose 'all' or 'first'")
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold!r}: scores lie in [0, 1]")
        refuse_surrogates(*queries.values(), dataset or "")
        options = (queries, dataset, threshold, occurrences, return_raw)
        if isinstance(inputs, str):
            return next(self._read([inputs], *options))
        if isinstance(inputs, (bytes, Mapping)) or not isinstance(inputs, Iterable):
            raise ValueError(f"open-ner reads strings, not {type(inputs).__name__}: {inputs!r:.80}")
        results = self._read(inputs, *options)
        return list(results) if isinstance(inputs, Sequence) else results

    def _read(
        self,
        texts: Iterable[Any],
        queries: Mapping[str, str],
        dataset: str | None,
        threshold: float,
        occurrences: str,
        return_raw: bool,
    ) -> Iterator[Any]:
        """The result of each text, in order, as its last answer arrives."""
        answered = self._answer(self._windows(texts), queries, dataset, scores=threshold > 0)
        for window, (text, answers) in answered:
            rest = ((window, answers) for window, (_, answers) in answered)
            of_this_text = up_to_last_window(chain([(window, answers)], rest))
            calibration = self.defaults["temperature"], self.defaults["bias"]
            yield read_answers(text, of_this_text, threshold, occurrences, return_raw, calibration)

    def _windows(self, texts: Iterable[Any]) -> Iterator[tuple[str, Window]]:
        for text in texts:
            if not isinstance(text, str):
                raise ValueError(f"open-ner reads strings, not {type(text).__name__}: {text!r:.80}")
            refuse_surrogates(text)
            for window in cut(text, self.count, self.window):
                yield text, window

    def _answer(
        self, windows: Iterable[tuple[str, Window]], queries: Mapping[str, str], dataset: str | None, scores: bool
    ) -> Iterator[tuple[Window, tuple[str, dict[str, ServedAnswer]]]]:
        """Each window with its text and its answers by entity group, in order; the types of one go out together.

        `scores` says that they are needed.
        """
        waiting: deque[tuple[Window, str, list[Future[ServedAnswer]]]] = deque()
        pool = ThreadPoolExecutor(self.concurrency)

        def oldest() -> tuple[Window, tuple[str, dict[str, ServedAnswer]]]:
            window, text, futures = waiting.popleft()
            answers = [future.result() for future in futures]
            if scores and not all(answer.logprobs or not answer.text for answer in answers):
                raise ValueError(f"{self.base_url} tells no probabilities to hold against a threshold: leave it out")
            unread = sum(answer.scored_strings() is None for answer in answers)
            if unread:
                place = (unread, len(answers), window.start, window.end)
                logger.warning("%d of %d answers on characters %d to %d are no list of strings: no spans", *place)
            return window, (text, dict(zip(queries, answers, strict=True)))

        try:
            for text, window in windows:
                prompts = [build_query(text[window.start : window.end], each, dataset) for each in queries.values()]
                waiting.append((window, text, [pool.submit(self._ask, prompt) for prompt in prompts]))
                while len(waiting) * len(queries) >= READ_AHEAD * self.concurrency:
                    yield oldest()
            while waiting:
                yield oldest()
        finally:  # what has not been sent is not: an error, or a reader who left
            pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, messages: list[Message]) -> ServedAnswer:
        """The answer to one query."""
        return _to_answer(self._complete(messages), self.base_url)

    def _complete(self, messages: list[Message]) -> Any:
        """The chat completion of one query."""
        special = self.special_tokens
        if special is None:
            special = {marker for message in messages for marker in MARKER.findall(message["content"])}
        options: dict[str, Any] = {"logprobs": True} if self.scores else {}
        if self.structured:
            schema = {"name": "answer", "schema": ANSWER_SCHEMA}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        with _explained(self.base_url, self.client.api_key):
            return self.client.chat.completions.create(
                model=self.model,
                messages=neutralize(messages, special),
                temperature=0,
                max_tokens=self.max_new_tokens,
                extra_body=self.extra_body,
                **options,
            )

    def _only_model(self) -> str:
        """The name of the one model the server has."""
        with _explained(self.base_url, self.client.api_key):
            names = [model.id for model in self.client.models.list()]
        if len(names) != 1:
            raise ValueError(f"{self.base_url} serves {', '.join(names) or 'no model'}: name one as model")
        return names[0]


def _to_answer(completion: Any, base_url: str) -> ServedAnswer:
    """The answer of a chat completion, with the probability of each token and where in the text it ends."""
    if not getattr(completion, "choices", None):
        raise ConnectionError(f"{base_url} sends no chat completion: {str(completion)!r:.100}; does it end in /v1?")
    choice = completion.choices[0]
    answer = ServedAnswer(choice.message.content or "", complete=choice.finish_reason == "stop")
    tokens = (choice.logprobs and choice.logprobs.content) or []
    written, ends = b"", []
    for token in tokens:
        written += token.token.encode("utf-8", "replace") if token.bytes is None else bytes(token.bytes)
        ends.append(len(written.decode("utf-8", "replace")))
    # llama.cpp leaves a fence before the list out of the content, vLLM ends the tokens with that of the turn's end
    begin = written.decode("utf-8", "replace").find(answer.text)
    if begin >= 0:
        within = [(token.logprob, end - begin) for token, end in zip(tokens, ends, strict=True) if end > begin]
        answer.logprobs, answer.ends = [logprob for logprob, _ in within], [end for _, end in within]
    return answer


@contextmanager
def _explained(base_url: str, key: str) -> Iterator[None]:
    """Turn the client's errors into one line: ValueError for what is wrong with a request, else ConnectionError."""
    try:
        yield
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, Mapping) else {}
        said = " ".join(str(body.get("message") or error.response.text or "no reason").replace(key, "***").split())
        line = f"{base_url} answers with status {error.status_code}: {said:.300}"
        if error.status_code in (400, 413, 422):
            raise ValueError(f"{line}: give shorter texts, or a smaller window or max_new_tokens") from None
        if error.status_code == 429 or error.status_code >= 500:
            raise ConnectionError(f"{line}: try later, or with less concurrency") from None
        raise ConnectionError(f"{line}: check the address (it ends in /v1), the model and $OPENAI_API_KEY") from None
    except json.JSONDecodeError as error:
        raise ConnectionError(f"{base_url} sends no JSON: {error.doc!r:.100}") from None
    except openai.APIConnectionError as error:
        cause = "no answer in time" if isinstance(error, openai.APITimeoutError) else error.__cause__ or error
        raise ConnectionError(f"{base_url} cannot be reached ({str(cause):.200}): is the server up?") from None


def _saved_with(name: str) -> dict[str, Any]:
    """The defaults saved with a student; none where its tokenizer lies alone."""
    try:
        return getattr(AutoConfig.from_pretrained(name), "open_ner", None) or {}
    except (OSError, ValueError):
        return {}


def _load_tokenizer(name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"tokenizer {name!r} cannot be loaded ({' '.join(str(error).split()):.150})") from None
