"""One passage, many types, one prefill: the questions of a passage are decoded as a batch over its shared prefix.

UniversalNER asks one type per call and encodes the passage again each time. Here a passage is encoded once, its
key/value cache is repeated for every type, the questions go through as one left-padded batch, and rows leave the batch
as they finish. In float32 the greedy answers are token-identical to one `generate()` per type.
"""

import inspect
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from .conversation import build_query, neutralise, read_answer, write_answer
from .grammar import AnswerGrammar, Phase, State

JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
CANDIDATES = 16  # of the model's best tokens, tried against the grammar before the whole vocabulary is sorted


@dataclass
class Request:
    """A passage and the types asked of it."""

    text: str
    types: Sequence[str]


@dataclass
class Answer:
    """A decoded answer: the raw text, its tokens with their log-probabilities, and whether it came to its own end."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)  # characters of `text` written when each token was
    complete: bool = False

    def scored_strings(self) -> list[tuple[str, float]] | None:
        """`(string, score)` for each string of the answer, or None when the answer is no JSON list of strings.

        The score, in [0, 1], is the probability of the first token (where the model decides whether the type occurs at
        all) times the geometric mean of the probabilities of the string's own tokens, its quotes included. White space
        alone is no entity.
        """
        strings = read_answer(self.text)
        if strings is None:
            return None
        scores: dict[str, float] = {}
        for match in JSON_STRING.finditer(self.text):
            string = json.loads(match[0])
            scores.setdefault(string, self._score(*match.span()))
        return [(string, scores.get(string, 0.0)) for string in strings if string.strip()]

    def _score(self, start: int, end: int) -> float:
        begins = [0, *self.ends[:-1]]
        own = [p for p, a, b in zip(self.logprobs, begins, self.ends, strict=True) if a < end and b > start]
        return math.exp(self.logprobs[0] + sum(own) / len(own)) if own else 0.0


@dataclass
class _Row:
    """One question on its way through the batch."""

    prefix: int  # index of its passage in the batch
    suffix: list[int]
    answer: Answer
    grammar: AnswerGrammar | None
    state: State


class Decoder:
    """Greedy decoding of open-NER answers with a causal language model and its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        configured = model.generation_config.eos_token_id
        configured = tokenizer.eos_token_id if configured is None else configured
        self.eos = set(configured if isinstance(configured, list) else [configured])
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.eos)
        # transformers 5.23 renamed `past_key_values`, and 5.40 will refuse the old name
        parameters = inspect.signature(type(model).forward).parameters
        self.cache_argument = "cache" if "cache" in parameters else "past_key_values"
        self.special_tokens = [*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens]

    def answer(
        self,
        requests: Sequence[Request],
        *,
        dataset: str | None = None,
        grounded: bool = True,
        max_new_tokens: int = 256,
        token_budget: int = 16384,
    ) -> Iterator[list[Answer]]:
        """Yield, for each request in order, its answers in the order of its types.

        `token_budget` bounds the key/value cache of one batch, in tokens: as many passages go through together as fit,
        and a passage with more types than fit is asked in several turns. Raises ValueError for a passage that does not
        fit the model's window.
        """
        batch: list[tuple[int, list[_Row], list[int]]] = []
        pending: dict[int, list[Answer]] = {}
        size, widths, emitted = 0, (0, 0), 0  # rows, longest prefix and suffix of the batch; requests yielded
        for number, request in enumerate(requests):
            prefix, suffixes = self._encode(request, dataset, max_new_tokens)
            grammar = AnswerGrammar(request.text) if grounded else None
            rows = [_Row(0, suffix, Answer(), grammar, self.start) for suffix in suffixes]
            pending[number] = [row.answer for row in rows]
            own = (len(prefix), max(map(len, suffixes), default=0))
            step = max(1, token_budget // (sum(own) + max_new_tokens))
            for begin in range(0, len(rows), step):
                part = rows[begin : begin + step]
                padded = max(widths[0], own[0]), max(widths[1], own[1])  # every row is padded to the longest
                if batch and (size + len(part)) * (sum(padded) + max_new_tokens) > token_budget:
                    self._run(batch, max_new_tokens)
                    batch, size, padded = [], 0, own
                    while emitted < number:
                        yield pending.pop(emitted)
                        emitted += 1
                batch.append((number, part, prefix))
                size, widths = size + len(part), padded
        if batch:
            self._run(batch, max_new_tokens)
        while emitted < len(requests):
            yield pending.pop(emitted)
            emitted += 1

    def _encode(self, request: Request, dataset: str | None, max_new_tokens: int) -> tuple[list[int], list[list[int]]]:
        """Tokens of the prefix all questions share, and of what follows it in each question."""
        for part in (request.text, *request.types, dataset or ""):
            if lone := LONE_SURROGATE.search(part):
                raise ValueError(
                    f"character {lone.start()} of {part!r:.80} is the lone surrogate {lone[0]!r}, "
                    "which no tokenizer reads: replace it before the call"
                )
        prompts = [
            self.tokenizer.apply_chat_template(
                neutralise(build_query(request.text, entity_type, dataset), self.special_tokens),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
            for entity_type in request.types
        ]
        if not prompts:
            return [], []
        window = getattr(self.model.config, "max_position_embeddings", None)
        longest = max(map(len, prompts))
        if window and longest + max_new_tokens > window:
            raise ValueError(
                f"a passage of {len(request.text)} characters needs {longest} tokens and {max_new_tokens} to answer, "
                f"the model's window is {window}: cut the passage into shorter ones"
            )
        shared = min(map(len, prompts)) - 1  # every question keeps at least one token of its own
        for position, tokens in enumerate(zip(*prompts, strict=False)):
            if position >= shared or len(set(tokens)) > 1:
                shared = min(shared, position)
                break
        return prompts[0][:shared], [prompt[shared:] for prompt in prompts]

    @torch.inference_mode()
    def _run(self, batch: list[tuple[int, list[_Row], list[int]]], max_new_tokens: int) -> None:
        """Decode all rows of a batch; the answers are filled in place."""
        prefixes = [prefix for _, _, prefix in batch]
        rows = []
        for index, (_, part, _) in enumerate(batch):
            for row in part:
                row.prefix = index
                rows.append(row)
        device = self.model.device
        cache = DynamicCache(config=self.model.config)
        mask = torch.zeros(len(rows), 0, dtype=torch.long, device=device)
        lengths = torch.zeros(len(rows), dtype=torch.long, device=device)
        if max(map(len, prefixes)):
            ids, prefix_mask = self._pad(prefixes)
            self._forward(ids, prefix_mask, (prefix_mask.cumsum(1) - 1).clamp(min=0), cache)
            owner = torch.tensor([row.prefix for row in rows], device=device)
            cache.batch_select_indices(owner)
            mask, lengths = prefix_mask[owner], prefix_mask.sum(1)[owner]
        ids, own = self._pad([row.suffix for row in rows])
        positions = lengths[:, None] + (own.cumsum(1) - 1).clamp(min=0)
        mask = torch.cat([mask, own], dim=1)
        for step in range(max_new_tokens):
            logprobs = torch.log_softmax(self._forward(ids, mask, positions, cache).float(), dim=-1)
            chosen = self._choose(rows, logprobs)
            alive = [i for i, token in enumerate(chosen) if token is not None]
            if not alive or step == max_new_tokens - 1:
                break
            if len(alive) < len(rows):
                keep = torch.tensor(alive, device=device)
                cache.batch_select_indices(keep)
                mask, positions = mask[keep], positions[keep]
                rows = [rows[i] for i in alive]
            ids = torch.tensor([[chosen[i]] for i in alive], device=device)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = positions[:, -1:] + 1
        for _, part, _ in batch:
            for row in part:
                self._finish(row)

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """Logits of each row's next token, of shape (rows, vocabulary); the cache grows by the ids."""
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self.cache_argument: cache},
        )
        return output.logits[:, -1]

    def _choose(self, rows: list[_Row], logprobs: torch.Tensor) -> list[int | None]:
        """Append each row's next token to its answer; None where the row is finished."""
        values, indices = logprobs.topk(min(CANDIDATES, logprobs.shape[-1]), dim=-1)
        chosen: list[int | None] = []
        for number, (row, tops, ids) in enumerate(zip(rows, values.tolist(), indices.tolist(), strict=True)):
            if row.grammar is None:
                token, logprob = ids[0], tops[0]
            else:
                found = self._first_allowed(row, zip(ids, tops, strict=True))
                if found is None:  # rare: none of the best tokens is allowed
                    everything = logprobs[number].sort(descending=True)
                    pairs = zip(everything.indices.tolist(), everything.values.tolist(), strict=True)
                    found = self._first_allowed(row, pairs)
                if found is None:  # a dead end, such as a repeated string at the end of the passage
                    chosen.append(None)
                    continue
                token, logprob = found
            if token in self.eos:
                row.answer.complete = True
                chosen.append(None)
                continue
            row.answer.tokens.append(token)
            row.answer.logprobs.append(logprob)
            row.answer.complete = row.state.phase is Phase.END  # only the end token may follow: no pass is spent on it
            chosen.append(None if row.answer.complete else token)
        return chosen

    def _first_allowed(self, row: _Row, candidates: Iterator[tuple[int, float]]) -> tuple[int, float] | None:
        """The first `(token, logprob)` the row's grammar allows; moves the row's state there."""
        for token, logprob in candidates:
            state = row.grammar.advance(row.state, self.token_bytes[token])
            if state is not None:
                row.state = state
                return token, logprob
        return None

    def _finish(self, row: _Row) -> None:
        """Write the text of an answer and where in it each token ends; a grounded answer is closed if it was cut."""
        answer, decode = row.answer, self.tokenizer.decode
        answer.text = decode(answer.tokens, clean_up_tokenization_spaces=False)
        answer.ends = [
            len(decode(answer.tokens[: i + 1], clean_up_tokenization_spaces=False)) for i in range(len(answer.tokens))
        ]
        if row.grammar is not None and row.state.phase is not Phase.END:
            answer.text = write_answer(row.grammar.strings(row.state))

    def _pad(self, sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Left-padded ids and their mask, both of shape (rows, longest)."""
        longest = max(map(len, sequences))
        ids = [[self.pad] * (longest - len(sequence)) + sequence for sequence in sequences]
        mask = [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences]
        device = self.model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    @cached_property
    def start(self) -> State:
        """Where an answer starts: behind a prompt that ends in a word (`ASSISTANT:`) its first token has a space."""
        prompt = self.tokenizer.apply_chat_template(build_query("a", "b"), add_generation_prompt=True, tokenize=False)
        in_word = not prompt[-1:].isspace() and not prompt.endswith(tuple(filter(None, self.special_tokens)))
        return State(Phase.LEAD if in_word else Phase.START)

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes each token of the vocabulary writes; empty for special tokens, which no answer may contain."""
        vocabulary = self.tokenizer.get_vocab()
        rows = self.model.get_output_embeddings().weight.shape[0]  # often padded beyond the tokenizer's vocabulary
        table = [b""] * max(rows, *(index + 1 for index in vocabulary.values()))
        byte_level = {character: byte for byte, character in bytes_to_unicode().items()}
        is_byte_level = "Ġ" in vocabulary
        special = set(self.special_tokens)
        for token, index in vocabulary.items():
            if token in special:
                continue
            if is_byte_level:
                table[index] = bytes(byte_level[c] for c in token if c in byte_level)
            elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
                table[index] = bytes([int(token[3:5], 16)])
            else:
                table[index] = token.replace("▁", " ").encode("utf-8", "surrogatepass")
        return table
