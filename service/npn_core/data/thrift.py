"""As much of Thrift's compact protocol as Parquet's headers need: https://github.com/apache/thrift, compact-protocol.

Damaged bytes raise ValueError or IndexError.
"""

from collections.abc import Iterator

INTEGERS = (4, 5, 6)
BINARY, LIST, SET, STRUCT = 8, 9, 10, 12
_MAX_DEPTH = 12


class Compact:
    """A cursor over encoded bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct; the caller reads or skips each value before the next."""
        number = 0
        while (byte := self.byte()) != 0:
            number = number + (byte >> 4) if byte >> 4 else self.integer()
            yield number, byte & 0x0F

    def items(self) -> tuple[int, int]:
        """Number and type of the items of a list, which follow."""
        byte = self.byte()
        count = byte >> 4 if byte >> 4 < 15 else self.varint()
        if count > len(self.data) - self.position:  # each takes a byte at least
            raise ValueError("a list is too long")
        return count, byte & 0x0F

    def byte(self) -> int:
        """One byte."""
        self.position += 1
        return self.data[self.position - 1]

    def varint(self) -> int:
        """A number in groups of 7 bits."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number is too long")

    def integer(self) -> int:
        """An i16, i32 or i64."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def binary(self) -> bytes:
        """A string of bytes."""
        length = self.varint()
        self.advance(length)
        return self.data[self.position - length : self.position]

    def advance(self, length: int) -> None:
        """Pass over bytes."""
        self.position += length
        if self.position > len(self.data):
            raise ValueError("a value ends behind the data")

    def skip(self, kind: int, depth: int = 0) -> None:
        """Pass over a value.  There are no maps in Parquet's headers."""
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        match kind:
            case 1 | 2:  # a field's bool, whose value is in its type
                pass
            case 3:
                self.advance(1)
            case 4 | 5 | 6:
                self.varint()
            case 7:  # a double
                self.advance(8)
            case 8:
                length = self.varint()
                self.advance(length)
            case 9 | 10:
                count, item = self.items()
                if item in (1, 2, 3):
                    self.advance(count)
                    return
                for _ in range(count):
                    self.skip(item, depth + 1)
            case 12:
                for _, inner in self.fields():
                    self.skip(inner, depth + 1)
            case _:
                raise ValueError("unknown type")
