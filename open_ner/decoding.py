"""Greedy decoding that encodes a passage once for all its queries, and answers the queries of a batch together.

UniversalNER asks for one type per call and encodes the passage again each time. Here the passage and its queries are
one sequence (`packing.py`), read once. Each pass of the model then writes the next tokens of all open answers of
several passages, and an answer leaves the batch when it ends. In float32 the answers are token-identical to those of
one `generate()` per type.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .answers import Answer, token_ends
from .conversation import write_answer
from .grammar import AnswerGrammar, Phase, State, token_bytes
from .packing import SHARED, Packed, Tokens, attention_kinds
from .prompts import Encoder

CANDIDATES = 16  # tokens, most likely first, checked against the grammar before the whole vocabulary is sorted
RESERVE = 16  # tokens for each answer when a batch is filled; a batch that outgrows its budget puts off passages
DRAFT = 4  # tokens that an answer reads ahead, at most
QUERIES_A_ROW = 64  # more would slow each other down: a query attends past the columns of all others in its row
Candidate = tuple[int, float]  # a token and its log-probability


@dataclass
class Request:
    """A passage and the types to find in it."""

    text: str
    types: Sequence[str]


@dataclass
class _OpenQuery:
    """A query in the batch, with its answer so far. The grammar's state also tells which tokens to draft."""

    suffix: list[int]
    grammar: AnswerGrammar
    start: State
    answer: Answer = field(default_factory=Answer)
    state: State = field(default_factory=State)
    position: int = 0  # of the next token to read
    next: list[int] = field(default_factory=list)  # tokens to read next: the one chosen last, then drafts
    done: bool = False


@dataclass
class _BatchRow:
    """A passage with some of its queries: one row of the batch."""

    prefix: list[int]
    queries: list[_OpenQuery]

    def open(self) -> list[tuple[int, _OpenQuery]]:
        """Unanswered queries with their numbers."""
        return [(number, query) for number, query in enumerate(self.queries) if not query.done]

    def reading(self, first: bool) -> Tokens:
        """Tokens for the next pass; the first pass also reads the passage and the queries."""
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
        attention_kinds(model.config)  # raises ValueError for a model that cannot share a passage among queries
        self.model, self.tokenizer, self.encoder = model, tokenizer, Encoder(tokenizer)
        self.special_tokens = self.encoder.special_tokens
        eos = model.generation_config.eos_token_id
        eos = tokenizer.eos_token_id if eos is None else eos
        self.eos = {token for token in (eos if isinstance(eos, list) else [eos]) if isinstance(token, int)}
        self.pad = tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else min(self.eos)
        self.quote = tokenizer.encode(' "', add_special_tokens=False)  # between a comma and the next string
        # tokens in a pass that costs little more than a pass of one; many on a GPU, which waits for its memory
        self.cheap_tokens = 8 if model.device.type == "cpu" else 256

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

        `token_budget` bounds the key/value cache, in tokens: passages are batched up to it, and a passage with more
        types than fit is read several times. Raises ValueError if a passage and an answer of `max_new_tokens` need
        more positions than the model has.
        """
        batch, reserve = list[_BatchRow](), min(RESERVE, max_new_tokens)
        waiting: list[list[_OpenQuery]] = []  # queries of each request that has not been yielded yet
        for request in requests:
            rows = self._rows(request, dataset, max_new_tokens, token_budget)
            for row in rows:
                size = max(len(r.prefix) + sum(len(q.suffix) + reserve for q in r.queries) for r in [*batch, row])
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
        """Split the queries of a request into rows that fit the budget even if every answer has full length."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        room = positions - max_new_tokens if positions else None
        prompts = self.encoder.encode(request.text, request.types, dataset, room)
        if room is not None and len(prompts) > room:
            raise ValueError(
                f"a passage of {len(request.text)} characters needs {len(prompts)} tokens and {max_new_tokens} more "
                f"for the answer, but the model has {positions} positions: cut the passage into shorter ones"
            )
        grammar = AnswerGrammar(request.text if request.types else "")
        start = State(Phase.LEAD if self.encoder.ends_in_word else Phase.START)
        queries = [_OpenQuery(suffix, grammar, start) for suffix in prompts.suffixes]
        longest = max_new_tokens + max((len(suffix) for suffix in prompts.suffixes), default=0)
        step = min(QUERIES_A_ROW, max(1, (token_budget - len(prompts.prefix)) // longest))
        return [_BatchRow(prompts.prefix, queries[begin : begin + step]) for begin in range(0, len(queries), step)]

    @torch.no_grad()  # FSDP cannot train with tensors made in inference mode
    def _run(self, rows: list[_BatchRow], grounded: bool, max_new_tokens: int, token_budget: int) -> list[_BatchRow]:
        """Answer the queries of a batch in place; return the rows put off because the answers outgrew the budget."""
        packed, put_off = Packed(self.model, len(rows), self.pad), []
        for row in rows:
            for _, query in row.open():
                query.answer, query.state, query.next = Answer(), query.start, query.suffix[-1:]
                query.position = len(row.prefix) + len(query.suffix) - 1
        while rows:
            reading = [row.reading(first=not packed.width) for row in rows]
            columns = packed.width + max(len(tokens.ids) for tokens in reading)
            if len(rows) > 1 and columns * len(rows) > token_budget:
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
        """Append its next token to each open answer, and further tokens as long as its drafts were right.

        `logits` has the shape (rows, tokens, vocabulary). Returns the cells of rejected drafts as (row, columns from
        the end), and the queries that are done as (row, number).
        """
        sizes = [sum(len(query.next) for _, query in row.open()) for row in rows]
        cells = [(number, back) for number, size in enumerate(sizes) for back in range(size, 0, -1)]
        where, back = torch.tensor(cells, device=logits.device).T
        logits = logits[where, -back].float()
        best = logits.topk(min(CANDIDATES if grounded else 1, logits.shape[-1]), dim=-1)
        logprobs = (best.values - logits.logsumexp(-1, keepdim=True)).tolist()
        candidates, at = best.indices.tolist(), 0
        rejected, finished = [], []
        for name, row in enumerate(rows):
            for number, query in row.open():
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
                    finished.append((name, number))
                rejected += cells[at + read : at + size]
                query.position += read
                query.next = query.answer.tokens[-1:]
                at += size
        return rejected, finished

    def _choose(self, query: _OpenQuery, best: list[Candidate], logits: torch.Tensor, grounded: bool) -> int | None:
        """Append the best allowed token to the answer and return it; return None if the answer ends instead."""
        answer = query.answer
        token, logprob = best[0]
        if grounded:
            found = self._first_allowed(query, best)
            if found is None:  # rare: none of the best tokens is allowed
                ordered = logits.log_softmax(-1).sort(descending=True)
                everything = zip(ordered.indices.tolist(), ordered.values.tolist(), strict=True)
                found = self._first_allowed(query, everything)
            if found is None or query.state.phase is Phase.REPEAT:  # no token of the vocabulary is allowed, or a loop
                answer.complete, query.done = found is not None, True
                return None
            token, logprob = found
            answer.deficits.append(best[0][1] - logprob)
        elif token in self.eos:
            answer.complete = query.done = True
            return None
        else:
            query.state = query.grammar.advance(query.state, self.token_bytes[token]) or State(Phase.OUTSIDE)
        answer.tokens.append(token)
        answer.logprobs.append(logprob)
        if grounded and query.state.phase is Phase.END:  # only the end token may follow: save the pass for it
            answer.complete = query.done = True
        return token

    def _first_allowed(self, query: _OpenQuery, candidates: Iterable[Candidate]) -> Candidate | None:
        """The first candidate that the grammar allows; the query's state moves there."""
        for token, logprob in candidates:
            state = query.grammar.advance(query.state, self.token_bytes[token])
            if state is not None:
                query.state = state
                return token, logprob
        return None

    def _draft(self, rows: list[_BatchRow], max_new_tokens: int) -> None:
        """Let open answers read ahead likely tokens; each is compared with the model's own choice, so none changes."""
        queries = [query for row in rows for _, query in row.open()]
        if not queries:
            return
        spare = (self.cheap_tokens - len(rows) * max(len(row.open()) for row in rows)) // len(queries)
        for query in queries:
            tokens = query.answer.tokens
            # what followed the last three tokens when the answer had them before: a student in a loop stays in it
            repeated = (tokens[n + 3 :] for n in range(len(tokens) - 4, -1, -1) if tokens[n : n + 3] == tokens[-3:])
            drafted, size = next(repeated, []), DRAFT
            if not drafted and query.state.phase is Phase.SEPARATOR:
                drafted = self.quote
            elif not drafted and spare > 0:
                size = min(spare, DRAFT)
                upcoming = query.grammar.upcoming(query.state, 8 * size).decode(errors="ignore")
                drafted = self.tokenizer.encode(upcoming, add_special_tokens=False) if upcoming else []
            query.next += drafted[: max(0, min(size, max_new_tokens - len(tokens) - 1))]

    def _finish(self, query: _OpenQuery, grounded: bool) -> None:
        """Write the text of an answer and where each token ends in it; a grounded answer that was cut is closed."""
        answer = query.answer
        answer.text = str(self.tokenizer.decode(answer.tokens, clean_up_tokenization_spaces=False))
        names = self.tokenizer.convert_ids_to_tokens(answer.tokens)  # `token_bytes` has none for special tokens
        pieces = [self.token_bytes[i] or (name or "").encode() for i, name in zip(answer.tokens, names, strict=True)]
        # SentencePiece's decoders leave out the first space
        removed = int(b"".join(pieces[:1])[:1] == b" " and not answer.text.startswith(" "))
        answer.ends = [max(0, end - removed) for end in token_ends(pieces)]
        if grounded:
            if query.state.phase is not Phase.END:
                answer.text = write_answer(query.grammar.strings(query.state))
            answer.drop_forced()

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """The bytes each token of the vocabulary writes."""
        head = self.model.get_output_embeddings()
        assert head is not None, "a causal language model has an output layer"
        size = head.weight.shape[0]  # often padded beyond the tokenizer's vocabulary
        return token_bytes(self.tokenizer.get_vocab(), size, self.special_tokens)
