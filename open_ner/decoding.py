"""Greedy decoding that encodes a passage once for all its queries, and answers the queries of a batch together.

UniversalNER asks for one type per call and encodes the passage again each time. Here the passage and its queries are
one sequence (`packing.py`), read once. Each pass of the model then writes the next token of all open answers of
several passages, and an answer leaves the batch when it ends. In float32 the answers are token-identical to those of
one `generate()` per type.

As long as the tokens of an answer are those of the empty answer, the probability of its next token tells how sure the
student is that the type occurs (`Answer.presence`).
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

from .answers import Answer, end_of_repeat, token_ends
from .conversation import build_query, read_answer, write_answer
from .packing import SHARED, Packed, Tokens, attention_kinds
from .prompts import Encoder

RESERVE = 16  # tokens planned for each answer when a batch is filled; rows are put off if answers outgrow the budget
QUERIES_A_ROW = 64  # a query computes attention over the masked columns of the others too, so longer rows are slower


@dataclass
class Request:
    """A passage, the types to find in it, and the name in the line `Dataset:` of the dialogue, if it has one."""

    text: str
    types: Sequence[str]
    dataset: str | None = None


@dataclass
class _Query:
    """A query with its answer so far; `number` is its owner in the row (`packing.py`)."""

    number: int
    suffix: list[int]
    answer: Answer = field(default_factory=Answer)
    may_be_empty: bool = True  # the tokens so far are the beginning of the empty answer
    empty_logprob: float = 0.0  # of the empty answer's tokens up to the next one
    done: bool = False


@dataclass
class _BatchRow:
    """One row of the batch: a passage with some of its queries, whose answers may have begun in another batch."""

    prefix: list[int]
    queries: list[_Query]

    def open(self) -> list[_Query]:
        """Queries whose answer has not ended."""
        return [query for query in self.queries if not query.done]

    def tokens(self, first: bool) -> Tokens:
        """Tokens of the next pass; the first pass also reads the passage and the queries."""
        tokens, begin = Tokens(), len(self.prefix)
        written = [(query.number, query.suffix + query.answer.tokens) for query in self.open()]
        if first:
            tokens.add(self.prefix, SHARED, 0)
            for number, ids in written:
                tokens.add(ids[:-1], number, begin)
        for number, ids in written:
            tokens.add(ids[-1:], number, begin + len(ids) - 1)
        return tokens

    def size(self, reserve: int) -> int:
        """Number of tokens when each open answer has `reserve` more."""
        return len(self.prefix) + sum(len(q.suffix) + len(q.answer.tokens) + reserve for q in self.open())


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

    @property
    def positions(self) -> int | None:
        """Number of positions of the model; None if it has no bound."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def answer(
        self, requests: Iterable[Request], *, free: bool = False, presence_bias: float | None = None,
        max_new_tokens: int = 256, token_budget: int = 16384,
    ) -> Iterator[list[Answer]]:  # fmt: skip
        """Yield, for each request in order, its answers in the order of its types.

        The presence of a type is `log(1 - p) - log(p)`, where p is the probability of the empty answer; once the
        student chooses another token, p counts the empty answer's tokens only up to that place.

        Args:
            requests: passages with their types.
            free: continue until the end token, as `generate()` does; otherwise an answer also ends where its list is
                closed, or where it repeats a string.
            presence_bias: a type is answered if `Answer.presence` plus this is above 0, and is empty otherwise; None
                leaves the choice to greedy decoding.
            max_new_tokens: bound of one answer, in tokens.
            token_budget: bound of the key/value cache, in tokens. Passages are batched up to it, and a passage with
                more types than fit is read several times.

        Raises:
            ValueError: a passage and an answer of `max_new_tokens` need more positions than the model has.
        """
        options = _Options(free, presence_bias, max_new_tokens, token_budget)
        batch, reserve = list[_BatchRow](), min(RESERVE, max_new_tokens)
        waiting: list[list[_Query]] = []  # queries of each request whose answers have not been yielded yet
        for request in requests:
            rows = self._rows(request, options)
            for row in rows:
                size = max(each.size(reserve) for each in [*batch, row])
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

    def _rows(self, request: Request, options: _Options) -> list[_BatchRow]:
        """Split the queries of a request into rows that fit the budget even if all answers are of full length."""
        room = self.positions - options.max_new_tokens if self.positions else None
        prompts = self.encoder.encode(request.text, request.types, request.dataset, room)
        if room is not None and len(prompts) > room:
            raise ValueError(
                f"a passage of {len(request.text)} characters needs {len(prompts)} tokens and "
                f"{options.max_new_tokens} more for the answer, but the model has {self.positions} positions: "
                "cut the passage into shorter ones"
            )
        prefix, suffixes = prompts.prefix, prompts.suffixes
        longest = options.max_new_tokens + max(map(len, suffixes), default=0)
        step = min(QUERIES_A_ROW, max(1, (options.token_budget - len(prefix)) // longest))
        parts = [suffixes[begin : begin + step] for begin in range(0, len(suffixes), step)]
        return [_BatchRow(prefix, [_Query(number, suffix) for number, suffix in enumerate(part)]) for part in parts]

    @torch.no_grad()  # FSDP cannot train with tensors made in inference mode
    def _run(self, rows: list[_BatchRow], options: _Options) -> list[_BatchRow]:
        """Answer the queries of a batch in place; return the rows put off because the answers outgrew the budget."""
        packed, put_off = Packed(self.model, len(rows), self.pad), []
        while rows:
            first = not packed.width
            tokens = [row.tokens(first) for row in rows]
            columns = packed.width + max(len(own.ids) for own in tokens)
            if len(rows) > 1 and columns * len(rows) > options.token_budget:
                put_off.insert(0, rows.pop())
                packed.keep(range(len(rows)))
                continue
            logits = packed.read(tokens, max(len(row.open()) for row in rows))
            finished: list[tuple[int, int]] = []
            for place, row in enumerate(rows):
                queries = row.open()
                self._write(queries, logits[place, -len(queries) :].float(), options)
                finished += [(place, query.number) for query in queries if query.done]
            packed.release(finished)
            alive = [place for place, row in enumerate(rows) if row.open()]
            if alive and (len(alive) < len(rows) or 4 * packed.waste > packed.size):
                packed.keep(alive)
            rows = [rows[place] for place in alive]
        return put_off

    def _write(self, queries: list[_Query], logits: torch.Tensor, options: _Options) -> None:
        """Append the most probable next token to each open answer, or end the answer.

        `logits` are those after the last token of each query: (queries, vocabulary).
        """
        totals = logits.logsumexp(-1)
        best = logits.topk(2)
        logprobs = (best.values - totals[:, None]).tolist()
        empties = [self.empty[len(query.answer.tokens)] if query.may_be_empty else self.pad for query in queries]
        empty_logprobs = (logits[range(len(queries)), empties] - totals).tolist()
        for number, query in enumerate(queries):
            answer, tokens, choice = query.answer, best.indices[number].tolist(), 0
            if query.may_be_empty:
                query.empty_logprob += empty_logprobs[number]
                choice = self._decide(query, tokens, options.presence_bias)
            if not query.done and tokens[choice] in self.eos:
                answer.complete = query.done = True
            elif not query.done:
                query.may_be_empty &= tokens[choice] == empties[number] and len(answer.tokens) + 1 < len(self.empty)
                answer.tokens.append(tokens[choice])
                answer.logprobs.append(logprobs[number][choice])
                ended = not options.free and self._ends(answer)
                answer.cut = len(answer.tokens) == options.max_new_tokens and not ended
                query.done = ended or answer.cut
            if query.done:
                self._finish(answer)

    def _decide(self, query: _Query, tokens: list[int], bias: float | None) -> int:
        """Measure the presence of a query's type; with a bias, decide by it whether the answer may be empty.

        `tokens` are the two best next tokens. Returns which of them to take.
        """
        answer, logprob = query.answer, min(query.empty_logprob, -1e-9)  # rounding can reach 0, a probability of 1
        answer.presence = math.log(-math.expm1(logprob)) - logprob
        if bias is None:
            return 0
        place = len(answer.tokens)
        if answer.presence + bias > 0:
            # `[` may also begin a list with strings, unless the second best token is `["`
            avoided = place + 1 == len(self.empty) or b'"' in self.token_bytes[tokens[1]]
            return int(tokens[0] == self.empty[place] and avoided)
        if tokens[0] != self.empty[place]:
            answer.tokens, answer.logprobs, answer.complete = list(self.empty), [0.0] * len(self.empty), True
            query.done = True
        return 0

    def _ends(self, answer: Answer) -> bool:
        """Return whether the last token closes the list, or a string that the answer already has."""
        if not set(b'"]') & set(self.token_bytes[answer.tokens[-1]]):
            return False
        written = b"".join(self.token_bytes[token] for token in answer.tokens).decode(errors="ignore")
        answer.complete = written.endswith("]") and read_answer(written) is not None
        return answer.complete or end_of_repeat(written) is not None

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
