// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// An ERC-20 (EIP-20) that anyone may mint. With a fee, a transfer brings the receiver less than was sent, and says so
/// in its events: one Transfer for what arrived, one for the fee.
contract TestToken {
    string public constant name = "Test Token";
    string public constant symbol = "TEST";
    uint8 public constant decimals = 6;
    address public constant FEE_COLLECTOR = address(0xFEE);

    uint256 public totalSupply;
    uint256 public feeBasisPoints;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    function mint(address to, uint256 value) external {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function transfer(address to, uint256 value) external returns (bool) {
        _move(msg.sender, to, value);
        return true;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        allowance[from][msg.sender] -= value;
        _move(from, to, value);
        return true;
    }

    function transferTwice(address to1, uint256 value1, address to2, uint256 value2) external {
        _move(msg.sender, to1, value1);
        _move(msg.sender, to2, value2);
    }

    function setFee(uint256 basisPoints) external {
        feeBasisPoints = basisPoints;
    }

    function transferThenFail(address to, uint256 value) external {
        _move(msg.sender, to, value);
        revert("taken back");
    }

    function _move(address from, address to, uint256 value) private {
        uint256 fee = value * feeBasisPoints / 10_000;
        balanceOf[from] -= value;
        balanceOf[to] += value - fee;
        emit Transfer(from, to, value - fee);
        if (fee > 0) {
            balanceOf[FEE_COLLECTOR] += fee;
            emit Transfer(from, FEE_COLLECTOR, fee);
        }
    }
}
