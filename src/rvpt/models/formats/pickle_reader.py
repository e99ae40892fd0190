"""A pickle read as data: its opcodes are followed without importing, calling or creating anything that it names.

The result consists of plain values and of the records below. Only names of an allow-list may occur, those of which
PyTorch's state dicts, training checkpoints and TorchScript archives consist. Standard library only: this module also
runs in a process of its own, with limits on time and memory.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

MAX_OPCODES = 4_000_000
DTYPES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}  # fmt: skip
"""Types of storages, by the names of safetensors."""
NEUTRAL = frozenset({
    "argparse Namespace", "numpy dtype", "numpy.core.multiarray scalar", "numpy._core.multiarray scalar",
    "numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct", "numpy ndarray", "_codecs encode",
    "torch Size", "torch device", "torch float32", "torch float16", "torch bfloat16", "torch float64", "torch int64",
    "pathlib PosixPath", "pathlib Path", "collections defaultdict", "collections Counter",
    "__builtin__ set", "builtins set", "__builtin__ list", "builtins list", "builtins int", "builtins float",
    "builtins dict", "__builtin__ dict", "torch.jit._pickle build_intlist", "torch.jit._pickle build_doublelist",
    "torch.jit._pickle build_boollist", "torch.jit._pickle build_tensorlist", "torch.jit._pickle restore_type_tag",
})  # fmt: skip
"""Names, besides those of tensors, that occur in training checkpoints: what they would make is left out."""


class Refused(ValueError):
    """A file that is not read, and why."""


@dataclass(frozen=True)
class Name:
    """A name as pickles write it, such as "torch._utils _rebuild_tensor_v2"."""

    text: str


@dataclass(eq=False)
class Record:
    """What a name would make: its attributes, as far as they are known."""

    name: str
    attributes: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """Values on disk: their type, which file or section has them, and how many there are."""

    dtype: str
    key: str
    count: int


@dataclass(frozen=True)
class TensorView:
    """A tensor: a view of a storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def is_scripted(name: str) -> bool:
    """Whether a name is that of a class of TorchScript's, whose attributes are the parts of a model."""
    return name.startswith(("__torch__.", "__torch__ "))


class Machine:
    """Reads one pickle after another from a stream of bytes.

    `neutral` collects the names whose values were left out.
    """

    def __init__(self, data: bytes) -> None:
        self.stream, self.neutral, self.count = BytesIO(data), set[str](), 0

    def read(self) -> Any:
        """The value of the next pickle.

        Raises:
            Refused: it is damaged, or names what a model's weights do not need.
        """
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        try:
            for opcode, argument, _ in pickletools.genops(self.stream):
                self.count += 1
                if self.count > MAX_OPCODES:
                    raise Refused(f"its pickle has more than {MAX_OPCODES:,} instructions")
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._step(opcode.name, argument)
        except Refused:
            raise
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
            raise Refused(f"its pickle is damaged ({type(error).__name__})") from None
        raise Refused("its pickle is cut off")

    def _step(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self.stack.append(argument)
        elif name in MADE:
            self.stack.append(MADE[name]())
        elif action := ACTIONS.get(name):
            action(self, argument)
        else:
            raise Refused(f"its pickle has the instruction {name}, which weights do not need")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def tuple_of(self, size: int) -> None:
        items = tuple(self.stack[-size:])
        if len(items) < size:
            raise IndexError
        del self.stack[-size:]
        self.stack.append(items)

    def collect(self, kind: type[tuple[Any, ...]] | type[list[Any]]) -> None:
        items = self._since_mark()  # before the stack that it returns to is looked up
        self.stack.append(kind(items))

    def put(self, argument: int | None) -> None:
        self.memo[len(self.memo) if argument is None else argument] = self.stack[-1]

    def named(self, text: str) -> None:
        if not (text in MAKERS or text in NEUTRAL or text in TYPES or is_scripted(text)):
            raise Refused(
                f"its pickle names {'.'.join(text.split())[:80]}, which is not part of a model's weights; "
                "nothing was run"
            )
        self.stack.append(Name(text))

    def named_on_stack(self, _: Any) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise Refused("its pickle is damaged (a name that is not text)")
        self.named(f"{module} {attribute}")

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise Refused("its pickle calls what is not a name")
        self.stack.append(self._made(function.text, arguments))

    def _made(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if maker := MAKERS.get(name):
            return maker(*arguments)
        if not is_scripted(name):
            self.neutral.add(".".join(name.split()))
        return Record(name)

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record) and isinstance(state, dict):
            target.attributes.update(state)  # of others (an OrderedDict's _metadata) nothing is needed

    def storage(self, _: Any) -> None:
        kind, dtype, key, _, count, *view = self.stack.pop()
        if kind != "storage" or not isinstance(dtype, Name) or any(part is not None for part in view):
            raise Refused("its pickle refers to something that is not a storage")
        if not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise Refused("its pickle has a storage without a key or size")
        self.stack.append(Storage(DTYPES.get(dtype.text.split()[-1], dtype.text.split()[-1]), key, count))

    def append(self, item: Any) -> None:
        self._extend([self.stack.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Record):
            raise Refused("its pickle appends to what is not a list")

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def set_items(self, _: Any) -> None:
        self._update(self._since_mark())

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict | Record) or len(items) % 2:
            raise Refused("its pickle sets items of what is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | bytes | None):
                continue  # not the name of a tensor
            (target.attributes if isinstance(target, Record) else target)[key] = value


def tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TensorView:
    """torch._utils._rebuild_tensor_v2."""
    sizes = (offset, *shape, *stride)
    if not isinstance(storage, Storage) or not all(type(size) is int and 0 <= size < 2**62 for size in sizes):
        raise Refused("its pickle has a tensor without a storage, or with sizes that are not numbers")
    if len(shape) != len(stride) or len(shape) > 8:
        raise Refused("its pickle has a tensor with impossible sizes")
    return TensorView(storage, offset, tuple(shape), tuple(stride))


def parameter(data: Any, *_: Any) -> Any:
    """torch._utils._rebuild_parameter."""
    return data


def ordered(*items: Any) -> dict[Any, Any]:
    """collections.OrderedDict; its items follow one by one, or as a list of pairs."""
    return {key: value for key, value in (items[0] if items else ()) if isinstance(key, str | int)}


MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor_v2": tensor,
    "torch._utils _rebuild_tensor": tensor,
    "torch._utils _rebuild_parameter": parameter,
    "collections OrderedDict": ordered,
}
TYPES = frozenset(f"torch {name}" for name in DTYPES)
VALUES = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
})  # fmt: skip
MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list,
}  # fmt: skip
ACTIONS: dict[str, Callable[[Machine, Any], Any]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": Machine.mark,
    "POP": lambda machine, _: machine.stack.pop(),
    "POP_MARK": lambda machine, _: machine._since_mark(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": lambda machine, _: machine.collect(tuple),
    "LIST": lambda machine, _: machine.collect(list),
    "PUT": Machine.put, "BINPUT": Machine.put, "LONG_BINPUT": Machine.put, "MEMOIZE": Machine.put,
    "GET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "LONG_BINGET": lambda machine, place: machine.stack.append(machine.memo[place]),
    "GLOBAL": Machine.named,
    "STACK_GLOBAL": Machine.named_on_stack,
    "REDUCE": Machine.reduce,
    "NEWOBJ": Machine.reduce,
    "BUILD": Machine.build,
    "BINPERSID": Machine.storage,
    "APPEND": Machine.append,
    "APPENDS": Machine.appends,
    "ADDITEMS": Machine.appends,
    "SETITEM": Machine.set_item,
    "SETITEMS": Machine.set_items,
}  # fmt: skip
