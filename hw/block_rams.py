"""How memories divide into block RAMs without a choice behind their late outputs."""

from __future__ import annotations

BLOCK_PORTS = (1, 2, 4, 9, 18, 36)
"""Widths of a block RAM of 18 Kbit (ECP5, and half a block of AMD's)."""
BLOCK_BITS = 16384
"""Its bits in widths without parity."""
SHALLOW = BLOCK_BITS // 32
"""Words of the widest port: a memory of at most so many needs no choice between block RAMs."""


def banks_of(width: int, depth: int) -> tuple[int, ...]:
    """Words of each bank of a memory. Banks are powers of two, the largest first (but the last).

    A block RAM's output is late in the cycle, so the choice between blocks that follow each other
    in depth needs a register in front: where blocks side by side would be more of them, each bank
    gets that register.
    """
    if depth <= SHALLOW or _side_blocks(width, depth) <= _bank_blocks(width, depth):
        return (depth,)
    return _powers(depth)


def blocks_of(width: int, depth: int) -> int:
    """Block RAMs of a memory in the banks of `banks_of`."""
    return min(_side_blocks(width, depth), _bank_blocks(width, depth))


def _powers(depth: int) -> tuple[int, ...]:
    banks = []
    while depth > SHALLOW:
        banks.append(min(BLOCK_BITS, 1 << (depth.bit_length() - 1)))
        depth -= banks[-1]
    return (*banks, depth) if depth else tuple(banks)


def _port_words(port: int) -> int:
    return BLOCK_BITS // (port - port // 9)


def _side_blocks(width: int, depth: int) -> int:
    """Block RAMs that each hold all words, side by side; very many if none is deep enough."""
    ports = [port for port in BLOCK_PORTS if _port_words(port) >= depth]
    return -(-width // ports[-1]) if ports else width * depth


def _bank_blocks(width: int, depth: int) -> int:
    """Block RAMs of the banks of `_powers`."""
    return sum(_side_blocks(width, bank) for bank in _powers(depth))
