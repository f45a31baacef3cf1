"""The tables of docs/options.md, from the sources: every registered type, its options, their defaults and comments.

The package is not imported: classes are found in the syntax trees, and comments among the tokens. A field's meaning is
the comment in the lines above it and at the end of its own; a field without one, right below another, shares that one's.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "custom" / "latent_prior"

# Sections of the page: heading, the config key that names the type, and how the types' names end ("": all others).
KINDS = (
    ("Systems", "system_type", ("-system",)),
    ("Guidance", "system.guidance_type", ("-guidance",)),
    ("Prompts", "system.prompt_processor_type", ("-prompt-processor",)),
    ("Fields and meshes", "system.geometry_type", ("",)),
    ("Materials", "system.material_type", ("-material",)),
    ("Backgrounds", "system.background_type", ("-background",)),
    ("Renderers", "system.renderer_type", ("-renderer", "-rasterizer")),
    ("Exporters", "system.exporter_type", ("-exporter",)),
    ("Data", "data_type", ("-datamodule",)),
)

FIELDS_OF = re.compile(r"fields of (\w+Config)")  # in a comment: the dataclass of an option that is a mapping


@dataclass
class Option:
    """Fields of one meaning, in their order: usually one."""

    names: list[str]
    defaults: list[str]
    meaning: str


@dataclass(frozen=True, eq=False)
class Class:
    """A class of the package: its name with those of the classes around it, and where it stands."""

    name: str
    node: ast.ClassDef
    module: "Module"

    @property
    def registered(self) -> str | None:
        """The name that `@register("name")` or `@host.register("name")` gives it."""
        for call in self.node.decorator_list:
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] == "register":
                return ast.literal_eval(call.args[0])
        return None

    @property
    def about(self) -> str:
        """The first paragraph of its docstring."""
        return " ".join((ast.get_docstring(self.node) or "").split("\n\n")[0].split())

    @cached_property
    def options(self) -> list[Option]:
        """Its own options, without those that it inherits."""
        found: list[Option] = []
        last = -1
        for node in self.node.body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            meaning, default = self.module.comment(node), self.module.default(node.value)
            if not meaning and found and node.lineno == last + 1:
                found[-1].names.append(node.target.id)
                found[-1].defaults.append(default)
            else:
                found.append(Option([node.target.id], [default], meaning))
            last = node.end_lineno or node.lineno
        return found


class Module:
    """A file of the package."""

    def __init__(self, path: Path):
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)

    @cached_property
    def comments(self) -> dict[int, tuple[str, bool]]:
        """By line: the comment, and whether the line holds nothing else."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {
            token.start[0]: (token.string.lstrip("# ").rstrip(), not token.line[: token.start[1]].strip())
            for token in tokens
            if token.type == tokenize.COMMENT
        }

    def classes(self, node: ast.AST | None = None, within: str = "") -> Iterator[Class]:
        """Its classes, and those inside them."""
        for child in ast.iter_child_nodes(node or self.tree):
            if isinstance(child, ast.ClassDef):
                yield Class(within + child.name, child, self)
                yield from self.classes(child, f"{within}{child.name}.")

    def comment(self, node: ast.AnnAssign) -> str:
        """The comment of a field, as one paragraph."""
        first = node.lineno
        while self.comments.get(first - 1, ("", False))[1]:
            first -= 1
        above = " ".join(self.comments[line][0] for line in range(first, node.lineno))
        beside, _ = self.comments.get(node.end_lineno or node.lineno, ("", False))
        # those beside a field begin with a small letter
        parts = [
            part if part.endswith(".") else f"{part}." for part in (above, beside[:1].upper() + beside[1:]) if part
        ]
        return re.sub(r"\bNone\b", "null", " ".join(parts))

    def default(self, value: ast.expr | None) -> str:
        """A default as it is written in YAML."""
        if value is None:
            return "required"
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
            value = next(keyword.value for keyword in value.keywords if keyword.arg == "default_factory")
            if isinstance(value, ast.Lambda):
                return self.default(value.body)
            if isinstance(value, ast.Attribute) and value.attr == "copy":
                return self.default(value.value)
            return {"dict": "{}", "list": "[]"}[ast.unparse(value)]
        if isinstance(value, ast.Name):
            return self.constant(value.id)
        if isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            return "{" + ", ".join(f"{self.default(key)}: {self.default(entry)}" for key, entry in pairs) + "}"
        if isinstance(value, ast.List | ast.Tuple):
            return "[" + ", ".join(self.default(entry) for entry in value.elts) + "]"
        if isinstance(value, ast.Constant) and not isinstance(value.value, int | float):  # True is an int
            return {None: "null", "": '""'}.get(value.value, str(value.value))
        return (ast.get_source_segment(self.text, value) or "").lower()

    def constant(self, name: str) -> str:
        """As `default`, of what a name at the top of the file is set to, here or where it is imported from."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and any(ast.unparse(target) == name for target in node.targets):
                return self.default(node.value)
            if isinstance(node, ast.ImportFrom) and node.module and name in [alias.name for alias in node.names]:
                return Module(PACKAGE.parent.joinpath(*node.module.split(".")).with_suffix(".py")).constant(name)
        raise LookupError(f"{self.path} sets no {name}")


class Sources:
    """All classes of the package."""

    def __init__(self, folder: Path = PACKAGE):
        paths = sorted(folder.rglob("*.py"))
        self.classes = [found for path in paths for found in Module(path).classes()]
        self.by_name: dict[str, list[Class]] = {}
        for found in self.classes:
            self.by_name.setdefault(found.name, []).append(found)

    def find(self, name: str) -> Class | None:
        """The class that an expression such as `host.BaseModule.Config` names; None for one of another package."""
        parts = name.split(".")
        for start in range(len(parts)):
            if found := self.by_name.get(".".join(parts[start:])):
                if len(found) > 1:
                    raise LookupError(f"{name} is the name of {len(found)} classes")
                return found[0]
        return None

    def registered(self) -> dict[str, Class]:
        """The config of every registered type, by the type's name."""
        types = {found.registered: found for found in self.classes if found.registered}
        return {name: self.config(found) for name, found in types.items() if name}

    def config(self, owner: Class) -> Class:
        """A type's own Config, or the dataclass `<type>Config`."""
        found = self.find(f"{owner.name}.Config") or self.find(f"{owner.name}Config")
        if found is None:
            raise LookupError(f"{owner.name} has no config")
        return found

    def bases(self, config: Class) -> list[Class]:
        """What a config inherits options from, nearest first."""
        found: list[Class] = []
        for base in config.node.bases:
            if (parent := self.find(ast.unparse(base))) is not None:
                found += [one for one in (parent, *self.bases(parent)) if one not in found]
        return [one for one in found if one.options]


def cell(text: str) -> str:
    """Text for a cell of a table: bars and signs that Markdown would read are escaped outside of code."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [re.sub(r"([<*\[\]_])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def table(options: list[Option]) -> str:
    """Option, default and meaning."""
    lines = ["| option | default | meaning |", "|:--|:--|:--|"]
    for option in options:
        names = "<br>".join(map(code, option.names))
        same = len(set(option.defaults)) == 1
        defaults = code(option.defaults[0]) if same else "<br>".join(map(code, option.defaults))
        meaning = FIELDS_OF.sub(lambda named: f"fields of [{named[1]}](#{anchor(named[1])})", cell(option.meaning))
        lines.append(f"| {names} | {defaults} | {meaning} |")
    return "\n".join(lines)


def kind_of(name: str) -> str:
    """The heading that a registered type belongs under."""
    for heading, _, ends in KINDS:
        if ends != ("",) and name.endswith(ends):
            return heading
    return next(heading for heading, _, ends in KINDS if ends == ("",))


def title(config: Class) -> str:
    """The heading of options that several types share: the name of the class that they belong to."""
    return config.name.removesuffix(".Config")


def anchor(heading: str) -> str:
    return heading.lower()


def markdown() -> str:
    """The sections of the page."""
    sources = Sources()
    types = sources.registered()
    experiment = sources.find("ExperimentConfig")
    assert experiment is not None
    lines = ["## The experiment", "The top level of a config.", table(experiment.options)]
    done: list[Class] = []
    for heading, key, _ in KINDS:
        lines += [f"## {heading}", f"Named by `{key}`; the options below stand in `{key.removesuffix('_type')}`."]
        shared: list[Class] = []
        nested: list[tuple[str, Class]] = []
        for name in sorted(name for name in types if kind_of(name) == heading):
            config = types[name]
            owner = sources.find(config.name.removesuffix(".Config").removesuffix("Config"))
            bases = sources.bases(config)
            shared += [base for base in bases if base not in shared]
            lines += [f"### {name} {{ #{name} }}", owner.about if owner is not None else ""]
            if config.options:
                lines.append(table(config.options))
            if bases:
                links = ", ".join(f"[{title(base)}](#{anchor(title(base))})" for base in bases)
                lines.append(f"{'It also has' if config.options else 'It has'} the options of: {links}.")
            for option in config.options:
                if named := FIELDS_OF.search(option.meaning):
                    found = sources.find(named[1])
                    assert found is not None, named[1]
                    nested.append((f"{key.removesuffix('_type')}.{option.names[0]}", found))
        for where, found in nested:
            about = "" if found.about.startswith("`") else found.about
            lines += [f"### {where} {{ #{anchor(found.name)} }}", about, table(found.options)]
        for base in shared:
            if base not in done:
                users = [name for name in types if base in sources.bases(types[name])]
                of = ", ".join(f"[{user}](#{user})" for user in sorted(users))
                lines += [f"### {title(base)} {{ #{anchor(title(base))} }}", f"Options of {of}.", table(base.options)]
                done.append(base)
    return "\n\n".join(line for line in lines if line) + "\n"
