"""What a function is, as plain data: its source, the sources of what it uses, and the values that it closes over.

Functions with the same description do the same. It holds syntax trees, values, and the names of libraries' functions.
It holds no path and no address, so it is the same in every process, on every machine and by every supported Python.
Comments, type hints of arguments, a function's docstring and the layout of the source change nothing.

What functions of the same file change is state and no constant: a cache, a counter. A path counts as the content of its
file. A library's function counts by its name, and a function without source, typed at a prompt, by its bytecode.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import linecache
import re
import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from scaling.types import digest

parsing = threading.Lock()  # Python 3.11 can fail when two threads parse at a time
Described = list[Any]  # plain JSON
OWN = ("scaling", "benchmarks")  # no libraries, also where this program is installed
PLAIN = (type(None), bool, int, float, complex, str, bytes, range)
# Methods that change what they are called on.
CHANGING = (
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popleft", "popitem", "put",
    "remove", "setdefault", "sort", "update", "write",
)  # fmt: skip
Functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def described(*values: Any, not_followed: Collection[str] = ()) -> list[Described]:
    """Each value (a function, class, object or plain data) as plain JSON.

    not_followed: modules and packages of which a function counts by its name alone, as a library's does.
    """
    description = _Description(tuple(not_followed))
    return [description.of(value) for value in values]


class _Description:
    """Descriptions of several values; a function or class that comes again is named only."""

    def __init__(self, not_followed: tuple[str, ...]):
        self._not_followed = not_followed
        self._seen: set[str] = set()
        self._around: list[int] = []  # ids of the containers and objects that are being described

    def of(self, value: Any) -> Described:
        """The description of any value."""
        if isinstance(value, PLAIN):
            return [type(value).__name__, repr(value)]
        if isinstance(value, Path):
            return ["path", hashlib.sha256(value.read_bytes()).hexdigest() if value.is_file() else None]
        if isinstance(value, re.Pattern):
            return ["pattern", repr(value.pattern), value.flags]
        if isinstance(value, FunctionType | type):
            return self._definition(value)
        if id(value) in self._around:
            return ["around"]
        self._around.append(id(value))
        try:
            return self._object(value)
        finally:
            self._around.pop()

    def _object(self, value: Any) -> Described:
        kind = type(value).__qualname__
        if isinstance(value, Mapping):
            return [kind, _sorted([self.of(key), self.of(item)] for key, item in value.items())]
        if isinstance(value, Set):
            return [kind, _sorted(map(self.of, value))]
        if isinstance(value, Sequence):
            return [kind, [self.of(item) for item in value]]
        if isinstance(value, functools.partial):
            return [kind, self.of(value.func), self.of(value.args), self.of(value.keywords)]
        if isinstance(value, MethodType):
            return [kind, self.of(value.__self__), self.of(value.__func__)]
        if hasattr(value, "__wrapped__"):  # functools.lru_cache and its like
            return [kind, self.of(value.__wrapped__)]
        if self._is_named(type(value).__module__):
            return [kind, _text(value)]
        state = _changed(_tree_of_class(type(value)))
        fields = {name: field for name, field in _fields(value).items() if f".{name}" not in state}
        return [kind, self._definition(type(value)), self.of(fields)]

    def _definition(self, value: FunctionType | type) -> Described:
        # Functions made by exec may know no module.
        module = value.__globals__.get("__name__", "__main__") if isinstance(value, FunctionType) else value.__module__
        name = f"{module}:{value.__qualname__}"
        if self._is_named(module):
            wrapped = getattr(value, "__wrapped__", None)
            return ["library", name] if wrapped is None else ["library", name, self.of(wrapped)]
        where = f"{name}:{value.__code__.co_firstlineno}:{id(value)}" if isinstance(value, FunctionType) else name
        if where in self._seen:
            return ["again", value.__qualname__]
        self._seen.add(where)
        return self._function(value) if isinstance(value, FunctionType) else self._class(value)

    def _function(self, function: FunctionType) -> Described:
        code, scope = function.__code__, function.__globals__
        tree = _tree("".join(linecache.getlines(code.co_filename, scope)))
        nodes = _defined(tree).get((code.co_name, code.co_firstlineno), [])
        state = _changed(tree)
        closure = {
            name: self.of(cell.cell_contents)
            for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True)
            if name not in state and cell != CellType()  # an empty one is of a variable without a value yet
        }
        defaults = self.of([function.__defaults__, function.__kwdefaults__])
        used = self._used(nodes, scope, tree) if nodes else self._named(code.co_names, scope, tree)
        source = list(map(_source, nodes)) if nodes else _bytecode(code)
        return ["function", source, closure, defaults, used]

    def _class(self, kind: type) -> Described:
        scope = vars(sys.modules[kind.__module__]) if kind.__module__ in sys.modules else {}
        tree = _tree_of_class(kind)
        nodes = _defined(tree).get((kind.__name__, None), [])
        if nodes:
            return ["class", list(map(_source, nodes)), self._used(nodes, scope, tree)]
        own = {name: value for name, value in vars(kind).items() if not name.startswith("__")}
        return ["class", kind.__qualname__, self.of(own)]

    def _used(self, nodes: list[Any], scope: Mapping[str, Any], tree: ast.Module) -> dict[str, Described]:
        """What the code reads of its module's names, and of what it imports itself."""
        names = dict.fromkeys(name for node in nodes for name in _names(node))
        return self._named(names, {**scope, **_imported(nodes, scope)}, tree)

    def _named(self, names: Collection[str], scope: Mapping[str, Any], tree: ast.Module) -> dict[str, Described]:
        state = _changed(tree)
        found: dict[str, Described] = {}
        for name in names:
            first, *rest = name.split(".")
            if first not in scope:
                continue  # a local variable or a built-in function
            value = scope[first]
            for part in rest:
                if isinstance(value, ModuleType) and not self._is_named(value.__name__):
                    value = getattr(value, part, None)
            if rest[-1:] == ["__file__"]:
                value = Path(str(value))  # its content counts, not where it lies
            if name == "__file__":
                found[name] = ["file"]
            elif first in state:
                found[first] = ["state", [_source(node) for node in tree.body if first in _bound(node)]]
            else:
                found[name] = ["module", value.__name__] if isinstance(value, ModuleType) else self.of(value)
        return found

    def _is_named(self, module: str) -> bool:
        """Whether what is of this module counts by its name alone."""
        return _is_library(module) or any(f"{module}.".startswith(f"{name}.") for name in self._not_followed)


def _sorted(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=digest)


def _fields(value: Any) -> dict[str, Any]:
    """The attributes of an object, with those in slots."""
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return {name: getattr(value, name, None) for name in slots} | getattr(value, "__dict__", {})


def _text(value: Any) -> str | None:
    """An object of a library in words, where these are the same everywhere: no address, no iterator's place."""
    text = value.tobytes().hex() if hasattr(value, "tobytes") else repr(value)
    return None if " at 0x" in text or text.startswith("<") or hasattr(value, "__next__") else text


def _is_library(module: str) -> bool:
    """Whether a module is Python's own or installed, and not a part of this program."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in OWN:
        return top not in OWN
    file = getattr(sys.modules.get(module) or sys.modules.get(top), "__file__", None)
    if file is None and top not in sys.modules:
        file = getattr(importlib.util.find_spec(top), "origin", None)
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file or "").parts)


@functools.lru_cache(maxsize=256)
def _tree(text: str) -> ast.Module:
    try:
        with parsing:
            return ast.parse(text)
    except SyntaxError:  # not the text that was run: a notebook's magic
        return ast.Module([], [])


def _tree_of_class(kind: type) -> ast.Module:
    """The file that defines a class; an empty one where there is none."""
    methods = [value.__code__.co_filename for value in vars(kind).values() if isinstance(value, FunctionType)]
    module = getattr(sys.modules.get(kind.__module__), "__file__", None)
    for name in (module, *methods):
        if name and (lines := linecache.getlines(name)):
            return _tree("".join(lines))
    return ast.Module([], [])


@functools.lru_cache(maxsize=256)
def _defined(tree: ast.Module) -> dict[tuple[str, int | None], list[Any]]:
    """The functions of a file by name and first line, several lambdas of a line together; its classes by name."""
    found: dict[tuple[str, int | None], list[Any]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found.setdefault((node.name, None), []).append(node)
        elif isinstance(node, Functions):
            line = min([node.lineno, *(part.lineno for part in getattr(node, "decorator_list", []))])
            found.setdefault((getattr(node, "name", "<lambda>"), line), []).append(node)
    return found


@functools.lru_cache(maxsize=10_000)
def _source(node: ast.AST) -> str:
    """A digest of a definition's syntax tree."""
    return digest(_shape(node))


def _shape(node: Any) -> Any:
    """A syntax tree as plain data, without positions, functions' docstrings, and type hints of arguments and results.

    A class keeps its docstring, which DSPy shows to models.
    """
    if isinstance(node, list):
        return [_shape(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):  # Python 3.12 may end a format with an empty text
        fields["values"] = [part for part in node.values if getattr(part, "value", None) != ""]
    left_out = {"ctx", "kind", "type_comment", "returns"} | ({"annotation"} if isinstance(node, ast.arg) else set())
    shapes = {name: _shape(part) for name, part in fields.items() if name not in left_out}
    return [type(node).__name__, {name: shape for name, shape in shapes.items() if shape not in ("None", [])}]


@functools.lru_cache(maxsize=10_000)
def _names(node: ast.AST) -> list[str]:
    return list(dict.fromkeys(_reads(node)))


def _reads(node: Any) -> Iterator[str]:
    """Names and dotted names that code reads, those in its type hints left out."""
    if (name := _dotted(node)) is not None:
        yield name
        return
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns"):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, ast.AST):
                    yield from _reads(part)


def _dotted(node: Any) -> str | None:
    """'a.b.c' for such an expression, None for another."""
    if isinstance(node, ast.Name):
        return node.id
    base = _dotted(node.value) if isinstance(node, ast.Attribute) else None
    return None if base is None else f"{base}.{node.attr}"


@functools.lru_cache(maxsize=10_000)
def _imports(node: ast.AST) -> list[ast.ImportFrom]:
    return [part for part in ast.walk(node) if isinstance(part, ast.ImportFrom)]


def _imported(nodes: list[Any], scope: Mapping[str, Any]) -> dict[str, Any]:
    """What the code itself imports from modules that are no library's, by name."""
    found: dict[str, Any] = {}
    for node in (part for whole in nodes for part in _imports(whole)):
        with contextlib.suppress(Exception):  # whatever importing somebody's module raises, its call will raise again
            name = importlib.util.resolve_name("." * node.level + (node.module or ""), scope.get("__package__"))
            if not _is_library(name):
                module = importlib.import_module(name)
                found |= {part.asname or part.name: getattr(module, part.name) for part in node.names}
    return found


@functools.lru_cache(maxsize=256)
def _changed(tree: ast.Module) -> frozenset[str]:
    """What functions of a file change that is not their own: names of variables, and '.name' of attributes."""
    changed: set[str] = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, Functions)):
        inside = list(ast.walk(function))
        shared = {name for node in inside if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
        own = {node.arg for node in inside if isinstance(node, ast.arg)}
        own |= {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        is_init = getattr(function, "name", "") == "__init__"
        places = (_place(part) for node in inside for part in _targets(node, is_init))
        changed |= {place for place in places if place} - (own - shared) | shared
    return frozenset(changed)


def _targets(node: ast.AST, is_init: bool) -> list[ast.expr]:
    """What a piece of code changes in place. In __init__, setting an attribute is no change."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGING:
        return [node.func.value]
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        return [node.value]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del) and not is_init:
        return [node]
    return []


def _place(node: ast.expr) -> str | None:
    """A variable's name, or an attribute's after a point."""
    if isinstance(node, ast.Name):
        return node.id
    return f".{node.attr}" if isinstance(node, ast.Attribute) else None


def _bound(node: ast.stmt) -> set[str]:
    """Names that a statement of a module binds."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _bytecode(code: CodeType) -> Described:
    constants = [_bytecode(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return ["bytecode", code.co_code.hex(), constants, list(code.co_names)]
