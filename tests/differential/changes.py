"""Random changes: INSERT, upsert, UPDATE and DELETE, with RETURNING."""

from queries import Queries
from schema import KINDS, constant
from syntax import Many, Node, text


class Changes(Queries):
    """Changes of one table; the rows returned and the table afterwards are what is compared."""

    def change(self):
        """A statement and its table."""
        table = self.rng.choice(self.tables)
        kind = self.rng.choice([self.insert, self.insert, self.upsert, self.update, self.update, self.delete, self.delete, self.with_query])
        return kind(table), table

    def returning(self, table, depth: int = 1) -> Node:
        fate = self.rng.random()
        if fate < 0.25:
            return text("returning", "")
        if fate < 0.5:
            return text("returning", " RETURNING *")
        self.scopes = [self.bare(table)]
        items = tuple(self.expression(KINDS.get(k, k), depth) for _, k in self.rng.sample(table.columns, 2))
        return Node("returning", (" RETURNING ", Many(items)), optional=True)

    @staticmethod
    def bare(table) -> list:
        return [(f"{table.name}.{c}", KINDS.get(k, k)) for c, k in table.columns]

    def value(self, column: str, kind: str) -> Node:
        """A value for a column: a constant, DEFAULT, or an expression that the column's type takes."""
        fate = self.rng.random()
        if column == "id":
            return text("int", str(self.rng.randint(0, 20)))
        if fate < 0.6:
            return text(KINDS.get(kind, kind), "NULL" if self.rng.random() < 0.1 else constant(kind, self.rng, self.edge))
        if fate < 0.65:
            return text(KINDS.get(kind, kind), "DEFAULT")
        self.scopes, saved = [[]], self.subqueries
        self.subqueries = False
        node = self.expression(KINDS.get(kind, kind), 1)
        self.subqueries = saved
        return node

    def insert(self, table, conflict: bool = False) -> Node:
        columns = list(table.columns)
        if self.rng.random() < 0.4:
            keep = [c for c in columns if c[0] in table.key or c[0] == "id"]
            rest = [c for c in columns if c not in keep]
            columns = keep + self.rng.sample(rest, self.rng.randint(0, len(rest)))
            self.rng.shuffle(columns)
        names = ", ".join(c for c, _ in columns)
        if not conflict and self.rng.random() < 0.25:
            kinds = [KINDS.get(k, k) for _, k in columns]
            self.scopes = [[]]
            rows = Node("rows", (self.query(kinds, 1),))
        else:
            made = tuple(
                Node("row", ("(", Many(tuple(self.value(c, k) for c, k in columns), least=len(columns)), ")"))
                for _ in range(self.rng.choice([1, 1, 2, 3]))
            )
            rows = Node("rows", ("VALUES ", Many(made)))
        on = self.conflict(table) if conflict else text("conflict", "")
        return Node("change", (f"INSERT INTO {table.name} ({names}) ", rows, on, self.returning(table)))

    def upsert(self, table) -> Node:
        return self.insert(table, table.key_kind == "primary")

    def conflict(self, table) -> Node:
        """ON CONFLICT on the key."""
        target = f" ON CONFLICT ({', '.join(table.key)}) "
        rest = [c for c in table.columns if c[0] not in table.key]
        if not rest or self.rng.random() < 0.3:
            return text("conflict", target + "DO NOTHING")
        excluded = [(f"excluded.{c}", KINDS.get(k, k)) for c, k in table.columns]
        self.scopes = [self.bare(table) + excluded]
        chosen = self.rng.sample(rest, self.rng.randint(1, min(2, len(rest))))
        sets = tuple(Node("set", (f"{c} = ", self.expression(KINDS.get(k, k), 1))) for c, k in chosen)
        where = Node("where", (" WHERE ", self.expression("bool", 1)), optional=True) if self.rng.random() < 0.3 else text("where", "")
        return Node("conflict", (target + "DO UPDATE SET ", Many(sets), where))

    def condition(self, table) -> Node:
        self.scopes = [self.bare(table)]
        if self.rng.random() < 0.1:
            return text("where", "")
        if self.rng.random() < 0.35:
            key = table.key[0] if table.key else "id"
            kind = table.kind_of(key)
            operator = self.rng.choice(["=", "=", "<", ">=", "<>"])
            return Node("where", (f" WHERE {key} {operator} ", text(kind, constant(kind, self.rng, self.edge))))
        return Node("where", (" WHERE ", self.expression("bool", 2)))

    def update(self, table) -> Node:
        self.scopes = [self.bare(table)]
        chosen = self.rng.sample(table.columns, self.rng.randint(1, 2))
        sets = []
        for column, kind in chosen:
            if column == "id" and self.rng.random() < 0.7:
                value = text("int", "id + 100")
            else:
                value = self.expression(KINDS.get(kind, kind), 1)
            sets.append(Node("set", (f"{column} = ", value)))
        return Node("change", (f"UPDATE {table.name} SET ", Many(tuple(sets)), self.condition(table), self.returning(table)))

    def delete(self, table) -> Node:
        return Node("change", (f"DELETE FROM {table.name}", self.condition(table), self.returning(table)))

    def with_query(self, table) -> Node:
        """A change with a query before it."""
        name = self.alias("cte")
        self.scopes = [[]]
        body = self.query(["int"], 1, correlated=False)
        where = Node("where", (f" WHERE {table.name}.id {self.rng.choice(['IN', 'NOT IN'])} (SELECT x0 FROM {name})",))
        change = f"DELETE FROM {table.name}" if self.rng.random() < 0.5 else f"UPDATE {table.name} SET {table.columns[-1][0]} = NULL"
        return Node("change", (f"WITH {name}(x0) AS (", body, f") {change}", where, self.returning(table)))
