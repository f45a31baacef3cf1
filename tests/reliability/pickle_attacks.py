"""Pickle streams that try to run code, or to take time and memory, by name. Opcodes are written by hand."""

import pickle
import struct
from pathlib import Path


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


def named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def called(name: str, *arguments: bytes) -> bytes:
    return named(name) + b"(" + b"".join(arguments) + b"tR"


def mapping(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def doubled(times: int = 40, opcode: bytes = b"\x86") -> bytes:
    """A tuple of twice the tuple before it, and so on: 2^times if written out."""
    return b")" + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + opcode for i in range(times))


def doubled_list(times: int = 40) -> bytes:
    return b"]" + b"".join(b"q" + bytes([i]) + b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(times))


def calls(canary: Path) -> dict[str, bytes]:
    """Streams that would make the file `canary` if they ran."""
    touch, source = f"echo > {canary}", f"open({str(canary)!r}, 'w')"
    inner = pickle.dumps(_Call(canary), protocol=2)
    legacy = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": 1}))
    legacy += inner + pickle.dumps([], protocol=2)

    def data(content: bytes) -> bytes:
        return b"B" + struct.pack("<I", len(content)) + content

    return {
        "system": called("posix.system", text(touch)),
        "eval": called("builtins.eval", text(source)),
        "exec": called("builtins.exec", text(source)),
        "old_eval": called("__builtin__.eval", text(source)),
        "popen": called("subprocess.Popen", text(touch), b"K\x00" + b"N" * 6 + b"\x88\x88"),
        "check_output": called("subprocess.check_output", b"](" + text("touch") + text(str(canary)) + b"e"),
        "spawn": called("os.spawnlp", b"K\x00", text("touch"), text("touch"), text(str(canary))),
        "open": called("io.open", text(str(canary)), text("w")),
        "path_touch": called("pathlib.Path.touch", called("pathlib.Path", text(str(canary)))),
        "getattr": called("builtins.getattr", called("builtins.__import__", text("os")), text("system"))
        + b"("
        + text(touch)
        + b"tR",
        "import": called("importlib.import_module", text("antigravity")),
        "loads": called("pickle.loads", data(inner)),
        "storage": called("torch.storage._load_from_bytes", data(legacy)),
        "torch_load": called("torch.load", called("io.BytesIO", data(legacy))),
        "hub": called("torch.hub.load", text(str(canary.parent)), text("hub")),
        "jit": called("torch.jit.load", text(str(canary.parent / "jit.pt"))),
        "numpy": called("numpy.load", text(str(canary.parent / "a.npy"))),
        "map": called("builtins.list", called("builtins.map", named("builtins.eval"), b"](" + text(source) + b"e")),
        "partial": called("functools.partial", named("builtins.eval"), text(source)) + b")R",
        "stack_global": text("posix") + text("system") + b"\x93(" + text(touch) + b"tR",
        "inst": b"(" + text(touch) + b"iposix\nsystem\n",
        "obj": b"(" + named("subprocess.getoutput") + text(touch) + b"o",
        "newobj": named("subprocess.Popen") + b"(" + text(touch) + b"K\x00" + b"N" * 6 + b"\x88\x88t\x81",
        "newobj_ex": named("subprocess.Popen") + b"(" + text(touch) + b"t}(" + text("shell") + b"\x88u\x92",
        "build": called("types.SimpleNamespace") + mapping((text("__class__"), named("posix.system"))) + b"b",
        "setstate": called("collections.OrderedDict") + mapping((text("__class__"), named("builtins.dict"))) + b"b",
        "extension": b"\x82\x01(" + text(touch) + b"tR",
        "reduce_ex": called("copyreg.__newobj__", named("subprocess.Popen"), text(touch)),
        "dotted": text("argparse") + text("_sys.modules") + b"\x93",
        "method": called("argparse.Namespace.__init__.__globals__.get", text("_os")),
        "warnings": called("warnings._getaction.__globals__.__getitem__", text("sys")),
    }


class _Call:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return eval, (f"open({str(self.canary)!r}, 'w')",)


def bombs() -> dict[str, bytes]:
    """Streams that take time or memory, in Python's unpickler, in torch's, or in what looks at the result."""
    huge = struct.pack("<Q", 1 << 62)
    colliding = b"".join(integer((i << 61) - i) + b"N" for i in range(1, 100_000))  # multiples of 2^61 - 1
    return {
        "key": mapping((doubled(), b"N")),
        "member": b"\x8f(" + doubled() + b"\x90",
        "set": called("builtins.set", b"](" + doubled() + b"e"),
        "value": mapping((text("G_ema"), doubled())),
        "list": doubled_list(),
        "triple": doubled(30, b"h\x00\x87"),
        "function": doubled() + b")R",
        "function_list": doubled_list() + b")R",
        "arguments": named("collections.OrderedDict") + doubled() + b"R",
        "class": doubled() + b")\x81",
        "built": doubled() + b"}b",
        "appended": doubled() + b"Na",
        "set_item": doubled() + b"NNs",
        "id": doubled() + b"Q",
        "id_type": b"(" + doubled() + b"NNNNtQ",
        "id_key": b"(" + text("storage") + named("torch.FloatStorage") + doubled() + text("cpu") + b"K\x01tQ",
        "id_count": b"(" + text("storage") + named("torch.FloatStorage") + text("0") + text("cpu") + doubled() + b"tQ",
        "global": doubled() + text("x") + b"\x93",
        "version": called(
            "torch_utils.persistence._reconstruct_persistent_obj",
            mapping((text("version"), doubled()), (text("state"), b"}")),
        ),
        "pairs": called("collections.OrderedDict", b"](" + b"](" + doubled() + b"Nee"),
        "counter": called("collections.Counter", doubled()),
        "size": called("torch.Size", doubled()),
        "tensor": called("torch._utils._rebuild_tensor_v2", *([doubled()] * 6)),
        "parameter": called("torch._utils._rebuild_parameter", doubled(), b"\x89", b"N"),
        "bytearray": called("builtins.bytearray", integer(1 << 36)),
        "bytes": called("builtins.bytes", integer(1 << 36)),
        "range": called("builtins.list", called("builtins.range", integer(1 << 40))),
        "power": called("builtins.pow", integer(10), integer(1 << 40)),
        "memo": b"Nr\xff\xff\xff\x7f0" + b"Nr\xff\xff\xff\xff0N",
        "memo_rising": b"N" + b"".join(b"r" + struct.pack("<I", 1 << i) for i in range(20, 32)),
        "deep_tuple": b")" + b"\x85" * 900_000,
        "deep_list": b"]" * 900_000 + b"a" * 899_999,
        "deep_dict": b"}" + b"N}" * 400_000 + b"s" * 400_000,
        "deep_state": b"".join(named("argparse.Namespace") + b")\x81" for _ in range(30_000)) + b"N" + b"b" * 30_000,
        "deep_mark": b"(" * 900_000 + b"t" * 900_000,
        "marks": b"(" * 20_000_000,
        "lists": b"]" * 20_000_000,
        "dicts": b"}" * 20_000_000,
        "sets": b"\x8f" * 5_000_000,
        "memoized": b"N" + b"\x94" * 20_000_000,
        "bytes8": b"\x8e" + huge,
        "bytes8_large": b"\x8e" + struct.pack("<Q", 1 << 40),
        "bytearray8": b"\x96" + struct.pack("<Q", 1 << 38),
        "text8": b"\x8d" + huge,
        "frame": b"\x95" + huge + b"N",
        "frame_large": b"\x95" + struct.pack("<Q", 1 << 40) + b"N",
        "long4": b"\x8b" + struct.pack("<i", 1 << 23) + b"\x7f" * (1 << 23),
        "long4_negative": b"\x8b" + struct.pack("<i", -5),
        "long_text": b"L" + b"9" * 5_000_000 + b"L\n",
        "unicode_line": b"V" + b"x" * 30_000_000,
        "string_line": b"S'" + b"\\x41" * 10_000_000,
        "large_text": text("x" * 20_000_000 + "\U0001f600"),
        "collisions": b"}(" + colliding + b"u",
        "ansi_name": mapping((text("\x1b[2J\x1b]0;owned\x07\r\n"), b"K\x01")),
        "ansi_global": named("a\x1b[2J.b\x07"),
        "long_name": mapping((text("n" * 2_000_000), b"K\x01")),
        "long_global": b"c" + b"m" * 5_000_000 + b"\nn\n",
        "surrogates": mapping((text("\ud800" * 50), b"K\x01")),
        "bidi": mapping((text("\u202eabc"), b"K\x01")),
        "many_names": b"}(" + b"".join(text(f"{i:0200d}") + b"N" for i in range(20_000)) + b"u",
        "own_list": b"]q\x00h\x00a",
        "own_dict": b"}q\x00(" + text("G_ema") + b"h\x00u",
        "own_key": b"}q\x00(h\x00Nu",
        "underflow": b"R",
        "mark_underflow": b"t",
        "memo_missing": b"h\x07",
        "unknown": b"\xff",
        "nothing": b"",
        "none": b"N",
        "integer": b"K\x07",
        "huge_integer": integer((1 << 2000) - 1),
        "not_a_number": b"G" + struct.pack(">d", float("nan")),
        "odd_items": b"}(NNNu",
        "truth": b"I01\n",
        "opaque": named("collections.OrderedDict"),
    }
