"""EVM code written by hand, for what one call deep inside of a transaction does (opcodes: Yellow Paper, appendix H)."""

_STOP, _REVERT = "00", "5f5ffd"
_CALL, _DELEGATECALL, _CALLCODE = "f1", "f4", "f2"
_NOTHING_IN_OR_OUT = "5f5f5f5f"


def pays(address: str, wei: int) -> str:
    """Sends so much ether by a call, and goes on whether it arrived or not."""
    return f"{_NOTHING_IN_OR_OUT}67{wei:016x}73{address[2:]}5a{_CALL}50"


def borrows(address: str) -> str:
    """Runs another's code as its own."""
    return f"{_NOTHING_IN_OR_OUT}73{address[2:]}5a{_DELEGATECALL}50"


def runs_with_value(address: str, wei: int) -> str:
    """CALLCODE: the other's code with ether that stays where it is."""
    return f"{_NOTHING_IN_OR_OUT}67{wei:016x}73{address[2:]}5a{_CALLCODE}50"


def code(*steps: str, reverts: bool = False) -> str:
    return "0x" + "".join(steps) + (_REVERT if reverts else _STOP)


def leaves_all_to(heir: str) -> str:
    """SELFDESTRUCT."""
    return f"0x73{heir[2:]}ff"
