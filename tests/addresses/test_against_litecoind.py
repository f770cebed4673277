"""A third opinion: the addresses a node derives from the same key, by output descriptor."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.addresses.account_keys import public_key
from tests.nodes.required import require
from tests.ports import free_port

from keyserver.addresses.derive import RingKey
from keyserver.chains.catalog import AddressType, chain_spec

pytestmark = pytest.mark.node

DESCRIPTORS = {
    AddressType.P2WPKH: "wpkh({key}/0/*)",
    AddressType.P2SH_P2WPKH: "sh(wpkh({key}/0/*))",
    AddressType.P2PKH: "pkh({key}/0/*)",
}
NETWORKS = {"mainnet": ((), "xpub"), "testnet": (("-testnet",), "tpub"), "regtest": (("-regtest",), "tpub")}


@contextmanager
def node(directory: Path, flags: tuple[str, ...]) -> Iterator[httpx.Client]:
    """A node that talks to nobody but us, on the network that `flags` choose."""
    port = free_port()
    process = subprocess.Popen(
        [
            require("litecoind"),
            *flags,
            f"-datadir={directory}",
            f"-rpcport={port}",
            "-rpcuser=test",
            "-rpcpassword=test",
            "-networkactive=0",
            "-listen=0",
            "-dnsseed=0",
            "-disablewallet",
            "-printtoconsole=0",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("test", "test"), trust_env=False) as client:
            wait_for(client, process)
            yield client
    finally:
        process.terminate()
        process.wait(30)


def wait_for(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "litecoind ended at once"
        try:
            if "result" in call(client, "getblockcount"):
                return
        except (httpx.TransportError, ValueError):
            pass
        time.sleep(0.1)
    pytest.fail("litecoind did not start")


def call(client: httpx.Client, method: str, *params: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/", json={"id": 1, "method": method, "params": params}).json()
    if answer["error"]:
        raise ValueError(answer["error"])
    return answer


@pytest.mark.parametrize("network", NETWORKS)
def test_a_node_derives_the_same_addresses(network: str, tmp_path: Path) -> None:
    flags, form = NETWORKS[network]
    spec = chain_spec("litecoin", network, type="native")
    ring = RingKey.from_xpub(public_key("m/84'/2'/0'"))

    with node(tmp_path, flags) as client:
        for address_type, template in DESCRIPTORS.items():
            text = template.format(key=public_key("m/84'/2'/0'", form=form))
            descriptor = call(client, "getdescriptorinfo", text)["result"]["descriptor"]
            theirs = call(client, "deriveaddresses", descriptor, [0, 20])["result"]

            assert theirs == [ring.address(index, spec=spec, address_type=address_type) for index in range(21)]
