"""One passage, many types, one reading: all queries of a passage are answered together over its one encoding.

UniversalNER asks one type per call and encodes the passage again each time. Here the passage and its queries are one
sequence (`packing.py`), read once; then every pass of the model writes the next tokens of all open answers of several
passages, and an answer leaves as it finishes. In float32 the greedy answers are token-identical to one `generate()`
per type.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answers import Answer
from .conversation import write_answer
from .grammar import AnswerGrammar, Phase, State, token_bytes
from .packing import SHARED, Packed, Tokens, attention_kinds
from .prompts import Encoder

CANDIDATES = 16  # of the model's best tokens, tried against the grammar before the whole vocabulary is sorted
RESERVE = 16  # tokens of an answer a batch makes room for; one that grows beyond its budget gives up passages
DRAFT = 4  # tokens read ahead of an answer at most
QUERIES_A_ROW = 64  # of one passage in a sequence: each reads past the others' columns


@dataclass
class Request:
    """A passage and the types asked of it."""

    text: str
    types: Sequence[str]


@dataclass
class _OpenQuery:
    """One query on its way through the batch. Its state under the grammar also tells what to draft."""

    suffix: list[int]
    grammar: AnswerGrammar
    start: State
    answer: Answer = field(default_factory=Answer)
    state: State | None = None  # None once a free answer has left the grammar
    position: int = 0  # of the next token it reads
    next: list[int] = field(default_factory=list)  # what it reads next: the token chosen last, and drafts after it
    done: bool = False

    def begin(self, prefix: int) -> None:
        """Stand at the end of the prompt, whose passage took `prefix` tokens, with nothing answered."""
        self.answer, self.state = Answer(), self.start
        self.position, self.next = prefix + len(self.suffix) - 1, self.suffix[-1:]


@dataclass
class _BatchRow:
    """A passage with some of its queries: one row of the batch."""

    prefix: list[int]
    queries: list[_OpenQuery]

    def columns(self, new_tokens: int) -> int:
        """Columns of the cache it takes with so many tokens of each answer."""
        return len(self.prefix) + sum(len(query.suffix) + new_tokens for query in self.queries)

    def open(self) -> list[tuple[int, _OpenQuery]]:
        """Queries not yet answered, with their numbers."""
        return [(number, query) for number, query in enumerate(self.queries) if not query.done]

    def reading(self, first: bool) -> Tokens:
        """What the next pass reads of it; first of all the passage and the queries, their last tokens together."""
        tokens = Tokens()
        if first:
            tokens.add(self.prefix, SHARED, 0)
            for number, query in self.open():
                tokens.add(query.suffix[:-1], number, len(self.prefix))
        for number, query in self.open():
            tokens.add(query.next, number, query.position)
        return tokens


class Decoder:
    """Greedy decoding of open-NER answers with a causal language model and its tokenizer."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        attention_kinds(model)  # refuses what cannot be packed
        self.model, self.tokenizer, self.encoder = model, tokenizer, Encoder(tokenizer)
        self.special_tokens = self.encoder.special_tokens
        configured = model.generation_config.eos_token_id
        configured = tokenizer.eos_token_id if configured is None else configured
        self.eos = set(configured if isinstance(configured, list) else [configured])
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.eos)

    def answer(
        self,
        requests: Iterable[Request],
        *,
        dataset: str | None = None,
        grounded: bool = True,
        max_new_tokens: int = 256,
        token_budget: int = 16384,
    ) -> Iterator[list[Answer]]:
        """Yield, for each request in order, its answers in the order of its types.

        `token_budget` bounds the key/value cache, in tokens: as many passages go through together as fit, and a
        passage with more types than fit is asked in several turns. Raises ValueError for a passage that does not fit
        the model's window.
        """
        batch: list[_BatchRow] = []
        waiting: list[list[_OpenQuery]] = []  # of the requests not yet yielded
        for request in requests:
            rows = self._rows(request, dataset, max_new_tokens, token_budget)
            for row in rows:
                size = max(other.columns(min(RESERVE, max_new_tokens)) for other in [*batch, row])
                if batch and size * (len(batch) + 1) > token_budget:  # every row is padded to the longest
                    batch = self._run(batch, grounded, max_new_tokens, token_budget)
                batch.append(row)
            waiting.append([query for row in rows for query in row.queries])
            while waiting and all(query.done for query in waiting[0]):
                yield [query.answer for query in waiting.pop(0)]
        while batch:
            batch = self._run(batch, grounded, max_new_tokens, token_budget)
        for queries in waiting:
            yield [query.answer for query in queries]

    def _rows(self, request: Request, dataset: str | None, max_new_tokens: int, token_budget: int) -> list[_BatchRow]:
        """The request's queries, as many to a row as fit the budget should every answer be of full length."""
        window = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        room = window - max_new_tokens if window else None
        prompts = self.encoder.encode(request.text, request.types, dataset, room)
        if room is not None and len(prompts) > room:
            raise ValueError(
                f"a passage of {len(request.text)} characters needs {len(prompts)} tokens and {max_new_tokens} to "
                f"answer, the model's window is {window}: cut the passage into shorter ones"
            )
        grammar = AnswerGrammar(request.text if request.types else "")
        queries = [_OpenQuery(suffix, grammar, self.start) for suffix in prompts.suffixes]
        longest = max_new_tokens + max((len(suffix) for suffix in prompts.suffixes), default=0)
        step = min(QUERIES_A_ROW, max(1, (token_budget - len(prompts.prefix)) // longest))
        return [_BatchRow(prompts.prefix, queries[begin : begin + step]) for begin in range(0, len(queries), step)]

    @torch.inference_mode()
    def _run(self, rows: list[_BatchRow], grounded: bool, max_new_tokens: int, token_budget: int) -> list[_BatchRow]:
        """Answer the queries of a batch; the answers are filled in place.

        Returns rows that were put off, to be asked anew, because the answers before them grew beyond the budget.
        """
        packed, put_off = Packed(self.model, len(rows), self.pad), []
        for row in rows:
            for _, query in row.open():
                query.begin(len(row.prefix))
        while rows:
            reading = [row.reading(first=not packed.width) for row in rows]
            if len(rows) > 1 and packed.after(reading) > token_budget:
                put_off.insert(0, rows.pop())
                packed.keep(range(len(rows)))
                continue
            logits = packed.read(reading, max(sum(len(q.next) for _, q in row.open()) for row in rows))
            packed.release(*self._write(rows, logits, grounded, max_new_tokens))
            alive = [number for number, row in enumerate(rows) if row.open()]
            if alive and (len(alive) < len(rows) or 4 * packed.waste > packed.size):
                packed.keep(alive)
            rows = [rows[number] for number in alive]
            self._draft(rows, max_new_tokens)
        return put_off

    def _write(
        self, rows: list[_BatchRow], logits: torch.Tensor, grounded: bool, max_new_tokens: int
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Append to each open answer its next token, and those that drafts foretold.

        `logits` has the shape (rows, tokens, vocabulary). Returns the cells of rejected drafts as (row, columns from
        the end), and the queries that are done as (row, number).
        """
        cells = [
            (number, back)
            for number, row in enumerate(rows)
            for back in range(sum(len(query.next) for _, query in row.open()), 0, -1)
        ]
        where, back = torch.tensor(cells, device=logits.device).T
        logits = logits[where, -back].float()
        best = logits.topk(min(CANDIDATES if grounded else 1, logits.shape[-1]), dim=-1)
        logprobs = (best.values - logits.logsumexp(-1, keepdim=True)).tolist()
        candidates, at = best.indices.tolist(), 0
        rejected, finished = [], []
        for number, row in enumerate(rows):
            for name, query in row.open():
                read, size = 0, len(query.next)
                while True:
                    pairs = list(zip(candidates[at + read], logprobs[at + read], strict=True))
                    token = self._choose(query, pairs, logits[at + read], grounded)
                    read += 1
                    query.done = query.done or len(query.answer.tokens) == max_new_tokens
                    if query.done or read == size or token != query.next[read]:
                        break
                if query.done:
                    self._finish(query, grounded)
                    finished.append((number, name))
                rejected += cells[at + read : at + size]
                query.position += read
                query.next = [token]
                at += size
        return rejected, finished

    def _choose(
        self, query: _OpenQuery, best: list[tuple[int, float]], logits: torch.Tensor, grounded: bool
    ) -> int | None:
        """Append the best token allowed to the answer, and return it; None where the answer ends instead."""
        answer = query.answer
        token, logprob = best[0]
        if grounded:
            found = self._first_allowed(query, best)
            if found is None:  # rare: none of the best tokens is allowed
                everything = logits.log_softmax(-1).sort(descending=True)
                found = self._first_allowed(
                    query, zip(everything.indices.tolist(), everything.values.tolist(), strict=True)
                )
            if found is None or query.state.phase is Phase.REPEAT:  # no token spells what the grammar allows
                answer.complete = found is not None
                query.done = True
                return None
            token, logprob = found
            answer.deficits.append(best[0][1] - logprob)
        elif token in self.eos:
            answer.complete = query.done = True
            return None
        elif query.state is not None:
            query.state = query.grammar.advance(query.state, self.token_bytes[token])
        answer.tokens.append(token)
        answer.logprobs.append(logprob)
        if grounded and query.state.phase is Phase.END:  # only the end token may follow: no pass is spent on it
            answer.complete = query.done = True
        return token

    def _first_allowed(self, query: _OpenQuery, candidates: Iterable[tuple[int, float]]) -> tuple[int, float] | None:
        """The first `(token, logprob)` the grammar allows; moves the query's state there."""
        for token, logprob in candidates:
            state = query.grammar.advance(query.state, self.token_bytes[token])
            if state is not None:
                query.state = state
                return token, logprob
        return None

    def _draft(self, rows: list[_BatchRow], max_new_tokens: int) -> None:
        """Let open answers read ahead: what is all but forced, and where that is cheap the passage's next words.

        A draft changes no answer: the model's own choice after each token is compared with it.
        """
        queries = [query for row in rows for _, query in row.open()]
        if not queries:
            return
        spare = (self.cheap_tokens - len(rows) * max(len(row.open()) for row in rows)) // len(queries)
        for query in queries:
            tokens, state = query.answer.tokens, query.state
            drafted, size = _repeated(tokens), DRAFT
            if not drafted and state is not None and state.phase is Phase.SEPARATOR:
                drafted = self.quote
            elif not drafted and state is not None and spare > 0:
                size = min(spare, DRAFT)
                upcoming = query.grammar.upcoming(state, 8 * size).decode(errors="ignore")
                drafted = self.tokenizer.encode(upcoming, add_special_tokens=False) if upcoming else []
            query.next += drafted[: max(0, min(size, max_new_tokens - len(tokens) - 1))]

    def _finish(self, query: _OpenQuery, grounded: bool) -> None:
        """Write the text of an answer and where in it each token ends; a grounded answer is closed if it was cut."""
        answer, decode = query.answer, self.tokenizer.decode
        answer.text = decode(answer.tokens, clean_up_tokenization_spaces=False)
        answer.ends = [
            len(decode(answer.tokens[: i + 1], clean_up_tokenization_spaces=False)) for i in range(len(answer.tokens))
        ]
        if grounded:
            if query.state.phase is not Phase.END:
                answer.text = write_answer(query.grammar.strings(query.state))
            answer.drop_forced()

    @cached_property
    def cheap_tokens(self) -> int:
        """A pass of so many tokens costs little more than a pass of one; many on a GPU, which waits for memory."""
        return 8 if self.model.device.type == "cpu" else 256

    @cached_property
    def quote(self) -> list[int]:
        """Tokens of what stands between a comma and the next string."""
        return self.tokenizer.encode(' "', add_special_tokens=False)

    @cached_property
    def start(self) -> State:
        """Where an answer starts."""
        return State(Phase.LEAD if self.encoder.ends_in_word else Phase.START)

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes each token of the vocabulary writes."""
        rows = self.model.get_output_embeddings().weight.shape[0]  # often padded beyond the tokenizer's vocabulary
        return token_bytes(self.tokenizer.get_vocab(), rows, self.special_tokens)


def _repeated(tokens: list[int]) -> list[int]:
    """What followed the last three tokens when they were written before: a student in a loop stays in it."""
    for place in range(len(tokens) - 4, -1, -1):
        if tokens[place : place + 3] == tokens[-3:]:
            return tokens[place + 3 :]
    return []
