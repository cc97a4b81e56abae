"""Encode a conversation, and a summary if there is one, into token ids and a loss mask.

Training and inference use the same `Encoder`. Text from a conversation is data: control tokens that
a customer typed stay ordinary text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from job.conversations.record import Conversation
from job.errors import DamagedError, DataError
from job.model import Tokenizer
from job.prompt.fitting import count_fitting_ends, cut
from job.prompt.plain_ids import control_text_ids, plain_ids
from job.prompt.template import FILE, Prompt

IGNORED = -100  # the label of a token without loss, as torch's cross-entropy has it

# No vocabulary has a longer token; some have runs of 128 spaces.
MAX_CHARACTERS_PER_TOKEN = 256

# A turn with more characters than this for each token of room is cut before it is tokenized.
CUT_CHARACTERS_PER_TOKEN = 8


class TooLongError(DataError):
    """The conversation does not fit into a prompt, or into the allowed number of parts.

    A prompt must hold the first and the last turn; a part, the instruction and some text.
    """


class NothingToSummarizeError(DataError):
    """No turn has any text."""


class EncodedPrompt(NamedTuple):
    """Token ids of a prompt, and how many turns were dropped from its middle to make it fit."""

    ids: list[int]
    dropped_turns: int


class EncodedPart(NamedTuple):
    """Token ids of the prompt of a part of a conversation, and how many turns begin in it."""

    ids: list[int]
    turns: int


@dataclass(frozen=True)
class EncodedExample:
    """A training row: ids of prompt, summary and end token, and a label for each.

    Labels of the prompt are IGNORED: the loss is on the summary and its end only. `dropped_tokens`
    is None if the conversation has more characters than are ever tokenized.
    """

    input_ids: list[int]
    labels: list[int]
    dropped_turns: int
    dropped_tokens: int | None = 0


@dataclass(frozen=True)
class EncodedAnswers:
    """Ids of a prompt, and of each judged answer to it with its end token.

    `wanted` says which answers are. `dropped_tokens` is that of an `EncodedExample`.
    """

    prompt_ids: list[int]
    answers: list[list[int]]
    wanted: list[bool]
    dropped_turns: int
    dropped_tokens: int | None = 0


class _Piece(NamedTuple):
    """A line with a turn or a part of one. `turns` is 1 if a turn begins in it, else 0."""

    line: str
    turns: int
    tokens: int


@dataclass(frozen=True)
class Encoder:
    """Makes prompts and training rows of at most `max_tokens` tokens."""

    prompt: Prompt
    tokenizer: Tokenizer
    max_tokens: int

    @cached_property
    def tokens_around(self) -> int:
        """The number of tokens of a prompt without a conversation."""
        return len(self._ids_of([""]))

    def tokenize_each(self, conversations: Sequence[Conversation]) -> list[list[int] | None]:
        """Return the ids of each conversation's prompt with all its turns, however long it is.

        One call tokenizes all of them, on all cores, and without Python's lock. None stands for a
        conversation without text, or with more characters than can ever fit.
        """
        max_characters = self.max_tokens * MAX_CHARACTERS_PER_TOKEN
        whole: list[list[int] | None] = [None] * len(conversations)
        rows = []
        lines_of_rows = []
        for row, conversation in enumerate(conversations):
            lines = self._lines_if_any(conversation)
            if lines and sum(map(len, lines)) <= max_characters:
                rows.append(row)
                lines_of_rows.append(lines)
        for row, ids in zip(rows, self._ids_of_each(lines_of_rows), strict=True):
            whole[row] = ids
        return whole

    def encode(self, conversation: Conversation, whole: list[int] | None = None) -> EncodedPrompt:
        """Return the conversation's prompt. Drops whole turns from the middle until it fits.

        `whole` is what `tokenize_each` returned for it. Raise NothingToSummarizeError without any
        text, TooLongError if not even the first and the last turn fit.
        """
        if whole is not None and len(whole) <= self.max_tokens:
            return EncodedPrompt(whole, 0)

        all_lines = self._lines(conversation)
        lines = self._drop_by_characters(all_lines, conversation)
        ids = whole or self._ids_of(lines)
        if len(ids) <= self.max_tokens:
            return EncodedPrompt(ids, len(all_lines) - len(lines))

        # Lines are counted one by one. Tokens that join lines make the sum inexact, so the prompt
        # is encoded to see if it fits, and loses another turn until it does.
        counts = [len(line) for line in plain_ids([f"{line}\n" for line in lines], self.tokenizer)]
        around = len(ids) - sum(counts)
        head, tail = count_fitting_ends(counts, self.max_tokens - around)
        while head + tail >= min(len(lines), 2):
            ids = self._ids_of([*lines[:head], *lines[len(lines) - tail :]])
            if len(ids) <= self.max_tokens:
                return EncodedPrompt(ids, len(all_lines) - head - tail)
            if head > tail:
                head -= 1
            else:
                tail -= 1
        raise TooLongError(
            f"{conversation.source}: {sum(counts)} tokens in {len(lines)} turns; even the first "
            f"and the last turn alone do not fit into {self.max_tokens} tokens with the instruction"
        )

    def encode_parts(
        self, conversation: Conversation, max_parts: int, whole: list[int] | None = None
    ) -> list[EncodedPart]:
        """Return prompts that together contain every turn, each with as many whole turns as fit.

        `whole` is what `tokenize_each` returned for the conversation. A turn that does not fit into
        a prompt of its own is cut at spaces. Raise NothingToSummarizeError without any text,
        TooLongError if more than `max_parts` prompts are needed.
        """
        lines = self._lines(conversation)
        if sum(map(len, lines)) <= self.max_tokens * MAX_CHARACTERS_PER_TOKEN:
            ids = whole or self._ids_of(lines)
            if len(ids) <= self.max_tokens:
                return [EncodedPart(ids, len(lines))]

        room = self.max_tokens - self.tokens_around
        parts: list[EncodedPart] = []
        group: list[_Piece] = []
        used = 0
        for piece in self._pieces(conversation, room):
            if group and used + piece.tokens > room:
                parts += self._encode_group(group)
                group = []
                used = 0
            group.append(piece)
            used += piece.tokens
            if len(parts) >= max_parts:
                raise TooLongError(
                    f"{conversation.source}: it takes more than {max_parts} parts of "
                    f"{self.max_tokens} tokens; raise generation.max_input_tokens, or cut the "
                    "conversation"
                )
        return parts + self._encode_group(group)

    def encode_example(self, conversation: Conversation, summary: str) -> EncodedExample:
        """Return a training row. To make it fit, the prompt loses turns; the summary stays whole.

        Raise what `encode` raises.
        """
        return self._example(conversation, self._answers([summary])[0], None)

    def encode_examples(
        self, conversations: Sequence[Conversation]
    ) -> list[EncodedExample | TooLongError]:
        """Return what `encode_example` returns for each reference of each conversation, in order.

        A TooLongError stands for a row that does not fit. All are tokenized in two calls, and a
        conversation once for all its references. Raise NothingToSummarizeError without any text.
        """
        references = [each for conversation in conversations for each in conversation.references]
        answers = iter(self._answers(references))
        rows: list[EncodedExample | TooLongError] = []
        for conversation, whole in zip(
            conversations, self.tokenize_each(conversations), strict=True
        ):
            for _ in conversation.references:
                try:
                    rows.append(self._example(conversation, next(answers), whole))
                except TooLongError as error:
                    rows.append(error)
        return rows

    def encode_answers(
        self, conversations: Sequence[Conversation]
    ) -> list[EncodedAnswers | TooLongError]:
        """Return the prompt and the judged answers of each conversation, in order.

        All answers of a conversation have the same prompt, which loses turns until the longest of
        them fits. A TooLongError stands for a conversation whose answers do not fit. Raise
        NothingToSummarizeError without any text.
        """
        texts = [each.text for conversation in conversations for each in conversation.answers]
        all_answers = iter(self._answers(texts))
        rows: list[EncodedAnswers | TooLongError] = []
        for conversation, whole in zip(
            conversations, self.tokenize_each(conversations), strict=True
        ):
            answers = [next(all_answers) for _ in conversation.answers]
            longest = max(answers, key=len)
            try:
                row = self._example(conversation, longest, whole)
            except TooLongError as error:
                rows.append(error)
                continue
            prompt_ids = row.input_ids[: -len(longest)]
            wanted = [answer.is_wanted for answer in conversation.answers]
            dropped = (row.dropped_turns, row.dropped_tokens)
            rows.append(EncodedAnswers(prompt_ids, answers, wanted, *dropped))
        return rows

    def _answers(self, summaries: list[str]) -> list[list[int]]:
        """Return the ids of each summary and its end."""
        end = self.end_ids()
        texts = [summary.strip() for summary in summaries]
        return [[*ids, *end] for ids in plain_ids(texts, self.tokenizer)]

    def _example(
        self, conversation: Conversation, answer: list[int], whole: list[int] | None
    ) -> EncodedExample:
        """Return a training row. `whole` is what `tokenize_each` returned, if that was called."""
        if len(answer) >= self.max_tokens:
            raise TooLongError(
                f"{conversation.source}: a summary of {len(answer)} tokens leaves no room for a "
                f"prompt in {self.max_tokens} tokens"
            )
        room = self.max_tokens - len(answer)
        if whole is not None and len(whole) <= room:
            encoded = EncodedPrompt(whole, 0)
        else:
            encoded = replace(self, max_tokens=room).encode(conversation)
        dropped_tokens: int | None = 0
        if encoded.dropped_turns:
            dropped_tokens = None if whole is None else len(whole) - len(encoded.ids)
        return EncodedExample(
            input_ids=encoded.ids + answer,
            labels=[IGNORED] * len(encoded.ids) + answer,
            dropped_turns=encoded.dropped_turns,
            dropped_tokens=dropped_tokens,
        )

    def _ids_of(self, lines: list[str]) -> list[int]:
        """Return the ids of a prompt with these lines, however many they are."""
        return self._ids_of_each([lines])[0]

    def _ids_of_each(self, lines_of_each: Sequence[list[str]]) -> list[list[int]]:
        """Return the ids of a prompt for each group of lines."""
        prompt = self.prompt
        texts = ["\n".join(lines) for lines in lines_of_each]
        if not prompt.control_tokens:
            # As one text: a tokenizer may join the instruction's last line end with the first word.
            texts = [prompt.before + text + prompt.after for text in texts]
            begin = self._begin_ids()
            return [[*begin, *ids] for ids in plain_ids(texts, self.tokenizer)]

        # Control tokens of the chat template are meant as such; those in the text are not.
        before, after = control_text_ids(self.tokenizer, prompt.before, prompt.after)
        return [[*before, *ids, *after] for ids in plain_ids(texts, self.tokenizer)]

    def _begin_ids(self) -> list[int]:
        """Return the ids that a prompt without control tokens of its own begins with."""
        begin = self.prompt.begin
        if begin is not None:
            return self._control_ids(begin)
        # Adapters of earlier versions learned it also where the tokenizer adds none.
        id = self.tokenizer.bos_token_id
        return [] if id is None else [id]

    def end_ids(self) -> list[int]:
        """Return the ids of the tokens that end a summary."""
        return self._control_ids(self.prompt.end) or [self.tokenizer.eos_token_id]

    def _control_ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the ids of control tokens; raise DamagedError if the tokenizer has not all."""
        ids = []
        for token in tokens:
            id = self.tokenizer.convert_tokens_to_ids(token)
            if id is None or self.tokenizer.convert_ids_to_tokens(id) != token:
                raise DamagedError(f"{FILE}: {token!r} is no token of the tokenizer that is there")
            ids.append(id)
        return ids

    def _lines(self, conversation: Conversation) -> list[str]:
        lines = self._lines_if_any(conversation)
        if not lines:
            raise NothingToSummarizeError(f"{conversation.source}: no turn has any text")
        return lines

    def _lines_if_any(self, conversation: Conversation) -> list[str]:
        lines = []
        for turn in conversation.turns:
            text = turn.text.strip()
            if text:
                lines.append(self.prompt.line(turn.role, text))
        return lines

    def _drop_by_characters(self, lines: list[str], conversation: Conversation) -> list[str]:
        """Drop lines from the middle that cannot fit, whatever their tokens are.

        Counts characters only: to tokenize a line of 50 MB would take minutes and gigabytes.
        """
        max_characters = self.max_tokens * MAX_CHARACTERS_PER_TOKEN
        if sum(map(len, lines)) <= max_characters:
            return lines
        head, tail = count_fitting_ends([len(line) for line in lines], max_characters)
        kept = [*lines[:head], *lines[len(lines) - tail :]]
        characters = sum(map(len, kept))
        if characters > max_characters:
            raise TooLongError(
                f"{conversation.source}: the first and the last of {len(lines)} turns alone have "
                f"{characters} characters, which never fit into {self.max_tokens} tokens"
            )
        return kept

    def _pieces(self, conversation: Conversation, room: int) -> Iterator[_Piece]:
        """Yield lines of at most `room` tokens each; a longer turn is cut into several."""
        max_characters = max(room, 1) * CUT_CHARACTERS_PER_TOKEN
        for turn in conversation.turns:
            text = turn.text.strip()
            waiting = [text] if text else []  # what is left of the turn, its beginning last
            turns = 1
            while waiting:
                text = waiting.pop()
                line = self.prompt.line(turn.role, text)
                is_short = len(text) <= max_characters
                tokens = room + 1
                if is_short:
                    tokens = len(plain_ids([f"{line}\n"], self.tokenizer)[0])

                if tokens <= room:
                    yield _Piece(line, turns, tokens)
                    turns = 0
                    continue
                if len(text) < 2:
                    raise TooLongError(
                        f"{conversation.source}: {room} tokens beside the instruction hold no turn "
                        "at all"
                    )
                first, rest = cut(text, len(text) // 2 if is_short else max_characters)
                if rest:
                    waiting.append(rest)
                waiting.append(first)

    def _encode_group(self, group: list[_Piece]) -> list[EncodedPart]:
        """Return one prompt; several if tokens that join lines make it too long after all."""
        ids = self._ids_of([piece.line for piece in group])
        if len(ids) <= self.max_tokens or len(group) == 1:
            return [EncodedPart(ids, sum(piece.turns for piece in group))]
        half = len(group) // 2
        return self._encode_group(group[:half]) + self._encode_group(group[half:])
