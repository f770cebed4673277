"""What can be asked of the gateway, and which rate limit each kind of call counts against (pure)."""

import re
from enum import StrEnum


class Capability(StrEnum):
    """What the routes of `/v1` do. Any other word is billed through the holds API."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    IMAGES = "images"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"


class Group(StrEnum):
    """Calls of one group share one rate limit."""

    LLM = "llm"
    IMAGE = "image"
    AUDIO = "audio"
    TELEPHONY = "telephony"


_GROUPS = {
    Capability.CHAT: Group.LLM,
    Capability.COMPLETIONS: Group.LLM,
    Capability.EMBEDDINGS: Group.LLM,
    Capability.IMAGES: Group.IMAGE,
    Capability.SPEECH: Group.AUDIO,
    Capability.TRANSCRIPTIONS: Group.AUDIO,
}
_TELEPHONY = frozenset({"telephony", "phone", "voice", "call", "calls", "sms", "mms", "fax"})
_BOUNDARY = re.compile(r"[-_.:/]")


def group_of(capability: str) -> Group | None:
    """The rate-limit group of a capability; None for a word that counts against no limit.

    A group's own name belongs to it, and so does every word that begins with one of telephony, as `sms-inbound` does.
    """
    if capability in _GROUPS:
        return _GROUPS[Capability(capability)]
    if capability in set(Group):
        return Group(capability)
    return Group.TELEPHONY if _BOUNDARY.split(capability, maxsplit=1)[0] in _TELEPHONY else None
