"""Pickles read as data, by a small machine of our own.

Python's unpickler runs what a pickle names, and both it and torch's trust what a stream declares: lengths, memo
indices, nesting. Here every opcode is carried out under a bound. The values are plain ones, and the results of
functions that the caller allows by name; whatever else a pickle asks for is refused before it exists.
"""

import gc
import io
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from latent_prior import OptionError
from latent_prior.files import shown

MAX_OPCODES = 400_000  # the checkpoint of a network with a thousand tensors and its optimiser has 80,000
MAX_ITEM = 1 << 28  # bytes of one value, such as a storage
MAX_TEXT = 1 << 20  # characters of one text; the source code in NVIDIA's files has 40,000
MAX_NAME = 500  # characters of a key or a global
MAX_BITS = 128  # of an integer
MAX_KEY = 1 << 32  # larger integers can be chosen to have the same hash
MAX_DEPTH = 64  # of containers within containers; a checkpoint of Lightning's has 8
MAX_VALUES = 300_000  # of all containers, shared ones counted wherever they occur

VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": set}
INTEGERS = {"BININT", "BININT1", "BININT2", "LONG1"}
TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"}
OTHERS = {"BINFLOAT", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}


@dataclass(frozen=True)
class Function:
    """A function that a pickle may call."""

    call: Callable[..., Any]


class Record:
    """An object without behaviour: the state that a pickle gives it is kept, unread."""

    def __init__(self, state: Any = None) -> None:
        self.state = state


def read_pickle(
    file: io.BufferedIOBase,
    allowed: Mapping[str, Any],
    persistent: Callable[[Any], Any] | None = None,
    refusal: Callable[[str], str] = "it refers to {}".format,
) -> Any:
    """The next pickle in an open file.

    allowed: what `module.name` stands for, a Function or a value; any other is refused. persistent: the object of a
    persistent id; None refuses these. refusal: the message for a global that is not allowed.

    Raises:
        OptionError: a truncated pickle, one that asks for anything else, or one beyond the bounds above.
    """
    try:
        with _no_collection():
            value = _run(file if isinstance(file, io.BytesIO) else _Limited(file), allowed, persistent, refusal)
            check_size(value)
    except OptionError:
        raise
    except Exception as error:  # corrupt bytes may raise anything
        raise OptionError.because(f"truncated, or not a pickle ({type(error).__name__})") from error
    return value


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection, which visits all values so far again and again: half the time of a large pickle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def keyed(pairs: Iterable[tuple[Any, Any]], into: dict | None = None) -> dict:
    """The pairs in a dict. Keys are short names and small numbers: hashing one takes no time, nor does printing it."""
    into = {} if into is None else into
    for key, value in pairs:
        if isinstance(key, str):
            if len(key) > MAX_NAME or not key.isprintable():
                raise _refused(f"a name of {len(key)} characters" if key.isprintable() else "an unprintable name")
        elif not (key is None or (isinstance(key, int) and abs(key) < MAX_KEY)):
            raise _refused(f"a key of type {type(key).__name__}")
        into[key] = value
    return into


def members(values: Iterable[Any]) -> set:
    """The values in a set, under the rule for keys."""
    return set(keyed((value, None) for value in values))


PLAIN = {  # what pickles of plain containers name
    "collections.OrderedDict": Function(lambda pairs=(): keyed(pairs, OrderedDict())),
    "builtins.set": Function(lambda values=(): members(values)),
}


class _Limited:
    """The file as pickletools reads it, without unlimited lines and items."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file

    def read(self, count):
        if count > MAX_ITEM:
            raise _refused(f"an item of {count} bytes")
        return self._file.read(count)

    def readline(self):
        return self._file.readline(2 * MAX_NAME)


def _run(file: Any, allowed: Mapping[str, Any], persistent: Any, refusal: Callable[[str], str]) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        name = opcode.name
        if number > MAX_OPCODES:
            raise _refused(f"more than {MAX_OPCODES} opcodes")
        if name in ("PROTO", "FRAME"):
            continue
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in TEXTS:
            if len(argument) > MAX_TEXT:
                raise _refused(f"a text of {len(argument)} characters")
            stack.append(argument)
        elif name in INTEGERS:
            if argument.bit_length() > MAX_BITS:
                raise _refused(f"an integer of {argument.bit_length()} bits")
            stack.append(argument)
        elif name in OTHERS:
            stack.append(argument)
        elif name in VALUES:
            stack.append(VALUES[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            stack.append(tuple(_popped(stack, len(stack) - marks.pop())))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(_popped(stack, int(name[-1]))))
        elif name in ("APPEND", "APPENDS"):
            items = _popped(stack, len(stack) - marks.pop() if name == "APPENDS" else 1)
            _target(stack, list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = _popped(stack, len(stack) - marks.pop() if name == "SETITEMS" else 2)
            keyed(zip(items[::2], items[1::2], strict=True), _target(stack, dict))
        elif name == "ADDITEMS":
            items = _popped(stack, len(stack) - marks.pop())
            _target(stack, set).update(members(items))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            stack.append(_found(argument.split(" ") if argument else _popped(stack, 2), allowed, refusal))
        elif name in ("REDUCE", "NEWOBJ"):
            function, arguments = _popped(stack, 2)
            if not (isinstance(function, Function) and isinstance(arguments, tuple)):
                raise _refused(f"a call of a {type(function).__name__}")
            stack.append(function.call(*arguments))
        elif name == "BUILD":
            (state,) = _popped(stack, 1)
            if type(stack[-1]) is Record:
                stack[-1].state = state
            else:  # attributes of a container, such as the _metadata of a state dict
                _target(stack, dict)
        elif name == "BINPERSID" and persistent is not None:
            stack.append(persistent(*_popped(stack, 1)))
        elif name == "STOP":
            return stack.pop()
        else:
            what = "persistent ids" if name == "BINPERSID" else f"the opcode {name}"
            raise _refused(f"{what}, which no such file needs")
    raise AssertionError("genops ends with STOP")


def _popped(stack, count):
    """The topmost values of the stack, taken from it."""
    if not 0 <= count <= len(stack):
        raise IndexError
    items = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return items


def _target(stack, kind):
    """The container on top, of that kind."""
    if not isinstance(stack[-1], kind):
        raise _refused(f"changes to a {type(stack[-1]).__name__}")
    return stack[-1]


def _found(parts, allowed, refusal):
    """What a global stands for."""
    module, attribute = parts
    if not (isinstance(module, str) and isinstance(attribute, str)):
        raise _refused("a global without a name")
    name = f"{'builtins' if module == '__builtin__' else module}.{attribute}"
    if name not in allowed:
        raise OptionError.because(f"refused: {refusal(shown(name))}")
    return allowed[name]


def check_size(value: Any, most: int = MAX_VALUES) -> None:
    """OptionError for containers that nest deeply, or that grow beyond bounds where shared ones are written out."""
    level, count = [value], 0
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _parts(value)]
        count += len(level)
        if count > most:
            break
        if not level:
            return
    raise _refused("containers within containers, without end")


def _parts(value):
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    return (value.state,) if hasattr(value, "state") else ()  # a Record, or a caller's own


def _refused(what: str) -> OptionError:
    return OptionError.because(f"refused: it has {what}")


def first_few(names: Iterable[Any]) -> str:
    """The first few names of a foreign file, for a message."""
    names = list(names)
    return (", ".join(shown(str(name), 40) for name in names[:3]) + (", ..." if len(names) > 3 else "")) or "nothing"
