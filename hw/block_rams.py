"""How memories divide into block RAMs without a choice behind their late outputs."""

from __future__ import annotations

BLOCK_PORTS = (1, 2, 4, 9, 18, 36)
"""Widths of a block RAM of 18 Kbit (ECP5, and half a block of AMD's)."""
BLOCK_BITS = 16384
"""Its bits in widths without parity."""
SHALLOW = BLOCK_BITS // 32
"""Words of the widest port: a memory of at most so many needs no choice between block RAMs."""


def banks_of(width: int, depth: int) -> tuple[int, ...]:
    """Words of each bank of a memory; all but the last are powers of two, the largest first.

    A block RAM's output is late in the cycle, so a choice between blocks that follow each other in
    depth needs a register in front. Where blocks side by side, each with all words, are more than
    those of some other shape, synthesis would put that choice behind them: such a memory becomes
    banks that need none.
    """
    side = _side_blocks(width, depth)
    if depth <= SHALLOW or side <= min(_blocks(width, depth, port) for port in BLOCK_PORTS):
        return (depth,)
    first = min(BLOCK_BITS, 1 << (depth.bit_length() - 1))
    if first == depth:
        return (depth,)
    return (first, *banks_of(width, depth - first))


def blocks_of(width: int, depth: int) -> int:
    """Block RAMs of a memory in the banks of `banks_of`."""
    return sum(_side_blocks(width, bank) for bank in banks_of(width, depth))


def _port_words(port: int) -> int:
    return BLOCK_BITS // (port - port // 9)


def _blocks(width: int, depth: int, port: int) -> int:
    """Block RAMs of one shape."""
    return -(-width // port) * -(-depth // _port_words(port))


def _side_blocks(width: int, depth: int) -> int:
    """Block RAMs that each hold all words, side by side; very many if none is deep enough."""
    ports = [port for port in BLOCK_PORTS if _port_words(port) >= depth]
    return -(-width // ports[-1]) if ports else width * depth
