"""Formats of records: one function each, from the keys of a record to a conversation.

To add a format whose records are objects (JSON, Parquet):

1. Write `parse(record, reading, id_key)` in a module here; `tickets.py` is a good example. It
   returns a `Draft`, made by `draft` of `conversations/draft.py`, or raises RecordError.
2. Add a `Format` with its name and key to `FORMATS` in `choose.py`.
3. Add the name to `format` of `ReadingSection` (`config/data_sections.py`) and an entry
   to docs/formats.md, whose examples the tests read.

A kind of file that is no JSON, table or transcript needs one more thing: a shape. Recognize it in
`shape_of` and yield its rows in `rows_of`, both in `conversations/read.py`. Another form of
transcript lines or captions belongs to `speaker_lines.py` or `captions.py`.
"""
