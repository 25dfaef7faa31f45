"""Greedy decoding that encodes a passage once for all its queries, and answers the queries of a batch together.

UniversalNER asks for one type per call and encodes the passage again each time. Here the passage and its queries are
one sequence (`packing.py`), read once. Each pass of the model then writes the next token of all open answers of
several passages, and an answer leaves the batch when it ends. In float32 the answers are token-identical to those of
one `generate()` per type.

The first pass reads the empty answer after every query. If greedy decoding chooses it, the query needs no other pass.
Its probability tells how sure the student is that the type occurs (`Answer.presence`).
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from .answers import JSON_STRING, Answer, token_ends
from .conversation import build_query, write_answer
from .packing import SHARED, Packed, Tokens, attention_kinds
from .prompts import Encoder

RESERVE = 16  # tokens planned for each answer when a batch is filled; rows are put off if answers outgrow the budget
QUERIES_A_ROW = 64  # a query computes attention over the masked columns of all others in its row, so more are slower


@dataclass
class Request:
    """A passage and the types to find in it."""

    text: str
    types: Sequence[str]


@dataclass
class _Query:
    """A query with its answer so far; `number` is its owner in the row (`packing.py`)."""

    number: int
    suffix: list[int]
    answer: Answer = field(default_factory=Answer)
    reading: list[int] = field(default_factory=list)  # tokens of the next pass
    position: int = 0  # of the first of them
    present: bool = False  # decided by the presence bias: the answer must name something
    done: bool = False


@dataclass
class _BatchRow:
    """One row of the batch: a passage with some of its queries."""

    prefix: list[int]
    queries: list[_Query]

    def open(self) -> list[_Query]:
        """Queries whose answer has not ended."""
        return [query for query in self.queries if not query.done]

    def tokens(self, first: bool) -> Tokens:
        """Tokens of the next pass; the first pass also reads the passage and the queries."""
        tokens = Tokens()
        if first:
            tokens.add(self.prefix, SHARED, 0)
            for query in self.open():
                tokens.add(query.suffix[:-1], query.number, len(self.prefix))
        for query in self.open():
            tokens.add(query.reading, query.number, query.position)
        return tokens


@dataclass
class _Options:
    """The options of `Decoder.answer`."""

    free: bool
    presence_bias: float | None
    max_new_tokens: int
    token_budget: int


class Decoder:
    """Greedy decoding of open-NER answers with a causal language model and its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        attention_kinds(model.config)  # raises ValueError for a model that cannot share a passage among queries
        self.model, self.tokenizer, self.encoder = model, tokenizer, Encoder(tokenizer)
        self.special_tokens = self.encoder.special_tokens
        eos = model.generation_config.eos_token_id
        eos = tokenizer.eos_token_id if eos is None else eos
        self.eos = sorted({token for token in (eos if isinstance(eos, list) else [eos]) if isinstance(token, int)})
        self.pad = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else self.eos[0]

    def answer(
        self,
        requests: Iterable[Request],
        *,
        dataset: str | None = None,
        free: bool = False,
        presence_bias: float | None = None,
        max_new_tokens: int = 256,
        token_budget: int = 16384,
    ) -> Iterator[list[Answer]]:
        """Yield, for each request in order, its answers in the order of its types.

        Args:
            requests: passages with their types.
            dataset: the `Dataset:` line of the dialogue.
            free: continue when an answer repeats a string, as `generate()` does; otherwise the answer ends there.
            presence_bias: a type is answered if `Answer.presence` plus this is above 0, and is empty otherwise; None
                leaves the choice to greedy decoding.
            max_new_tokens: bound of one answer, in tokens.
            token_budget: bound of the key/value cache, in tokens. Passages are batched up to it, and a passage with
                more types than fit is read several times.

        Raises:
            ValueError: a passage and an answer of `max_new_tokens` need more positions than the model has.
        """
        options = _Options(free, presence_bias, max_new_tokens, token_budget)
        batch, reserve = list[_BatchRow](), min(RESERVE, max_new_tokens) + len(self.empty)
        waiting: list[list[_Query]] = []  # queries of each request whose answers have not been yielded yet
        for request in requests:
            rows = self._rows(request, dataset, options)
            for row in rows:
                size = max(len(r.prefix) + sum(len(q.suffix) + reserve for q in r.queries) for r in [*batch, row])
                if batch and size * (len(batch) + 1) > token_budget:  # every row is padded to the longest
                    batch = self._run(batch, options)
                batch.append(row)
            waiting.append([query for row in rows for query in row.queries])
            while waiting and all(query.done for query in waiting[0]):
                yield [query.answer for query in waiting.pop(0)]
        while batch:
            batch = self._run(batch, options)
        for queries in waiting:
            yield [query.answer for query in queries]

    def _rows(self, request: Request, dataset: str | None, options: _Options) -> list[_BatchRow]:
        """Split the queries of a request into rows that fit the budget even if all answers are of full length."""
        longest_answer = max(options.max_new_tokens, len(self.empty))
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        room = positions - longest_answer if positions else None
        prompts = self.encoder.encode(request.text, request.types, dataset, room)
        if room is not None and len(prompts) > room:
            raise ValueError(
                f"a passage of {len(request.text)} characters needs {len(prompts)} tokens and {longest_answer} more "
                f"for the answer, but the model has {positions} positions: cut the passage into shorter ones"
            )
        prefix, suffixes = prompts.prefix, prompts.suffixes
        longest = longest_answer + max(map(len, suffixes), default=0)
        step = min(QUERIES_A_ROW, max(1, (options.token_budget - len(prefix)) // longest))
        parts = [suffixes[begin : begin + step] for begin in range(0, len(suffixes), step)]
        return [_BatchRow(prefix, [_Query(number, suffix) for number, suffix in enumerate(part)]) for part in parts]

    @torch.no_grad()  # FSDP cannot train with tensors made in inference mode
    def _run(self, rows: list[_BatchRow], options: _Options) -> list[_BatchRow]:
        """Answer the queries of a batch in place; return the rows put off because the answers outgrew the budget.

        The first pass reads passages, queries and the empty answer after each query, whose columns it then hides.
        """
        packed, put_off = Packed(self.model, len(rows), self.pad), []
        for row in rows:
            for query in row.open():
                query.answer, query.reading = Answer(), [query.suffix[-1], *self.empty]
                query.position = len(row.prefix) + len(query.suffix) - 1
        while rows:
            first = not packed.width
            tokens = [row.tokens(first) for row in rows]
            columns = packed.width + max(len(own.ids) for own in tokens)
            if len(rows) > 1 and columns * len(rows) > options.token_budget:
                put_off.insert(0, rows.pop())
                packed.keep(range(len(rows)))
                continue
            size = 1 + len(self.empty) if first else 1  # tokens read for each answer
            logits = packed.read(tokens, size * max(len(row.open()) for row in rows))
            hidden, finished = list[tuple[int, int]](), list[tuple[int, int]]()
            for place, row in enumerate(rows):
                queries = row.open()
                own = logits[place, -size * len(queries) :].float().unflatten(0, (-1, size))  # by query
                if first:
                    self._decide(queries, own, options)
                self._write(queries, own[:, 0], options)
                hidden += [(place, back) for back in range(1, size * len(queries)) if back % size]
                for query in queries:
                    if query.done:
                        finished.append((place, query.number))
                        self._finish(query.answer)
            packed.release(hidden, finished)
            alive = [place for place, row in enumerate(rows) if row.open()]
            if alive and (len(alive) < len(rows) or 4 * packed.waste > packed.size):
                packed.keep(alive)
            rows = [rows[place] for place in alive]
        return put_off

    def _decide(self, queries: list[_Query], logits: torch.Tensor, options: _Options) -> None:
        """Measure the presence of each query's type, and end the answers that are empty.

        `logits` are those after the prompt and after each token of the empty answer: (queries, tokens, vocabulary).
        """
        totals = logits.logsumexp(-1)
        steps = logits[:, range(len(self.empty)), self.empty] - totals[:, :-1]  # log-probabilities of the empty answer
        ends = logits[:, -1, self.eos].logsumexp(-1) - totals[:, -1]
        choices = logits.argmax(-1).tolist()
        for query, logprobs, end, chosen in zip(queries, steps.tolist(), ends.tolist(), choices, strict=True):
            answer, total = query.answer, min(sum(logprobs) + end, -1e-9)  # rounding can reach 0, a probability of 1
            answer.presence = math.log(-math.expm1(total)) - total
            empty = chosen[:-1] == self.empty and chosen[-1] in self.eos and len(self.empty) < options.max_new_tokens
            if options.presence_bias is not None:
                query.present = answer.presence + options.presence_bias > 0
                empty = not query.present
            if empty:
                answer.tokens, answer.logprobs, answer.complete = list(self.empty), logprobs, True
                query.done = True

    def _write(self, queries: list[_Query], logits: torch.Tensor, options: _Options) -> None:
        """Append the most probable next token to each open answer, or end the answer.

        `logits` are those after the last token of each answer: (queries, vocabulary).
        """
        best = logits.topk(2)
        logprobs = (best.values - logits.logsumexp(-1, keepdim=True)).tolist()
        for query, tokens, values in zip(queries, best.indices.tolist(), logprobs, strict=True):
            if query.done:  # its answer is empty
                continue
            answer = query.answer
            # the second best token, if the best would make an answer empty that must name something
            choice = int(query.present and [*answer.tokens, tokens[0]] == self.empty)
            if tokens[choice] in self.eos:
                answer.complete = True
            else:
                answer.tokens.append(tokens[choice])
                answer.logprobs.append(values[choice])
                query.reading, query.position = [tokens[choice]], query.position + 1
            query.done = answer.complete or len(answer.tokens) == options.max_new_tokens
            if not (query.done or options.free):
                query.done = self._repeats(answer)

    def _repeats(self, answer: Answer) -> bool:
        """Return whether the last token closes a string that the answer already has."""
        if b'"' not in self.token_bytes[answer.tokens[-1]]:
            return False
        written = b"".join(self.token_bytes[token] for token in answer.tokens).decode(errors="ignore")
        strings = JSON_STRING.findall(written)
        return len(strings) > len(set(strings))

    def _finish(self, answer: Answer) -> None:
        """Write the text of an answer and where each token ends in it."""
        answer.text = str(self.tokenizer.decode(answer.tokens, clean_up_tokenization_spaces=False))
        pieces = [self.token_bytes[token] for token in answer.tokens]
        # SentencePiece's decoders leave out the first space
        removed = int(b"".join(pieces[:1])[:1] == b" " and not answer.text.startswith(" "))
        answer.ends = [max(0, end - removed) for end in token_ends(pieces)]

    @cached_property
    def empty(self) -> list[int]:
        """The tokens of the empty answer after a prompt, without the end token."""
        prompt = self.encoder.template.render(build_query("text", "type"), prompt=True)
        answer = " " * self.encoder.ends_in_word + write_answer([])
        before, whole = self.tokenizer([prompt, prompt + answer], add_special_tokens=False)["input_ids"]
        is_prefix = whole[: len(before)] == before  # unless the prompt's last token would extend into the answer
        return whole[len(before) :] if is_prefix else self.tokenizer.encode(answer, add_special_tokens=False)

    @cached_property
    def token_bytes(self) -> defaultdict[int, bytes]:
        """The bytes that each token writes; none for ids beyond the vocabulary, which output layers often have.

        The vocabulary is byte-level if it has "Ġ", else SentencePiece's, with bytes as `<0x0A>`. Added tokens, such as
        the special ones, are plain text in both.
        """
        vocabulary, table = self.tokenizer.get_vocab(), defaultdict[int, bytes](bytes)
        byte_level = {character: byte for byte, character in bytes_to_unicode().items()} if "Ġ" in vocabulary else {}
        added = self.tokenizer.added_tokens_decoder
        for token, index in vocabulary.items():
            if index in added:
                table[index] = token.encode()
            elif byte_level:
                table[index] = bytes(byte_level[c] for c in token if c in byte_level)
            elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
                table[index] = bytes([int(token[3:5], 16)])
            else:
                table[index] = token.replace("▁", " ").encode("utf-8", "surrogatepass")
        return table
