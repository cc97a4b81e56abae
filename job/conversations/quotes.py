"""Detection of CSV rows that are parts of a cell, by the quotes of the file.

The csv module reports a quote that it does not expect, and goes on with the next line. If that line
belongs to the same cell, its content would pass for a record of its own.
"""

import re
from collections.abc import Sequence


class QuoteGuard:
    """Watches the quotes of a table for signs that a row was cut out of the middle of a cell.

    A row that breaks may be a row of one line with a stray quote, or the first line of a cell that
    goes on: `"a "word" of` and then `two lines"`. In the second case the quote that closes the cell
    is still to come, at the end of a cell that no quote began.
    """

    def __init__(self, delimiter: str, escape: str | None) -> None:
        self._delimiter = delimiter
        self._escape = escape
        self._breaks = (delimiter, "\n", "\r", "")
        between = re.escape(delimiter)
        escaped = rf"{re.escape(escape)}.|" if escape else ""
        stop = re.escape(escape) if escape else ""
        self._cell = re.compile(
            rf'("(?:{escaped}""|[^"{stop}]++)*+"|(?:{escaped}[^{between}\r\n{stop}]++)*+)'
            rf"(?:{between}|[\r\n]+|\Z)",
            re.DOTALL,
        )
        self._has_quoted_cells = False
        self._in_doubt = False
        self._has_broken = False

    def ends_with_its_line(self, record: Sequence[str]) -> bool:
        """Return False if a record that broke may go on in the next line.

        Marks later quotes as unreliable.
        """
        if len(record) != 1 or not self._is_unambiguous(record[0]):
            return False
        self._in_doubt = self._has_broken = True
        # Of the two ways to write a quote in a cell, neither may leave the cell open.
        ways = (open_quotes(record[0], self._escape), open_quotes(record[0], "\\"))
        return not any(ways) and not self._has_unopened_quote(record[0])

    def is_whole(self, record: Sequence[str], cells: Sequence[str]) -> bool:
        """Return False if the record shows that it, or one before it, is part of a cell."""
        if not any('"' in line for line in record):
            return True
        text = "".join(record)
        if not self._is_unambiguous(text):
            return False
        if self._escape is None and '\\"' in text:
            # `"C:\dir\"`: by another program's rules the last quote would not close the cell.
            self._in_doubt |= any(cell.endswith("\\") for cell in cells)
        if any('"' in (cell[-1:], cell.lstrip()[:1]) for cell in cells):
            return not self._has_unopened_quote(text)
        if text.startswith('"') or f'{self._delimiter}"' in text:
            self._has_quoted_cells = True
        return True

    def _is_unambiguous(self, text: str) -> bool:
        """Return False while in doubt, if the first quote may as well close a cell as open one."""
        if not self._in_doubt:
            return True
        position = text.find('"')
        while position >= 0:
            before = text[position - 1 : position]
            after = text[position + 1 : position + 2]
            if before not in self._breaks or (after in self._breaks and self._has_broken):
                return False
            if after in self._breaks:
                return True  # a cell that begins with a line break or a delimiter proves nothing
            if after != '"' or text[position + 2 : position + 3] not in self._breaks:
                self._in_doubt = self._has_broken = False
                return True
            position = text.find('"', position + 2)  # behind an empty cell
        return True

    def _has_unopened_quote(self, text: str) -> bool:
        """Return True if a cell without quotes opens one, or ends with one among quoted cells."""
        position = 0
        while position < len(text):
            match = self._cell.match(text, position)
            if match is None or match.end() == position:
                break
            cell = match[1]
            position = match.end()
            if cell.startswith('"'):
                self._has_quoted_cells = True
            elif cell.endswith('"') and self._has_quoted_cells:
                return self._escape is None or not cell.endswith(f'{self._escape}"')
            elif cell.lstrip().startswith('"') and cell.count('"') % 2:
                return True  # a space before the quote hides it from the csv module
        return False


def open_quotes(text: str, escape: str | None) -> int:
    """Return 1 if a quote is open behind the text, and 0 if not."""
    if escape and escape in text:
        text = re.sub(f"{re.escape(escape)}.", "", text, flags=re.DOTALL)
    return text.count('"') % 2
