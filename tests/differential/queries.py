"""Random queries: joins, subqueries, grouping, windows, set operations, order and limits."""

import random

from expressions import SAFE, SORTED, Expressions, columns_of, literal
from schema import KINDS
from syntax import Many, Node, text

AGGREGATES = {
    "int": ["count(*)", "count({any})", "count(DISTINCT {any})", "max({int})", "min({int})", "bit_and({int})", "bit_or({int})", "count({int})"],
    "num": ["sum({int})", "sum({num})", "max({num})", "min({num})", "sum(DISTINCT {num})", "~avg({num})", "~avg({int})", "~stddev({int})",
            "~var_pop({num})", "sum(DISTINCT {int})", "~stddev_pop({num})"],
    "flt": ["~sum({flt})", "~avg({flt})", "max({flt})", "min({flt})", "~stddev({flt})", "~var_samp({flt})", "~corr({flt}, {int})",
            "~covar_pop({flt}, {flt})", "~regr_slope({flt}, {int})", "~percentile_cont({'0.5|0.25|0.9}) WITHIN GROUP (ORDER BY {flt})"],
    "text": ["max({text})", "min({text})", "string_agg({text}, ',' ORDER BY {text})|same", "string_agg(DISTINCT {text}, ',')|one"],
    "bool": ["bool_and({bool})", "bool_or({bool})", "every({bool})", "(count(*) > 1)"],
    "date": ["max({date})", "min({date})", "percentile_disc(0.5) WITHIN GROUP (ORDER BY {date})"],
    "time": ["max({time})", "min({time})"],
    "ts": ["max({ts})", "min({ts})"],
    "tstz": ["max({tstz})", "min({tstz})"],
    "iv": ["max({iv})", "sum({iv})", "min({iv})"],
    "bytea": [],
}
WINDOWS = {
    "int": ["row_number()", "rank()", "dense_rank()", "ntile({#1-4})", "count(*)", "count({int})", "lag({int})", "lead({int}, {#0-3})", "max({int})",
            "bit_and({int})", "bit_or({int})", "lag({int}, {#1-2}, {#-1-9})", "first_value({int})", "last_value({int})", "nth_value({int}, {#1-3})", "min({int})"],
    "num": ["sum({int})", "sum({num})", "~avg({int})", "max({num})"],
    "flt": ["percent_rank()", "cume_dist()", "~sum({flt})", "~avg({flt})", "min({flt})"],
    "text": ["first_value({text})", "string_agg({text}, ',')", "lag({text}, {#0-2}, 'none')", "max({text})", "last_value({text})"],
    "date": ["lag({date})", "max({date})"],
    "ts": ["lead({ts})", "min({ts})"],
    "tstz": ["first_value({tstz})"],
    "bool": ["bool_or({bool})", "lag({bool})", "bool_and({bool})", "every({bool})"],
    "time": ["max({time})"], "iv": ["max({iv})"], "bytea": ["first_value({bytea})"],
}
FRAMES = [
    "", "", "", "ROWS BETWEEN {#0-2} PRECEDING AND {#0-2} FOLLOWING", "ROWS UNBOUNDED PRECEDING", "ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
    "RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING", "ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING",
    "GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW", "RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING", "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING",
]
# Of one number in ORDER BY.
RANGES = ["RANGE BETWEEN {#0-3} PRECEDING AND {#0-3} FOLLOWING", "RANGE BETWEEN {#1-3} FOLLOWING AND UNBOUNDED FOLLOWING", "RANGE {#0-4} PRECEDING"]
OUTPUTS = ["int", "int", "num", "flt", "text", "text", "bool", "date", "ts", "tstz", "time", "iv"]


class Queries(Expressions):
    """Makes whole queries. Output columns have the kinds asked for, so that queries can stand in each other."""

    def __init__(self, rng: random.Random, tables: list, edge: float = 0.0):
        super().__init__(rng, tables, edge)
        self.names = 0
        self.ctes = []

    def alias(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    # ---- FROM

    def source(self, depth: int, lateral: bool):
        """What stands in FROM between joins: a node and the scope of its columns, and its table where it is one."""
        fate = self.rng.random()
        if self.ctes and fate < 0.3:
            name, kinds = self.rng.choice(self.ctes)
            alias = self.alias("w")
            return text("source", f"{name} AS {alias}"), [(f"{alias}.x{i}", k) for i, k in enumerate(kinds)], None
        if depth > 0 and fate > 0.8:
            return self.derived(depth, lateral)
        table = self.rng.choice(self.tables)
        alias = self.alias("a")
        return text("source", f"{table.name} AS {alias}"), columns_of(table, alias), (table, alias)

    def derived(self, depth: int, lateral: bool):
        """A query or a list of values in FROM."""
        alias = self.alias("d")
        kinds = [self.rng.choice(SORTED) for _ in range(self.rng.randint(1, 3))]
        names = ", ".join(f"x{i}" for i in range(len(kinds)))
        scope = [(f"{alias}.x{i}", kind) for i, kind in enumerate(kinds)]
        if not lateral and self.rng.random() < 0.25:
            rows = tuple(Node("row", ("(", Many(tuple(literal(k, self.rng) for k in kinds)), ")")) for _ in range(self.rng.randint(1, 4)))
            return Node("source", ("(VALUES ", Many(rows), f") AS {alias}({names})")), scope, None
        inner = self.query(kinds, depth - 1, correlated=lateral)
        if self.rng.random() < 0.2:
            inner = self.ordered(inner, len(kinds), limit=True)[0]
        return Node("source", ("LATERAL (" if lateral else "(", inner, f") AS {alias}({names})")), scope, None

    def from_clause(self, depth: int):
        """FROM with its joins: a node, the scope, and the single table where there is one."""
        node, scope, only = self.source(depth, False)
        if self.rng.random() < 0.45:
            return node, scope, only
        for _ in range(self.rng.choice([1, 1, 1, 2])):
            # A bare name may be ambiguous with one table more.
            scope = [(ref, k) for ref, k in scope if "." in ref]
            node, scope = self.join(node, scope, only, depth)
            only = None
        return node, scope, None

    def join(self, left: Node, scope: list, only, depth: int):
        fate = self.rng.random()
        if fate < 0.22 and only and self.rng.random() < 0.9:
            return self.using(left, only)
        if fate < 0.32 and depth > 0:
            self.scopes.append(scope)
            right, more, _ = self.derived(depth, True)
            self.scopes.pop()
            how = self.rng.choice(["CROSS JOIN ", "JOIN ", "LEFT JOIN ", ", "])
            on = "" if how in ("CROSS JOIN ", ", ") else " ON TRUE"
            return Node("source", (left, f" {how}".replace(" , ", ", "), right, on)), scope + more
        right, more, _ = self.source(depth, False)
        kind = self.rng.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", "INNER JOIN", "LEFT OUTER JOIN"])
        both = scope + more
        if kind == "CROSS JOIN":
            return Node("source", (left, " CROSS JOIN ", right)), both
        pairs = [(a, b) for a, k in scope for b, l in more if k == l and k not in ("flt",)]
        if kind == "FULL JOIN" and not pairs:
            kind = "LEFT JOIN"
        parts = []
        if pairs and self.rng.random() < 0.8 or kind == "FULL JOIN":
            a, b = self.rng.choice(pairs)
            parts.append(text("bool", f"{a} = {b}"))
        # PostgreSQL makes FULL JOINs of equalities only.
        if not parts or (kind != "FULL JOIN" and self.rng.random() < 0.35):
            self.scopes.append(both)
            parts.append(self.expression("bool", min(depth, 1)))
            self.scopes.pop()
        return Node("source", (left, f" {kind} ", right, " ON ", Many(tuple(parts), " AND "))), both

    def using(self, left: Node, only):
        """A join by common names: the bare name means both sides' column."""
        table, alias = only
        other = self.rng.choice(self.tables)
        name = self.alias("a")
        common = [c for c, _ in table.columns if c in dict(other.columns)]
        kind = self.rng.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
        if self.rng.random() < 0.4:
            node = Node("source", (left, f" NATURAL {kind} {other.name} AS {name}"))
            merged = common
        else:
            merged = self.rng.sample(common, self.rng.randint(1, min(2, len(common))))
            if self.rng.random() < 0.7:
                merged = ["id"]
            node = Node("source", (left, f" {kind} {other.name} AS {name} USING ({', '.join(merged)})"))
        kinds = {c: KINDS.get(k, k) for c, k in table.columns}
        scope = [(c, kinds[c]) for c in merged] * 2
        for t, a in ((table, alias), (other, name)):
            scope += columns_of(t, a)
            scope += [(c, KINDS.get(k, k)) for c, k in t.columns if c not in common]
        if merged == ["id"] and self.rng.random() < 0.3:
            third, more = self.rng.choice(self.tables), self.alias("a")
            kind = self.rng.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
            node = Node("source", (node, f" {kind} {third.name} AS {more} USING (id)"))
            scope = [("id", "int")] * 2 + [(ref, k) for ref, k in scope if "." in ref] + columns_of(third, more)
        return node, scope

    # ---- SELECT

    def query(self, kinds: list, depth: int, correlated: bool = True) -> Node:
        """A query of columns of these kinds, without ORDER BY."""
        if depth > 0 and self.rng.random() < 0.13:
            operation = self.rng.choice(["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"])
            return Node("query", ("(", self.query(kinds, depth - 1, correlated), f") {operation} (", self.query(kinds, depth - 1, correlated), ")"))
        outer = self.scopes
        if not correlated:
            self.scopes = [[]]
        node, scope, only = self.from_clause(depth - 1)
        self.scopes = (outer if correlated else [[]]) + [scope]
        try:
            fate = self.rng.random()
            if fate < 0.3:
                return self.grouped(kinds, node, depth)
            if fate < 0.42 and only:
                return self.windowed(kinds, node, only, depth)
            if fate < 0.47 and only:
                return self.distinct_on(kinds, node, only, depth)
            items = [self.expression(kind, depth) for kind in kinds]
            distinct = "DISTINCT " if self.rng.random() < 0.12 else ""
            return Node("query", (f"SELECT {distinct}", Many(tuple(items)), " FROM ", node, self.where(depth)))
        finally:
            self.scopes = outer

    def distinct_on(self, kinds: list, source: Node, only, depth: int) -> Node:
        """The first row for each value of a column, in an order that is total by `id`."""
        own = [ref for ref, k in self.scopes[-1] if k not in ("bytea", "iv")]
        by, alias, order = self.rng.choice(own), only[1], self.rng.choice(["", " DESC", " NULLS FIRST"])
        name, names = self.alias("d"), ", ".join(f"x{i}" for i in range(len(kinds)))
        items = Many(tuple(self.expression(kind, 1) for kind in kinds))
        return Node("query", (f"SELECT * FROM (SELECT DISTINCT ON ({by}) ", items, " FROM ", source, self.where(depth),
                              f" ORDER BY {by}{order}, {alias}.id DESC) AS {name}({names})"))

    def where(self, depth: int) -> Node:
        if self.rng.random() < 0.45:
            return text("where", "")
        return Node("where", (" WHERE ", self.expression("bool", min(depth, 2))), optional=True)

    def aggregate(self, kind: str, depth: int) -> Node:
        """An aggregate over the columns of the scope that is on top."""
        template = self.rng.choice(AGGREGATES[kind])
        template, _, special = template.partition("|") if template.endswith(("|same", "|one")) else (template, "", "")
        if special:
            column = text("text", f"CAST({self.own_text()} AS TEXT)")
            call = "string_agg({c}, ',' ORDER BY {c})" if special == "same" else "string_agg(DISTINCT {c}, ',' ORDER BY {c})"
            return text(kind, call.replace("{c}", column.render()))
        saved, self.subqueries = self.subqueries, False
        # Of its own query's columns alone: with outer ones it would belong to the outer query.
        scopes, self.scopes = self.scopes, [[], self.scopes[-1]]
        node = self.fill(kind, template, min(depth, 2))
        if self.rng.random() < 0.2 and not template.startswith("(") and "WITHIN" not in template:
            condition = Node("filter", (" FILTER (WHERE ", self.expression("bool", 1), ")"), optional=True)
            node = Node(kind, (node, condition), node.inexact)
        self.subqueries, self.scopes = saved, scopes
        return node

    def own_text(self) -> str:
        """A text column of the query on top, or a word."""
        own = [ref for ref, k in self.scopes[-1] if k == "text"]
        return self.rng.choice(own or ["'ab'"])

    def grouped(self, kinds: list, source: Node, depth: int) -> Node:
        """GROUP BY in its forms: the items are groups' columns, aggregates, and expressions of them."""
        full = self.scopes[-1]
        where = self.where(depth)
        keys = self.rng.sample(full, min(len(full), self.rng.choice([0, 1, 1, 2, 2])))
        keys = [self.group_key(*k) for k in dict.fromkeys(keys)]
        items = []
        for kind in kinds:
            own = [ref for ref, k in keys if k == kind]
            if own and self.rng.random() < 0.6:
                item = text(kind, self.rng.choice(own))
            elif AGGREGATES[kind] and self.rng.random() < 0.85:
                item = self.aggregate(kind, depth)
            else:
                item = self.over_groups(kind, keys)
            items.append(item)
        having = text("having", "")
        if keys and self.rng.random() < 0.25:
            having = Node("having", (" HAVING ", self.aggregate("int", 1), " ", self.rng.choice(["> 0", "<> 1", "IS NOT NULL", "< 5"])), optional=True)
        by = self.group_by([ref for ref, _ in keys])
        return Node("query", ("SELECT ", Many(tuple(items)), " FROM ", source, where, by, having))

    def group_key(self, ref: str, kind: str):
        """What is grouped by: a column, or something computed of it."""
        if self.rng.random() < 0.8:
            return ref, kind
        match kind:
            case "int":
                return f"({ref} % 3)", kind
            case "text":
                return f"lower({ref})", kind
            case "num":
                return f"round({ref}, 1)", kind
            case "ts":
                return f"date_trunc('month', {ref})", kind
        return f"({ref} IS NULL)", "bool"

    def over_groups(self, kind: str, keys: list) -> Node:
        saved, self.scopes = self.scopes, self.scopes[:-1] + [keys]
        flag, self.subqueries = self.subqueries, False
        # Outer columns in an expression over groups are legal; in aggregates they change whose aggregate it is.
        self.scopes = [[], keys]
        node = self.expression(kind, 1)
        self.scopes, self.subqueries = saved, flag
        return node

    def group_by(self, refs: list) -> Node:
        if not refs:
            return text("groupby", "")
        fate = self.rng.random()
        names = ", ".join(refs)
        if fate < 0.6:
            by = names
        elif fate < 0.72:
            by = f"ROLLUP ({names})"
        elif fate < 0.84:
            by = f"CUBE ({names})"
        else:
            by = f"GROUPING SETS (({names}), ({refs[0]}), ())"
        return text("groupby", f" GROUP BY {by}")

    def windowed(self, kinds: list, source: Node, only, depth: int) -> Node:
        """Window functions over one table, in an order that is total by its `id`."""
        table, alias = only
        items = [self.window(kind, alias) if self.rng.random() < 0.75 else self.expression(kind, 1) for kind in kinds]
        return Node("query", ("SELECT ", Many(tuple(items)), " FROM ", source, self.where(depth)))

    def window(self, kind: str, alias: str) -> Node:
        saved, self.subqueries = self.subqueries, False
        function = self.fill(kind, self.rng.choice(WINDOWS[kind]), 1)
        own = [ref for ref, k in self.scopes[-1] if k not in ("bytea",)]
        partition = Node("partition", (f"PARTITION BY {self.rng.choice(own)} ",), optional=True) if self.rng.random() < 0.5 else text("partition", "")
        by = [f"{alias}.id" + self.rng.choice(["", " DESC"])]
        if self.rng.random() < 0.5:
            by.insert(0, self.rng.choice(own) + self.rng.choice(["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]))
        frame = self.fill("frame", self.rng.choice(FRAMES if len(by) > 1 else FRAMES + RANGES), 0)
        if function.parts and str(function.parts[0]).split("(")[0] in ("row_number", "rank", "dense_rank", "ntile", "lag", "lead", "percent_rank", "cume_dist"):
            frame = text("frame", "")
        self.subqueries = saved
        frame = Node("frame", frame.parts, optional=True)
        return Node(kind, (function, " OVER (", partition, f"ORDER BY {', '.join(by)} ", frame, ")"), function.inexact)

    # ---- subqueries

    def subquery(self, kind: str, depth: int) -> Node:
        node = self.query([kind], min(depth, 1))
        return Node(f"sub:{kind}", ("(", node, ")"))

    def scalar(self, kind: str, depth: int) -> Node:
        """A query of at most one row: an aggregate over all, or the first of an order."""
        if AGGREGATES[kind] and self.rng.random() < 0.6:
            node, scope, _ = self.from_clause(0)
            self.scopes.append(scope)
            inner = Node("query", ("SELECT ", self.aggregate(kind, 1), " FROM ", node, self.where(1)))
            self.scopes.pop()
        else:
            inner, _ = self.ordered(self.query([kind], min(depth, 1)), 1, limit=True, one=True)
        return Node(kind, ("(", inner, ")"))

    # ---- whole statements

    def ordered(self, query: Node, width: int, limit: bool, one: bool = False):
        """The query ordered by all its columns, so that the order is total, and perhaps limited."""
        by = [str(i + 1) + self.rng.choice(["", "", " DESC", " NULLS FIRST", " DESC NULLS LAST", " ASC"]) for i in range(width)]
        self.rng.shuffle(by)
        limits = text("limit", "")
        if one:
            limits = text("limit", " LIMIT 1")
        elif limit:
            form = self.rng.choice([" LIMIT {#0-4}", " LIMIT {#1-3} OFFSET {#0-3}", " OFFSET {#0-3}", " FETCH FIRST {#1-3} ROWS ONLY"])
            limits = Node("limit", self.fill("limit", form, 0).parts, optional=True)
        return Node("query", (query, f" ORDER BY {', '.join(by)}", limits)), True

    def with_names(self, kinds: list, depth: int) -> Node:
        """WITH before a query that reads it."""
        name = self.alias("cte")
        inner = [self.rng.choice(SORTED) for _ in range(2)]
        body = self.query(inner, depth - 1, correlated=False)
        self.ctes.append((name, inner))
        outer = self.query(kinds, depth)
        self.ctes.pop()
        return Node("query", (f"WITH {name}(x0, x1) AS (", body, ") ", outer))

    def statement(self):
        """A SELECT and whether its rows come in one order only."""
        kinds = [self.rng.choice(OUTPUTS) for _ in range(self.rng.choice([1, 2, 2, 3, 4]))]
        depth = self.rng.choice([1, 2, 2, 3])
        query = self.with_names(kinds, depth) if self.rng.random() < 0.1 else self.query(kinds, depth)
        if self.rng.random() < 0.4:
            if query.render().startswith("(") or query.render().startswith("WITH"):
                query = Node("query", ("SELECT * FROM (", query, ") AS o"))
            return self.ordered(query, len(kinds), self.rng.random() < 0.6)
        return query, False

    def plain(self, templates: dict, kinds: list):
        """One table, expressions a step or two deep: the statement in which errors count."""
        table = self.rng.choice(self.tables)
        self.scopes = [columns_of(table, "a")]
        self.templates, self.subqueries = templates, False
        kind = self.rng.choice(kinds)
        node = self.fill(kind, self.rng.choice(templates[kind]), self.rng.choice([1, 1, 1, 2]))
        self.templates, self.subqueries = SAFE, True
        where = text("where", "")
        if self.rng.random() < 0.25:
            where = Node("where", (" WHERE a.id = ", str(self.rng.randint(0, 6))), optional=True)
        return Node("query", ("SELECT a.id, ", node, f" FROM {table.name} AS a", where))
