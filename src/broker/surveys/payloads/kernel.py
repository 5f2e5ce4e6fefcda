"""The kernels that compare and copy payloads at their addresses."""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

compiled = njit(nogil=True, cache=True, error_model="numpy")


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


@intrinsic
def _compare(_typing: Any, one: Any, other: Any, _size: Any) -> Any:
    """Compare bytes at two addresses as C's ``memcmp``, which is faster than any loop."""

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        bytes_t, size_t = cgutils.voidptr_t, ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(32), [bytes_t, bytes_t, size_t])
        called = cgutils.get_or_insert_function(builder.module, kind, "memcmp")
        places = [builder.inttoptr(address, bytes_t) for address in args[:2]]
        return builder.sext(builder.call(called, [*places, args[2]]), size_t)

    return types.int64(one, other, types.int64), generate


@compiled
def count_starting(addresses: Any, sizes: Any, prefix: int, size: int, first: int) -> Any:
    """Count the payloads from number `first` on that start with the prefix at an address."""
    for i in range(first, len(addresses)):
        if sizes[i] < size or _compare(addresses[i], prefix, size) != 0:
            return i - first
    return len(addresses) - first


@compiled
def pour(tails: Any, done: Any, out: Any, fill: int) -> Any:
    """Copy tails until `out` is full; return where they end, or -1 if an ending is missing.

    Parameters
    ----------
    tails : array of int64, shape (payloads, 4)
        The address of each, its size, and address and size of what must lie before it.
    done : array of int64, shape (2,)
        How many are copied, and how much of the next is.
    """
    number, part = done
    while number < len(tails):
        address, whole, ending, before = tails[number]
        if part == 0 and _compare(address - before, ending, before) != 0:
            done[0] = number
            return -1
        size = min(whole - part, len(out) - fill)
        copy_bytes(out, fill, address + part, size)
        fill += size
        if part + size < whole:
            part += size
            break
        number, part = number + 1, 0
    done[0], done[1] = number, part
    return fill
