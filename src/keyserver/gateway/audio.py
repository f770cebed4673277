"""How long a sound file plays, told from its size and first bytes (pure).

- WAV (RIFF): the bytes of the file at the byte rate of its `fmt ` chunk.
- FLAC: samples and sample rate of STREAMINFO (RFC 9639, section 8.2).
- everything else: at 32 kbit/s, less than speech is commonly compressed to, so that the true length is seldom longer.
"""

from decimal import ROUND_UP, Decimal

#: How much of a file's beginning `seconds_of` wants to see.
HEAD_BYTES = 64
_COMPRESSED_BYTES_PER_SECOND = 4_000
_MILLISECOND = Decimal("0.001")


def seconds_of(size: int, *, head: bytes = b"") -> Decimal:
    """The expected length of a file of `size` bytes, in seconds to the millisecond, rounded up."""
    exact = _wav(size, head) or _flac(head) or Decimal(size) / _COMPRESSED_BYTES_PER_SECOND
    return exact.quantize(_MILLISECOND, rounding=ROUND_UP)


def _wav(size: int, head: bytes) -> Decimal | None:
    if head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
        return None
    rate = int.from_bytes(head[28:32], "little")
    return Decimal(size) / rate if rate else None


def _flac(head: bytes) -> Decimal | None:
    if head[:4] != b"fLaC" or len(head) < 26:
        return None
    packed = int.from_bytes(head[18:26])  # 20 bits of sample rate, 3 of channels, 5 of sample size, 36 of samples
    rate, samples = packed >> 44, packed & (2**36 - 1)
    return Decimal(samples) / rate if rate and samples else None
