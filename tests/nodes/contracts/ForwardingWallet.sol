// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Passes ether on by an internal call: the receiver gets it without a transaction of its own.
contract ForwardingWallet {
    receive() external payable {}

    function forward(address payable to) external payable {
        (bool sent, ) = to.call{value: msg.value}("");
        require(sent, "refused");
    }
}
