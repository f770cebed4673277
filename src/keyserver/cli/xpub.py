"""Taking an extended public key from an option, a file or standard input, and nothing that is private."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from keyserver.cli.output import fail

Xpub = Annotated[
    str | None,
    typer.Option(help="Account-level extended public key; `-` reads it from standard input.", metavar="XPUB|-"),
]
XpubFile = Annotated[Path | None, typer.Option(help="A file with the key, which stays out of the shell's history.")]

_MOST_CHARACTERS = 10_000


def read_xpub(xpub: str | None, file: Path | None) -> str | None:
    """The key's text, None when there is none; private key material ends the command before anything else sees it."""
    if xpub is not None and file is not None:
        fail("Give --xpub or --xpub-file, not both")
    if file is not None:
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            fail(f"Cannot read the key from {file}: {reason}")
    elif xpub == "-":
        text = sys.stdin.read(_MOST_CHARACTERS)
    else:
        text = xpub or ""
    refuse_private(text)
    return text.strip() or None


def refuse_private(text: str) -> None:
    """Ends the command when the text holds private key material; it is not repeated."""
    from keyserver.addresses.private_material import PrivateMaterial, refuse_private_material

    try:
        refuse_private_material(text)
    except PrivateMaterial as error:
        fail(str(error))
