"""No secret that can be recognised reaches a log, whoever logs it."""

import pytest
from tests.builders import XPUB_COIN_1

from keyserver.kit.logging import redact


@pytest.mark.parametrize(
    "secret",
    [
        "ks_AbCdEf0123456789-_xyz",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        XPUB_COIN_1,
        "z" + XPUB_COIN_1[1:],
        "Ltub" + XPUB_COIN_1[4:],
        "dgub" + XPUB_COIN_1[4:],
        "xprv" + XPUB_COIN_1[4:],
        "Mtpv" + XPUB_COIN_1[4:],
        "Bearer abcdefgh12345678",
    ],
)
def test_secrets_are_replaced_wherever_they_stand(secret: str) -> None:
    for text in (secret, f"key={secret}", f'{{"xpub": "{secret}"}}', f"({secret}),"):
        assert secret not in redact(text)
        assert secret[-16:] not in redact(text)
        assert "[redacted]" in redact(text)


def test_passwords_in_urls_are_replaced_and_the_host_stays() -> None:
    assert redact("http://user:hush@node:9332/ failed") == "http://[redacted]@node:9332/ failed"
    assert redact("postgresql://u:p%40ss@db/x") == "postgresql://[redacted]@db/x"


def test_ordinary_text_stays() -> None:
    for text in (
        "GET /charges/ch_0123456789abcdef 200",
        "rltc1q8gk5z3dy7zv9ywe7synlrk58elz4hrnekpm9d9",
        "0x" + "ab" * 32,
    ):
        assert redact(text) == text
