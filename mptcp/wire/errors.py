"""The exceptions of the codecs.

Everything that parses bytes of a peer returns a value or raises `ParseError`, and nothing else;
that promise is what the fuzz tests of `tests/wire` hold.
"""


class ParseError(ValueError):
    """Bytes from the network that are not a legal packet or option."""


class ChecksumError(ParseError):
    """A packet whose checksum does not match: damaged under way, so counted apart."""
