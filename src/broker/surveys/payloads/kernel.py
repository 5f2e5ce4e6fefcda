"""The kernels that compare and copy payloads at their addresses."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from broker.surveys.avro.words import bytes_at

compiled = njit(nogil=True, cache=True, error_model="numpy")

_STEP = 256
"""Bytes that are compared before a difference is looked for."""


@intrinsic
def copy_bytes(_typing: Any, out: Any, _at: Any, _address: Any, _size: Any) -> Any:
    """Copy `size` bytes from an address into an array of bytes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        target = builder.gep(array.data, [args[1]])
        source = builder.inttoptr(args[2], cgutils.voidptr_t)
        cgutils.raw_memcpy(builder, target, source, args[3], ir.Constant(ir.IntType(64), 1))
        return context.get_dummy_value()

    return types.void(out, types.int64, types.int64, types.int64), generate


@compiled
def _are_equal(one: Any, other: Any) -> Any:
    """Tell whether two arrays of bytes of one size are equal."""
    size = len(one)
    for start in range(0, size - size % _STEP, _STEP):
        differs = np.uint8(0)
        for i in range(_STEP):
            differs |= one[start + i] ^ other[start + i]
        if differs:
            return False
    differs = np.uint8(0)
    for i in range(size - size % _STEP, size):
        differs |= one[i] ^ other[i]
    return differs == 0


@compiled
def count_starting(addresses: Any, sizes: Any, prefix: Any, first: int) -> Any:
    """Count the payloads from number `first` on that start with a prefix."""
    size = len(prefix)
    for i in range(first, len(addresses)):
        if sizes[i] < size or not _are_equal(bytes_at(addresses[i], size), prefix):
            return i - first
    return len(addresses) - first


@compiled
def first_without(
    addresses: Any, starts: Any, sizes: Any, joined: Any, bounds: Any, which: Any
) -> Any:
    """Find a payload that does not have its ending before its start; -1 if all have."""
    for i in range(len(addresses)):
        ending = joined[bounds[which[i]] : bounds[which[i] + 1]]
        size = len(ending)
        if starts[i] > sizes[i] or starts[i] < size:
            return i
        if not _are_equal(bytes_at(addresses[i] + starts[i] - size, size), ending):
            return i
    return -1


@compiled
def pour(addresses: Any, sizes: Any, done: Any, out: Any, fill: int) -> Any:
    """Copy until `out` is full; `done` is how many are copied, and how much of the next is."""
    number, part = done
    while number < len(addresses):
        size = min(sizes[number] - part, len(out) - fill)
        copy_bytes(out, fill, addresses[number] + part, size)
        fill += size
        if part + size < sizes[number]:
            part += size
            break
        number, part = number + 1, 0
    done[0], done[1] = number, part
    return fill
