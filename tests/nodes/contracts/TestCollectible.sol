// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Emits what an ERC-721 (EIP-721) does: the same signature as an ERC-20's Transfer, but the third member is indexed.
contract TestCollectible {
    event Transfer(address indexed from, address indexed to, uint256 indexed tokenId);

    function mint(address to, uint256 tokenId) external {
        emit Transfer(address(0), to, tokenId);
    }
}
