"""Generated SQL as trees of text, so that a failing statement can be made smaller.

A `Node` has a kind (a type such as `int`, or a part of a statement such as `query`) and parts: texts, nodes and lists (`Many`).
What makes it smaller needs to know no more than that: a node may give way to a node of its kind below it, or to a plain value of
its kind; an optional node to nothing; a list to a shorter one. Whether the result is a valid statement is for the engines to say.
"""

import dataclasses

# The plainest values of each type, for the shrinker.
PLAIN = {
    "int": ["1", "0"],
    "num": ["1.5"],
    "flt": ["CAST(1.5 AS DOUBLE PRECISION)"],
    "text": ["'a'", "''"],
    "bool": ["TRUE", "FALSE"],
    "date": ["DATE '2024-01-31'"],
    "time": ["TIME '10:00:00'"],
    "ts": ["TIMESTAMP '2024-01-31 10:00:00'"],
    "tstz": ["TIMESTAMPTZ '2024-01-31 10:00:00+00'"],
    "iv": ["INTERVAL '1 day'"],
}


@dataclasses.dataclass(frozen=True)
class Bind:
    """A value that is bound where the engine takes parameters, and stands in the text where it does not."""

    text: str
    value: object = None  # a pyarrow scalar


@dataclasses.dataclass(frozen=True)
class Many:
    """Nodes with something between them; at least `least` must stay. `before` comes first where there are any."""

    items: tuple
    between: str = ", "
    least: int = 1
    before: str = ""


@dataclasses.dataclass(frozen=True)
class Node:
    kind: str
    parts: tuple
    inexact: bool = False
    optional: bool = False

    def walk(self):
        """This node and all below it."""
        yield self
        for part in self.parts:
            for child in part.items if isinstance(part, Many) else [part]:
                if isinstance(child, Node):
                    yield from child.walk()

    def is_inexact(self) -> bool:
        return any(node.inexact for node in self.walk())

    def render(self, binds: list | None = None) -> str:
        """The text. With a list for binds, bound values are `?` in it and go to the list in their order."""
        out = []
        for part in self.parts:
            if isinstance(part, Many):
                texts = [item.render(binds) for item in part.items]
                out.append(part.before + part.between.join(texts) if texts else "")
            elif isinstance(part, Node):
                out.append(part.render(binds))
            elif isinstance(part, Bind):
                if binds is None:
                    out.append(part.text)
                else:
                    out.append("?")
                    binds.append(part.value)
            else:
                out.append(part)
        return "".join(out)


def text(kind: str, value: str) -> Node:
    return Node(kind, (value,))


def size(node: Node) -> int:
    return len(node.render())


def smaller(node: Node):
    """Trees a step smaller than this one, the boldest first."""
    candidates = list(_smaller(node, True))
    candidates.sort(key=size)
    limit, seen = size(node), set()
    for candidate in candidates:
        rendered = candidate.render()
        if len(rendered) < limit and rendered not in seen:
            seen.add(rendered)
            yield candidate


def _smaller(node: Node, root: bool = False):
    if node.optional:
        yield Node(node.kind, ("",), optional=False)
    for below in node.walk():
        if below is not node and below.kind == node.kind:
            yield below
    if not root:
        for plain in PLAIN.get(node.kind, []):
            yield Node(node.kind, (plain,))
    for i, part in enumerate(node.parts):
        for other in _smaller_part(part):
            yield dataclasses.replace(node, parts=node.parts[:i] + (other,) + node.parts[i + 1:])


def _smaller_part(part):
    if isinstance(part, Node):
        yield from _smaller(part)
    elif isinstance(part, Many):
        n = len(part.items)
        for width in sorted({n - part.least, n // 2, 1}, reverse=True):
            if width < 1 or n - width < part.least:
                continue
            for at in range(0, n - width + 1, width):
                yield dataclasses.replace(part, items=part.items[:at] + part.items[at + width:])
        for i, item in enumerate(part.items):
            for other in _smaller(item):
                yield dataclasses.replace(part, items=part.items[:i] + (other,) + part.items[i + 1:])
