"""SQLAlchemy through sqlalchemy-adbc: Core and ORM, as its documentation shows databases used."""

import datetime

import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


@pytest.fixture
def engine(server):
    engine = sa.create_engine(f"adbc+flightsql://127.0.0.1:{server.port}?tls=false")
    yield engine
    engine.dispose()


@pytest.fixture
def readings(engine, table):
    """A table made by SQLAlchemy. Keys are given, not generated: autoincrement=False. The dialect makes no TIMESTAMPTZ."""
    readings = sa.Table(
        table, sa.MetaData(),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("at", sa.TIMESTAMP),
        sa.Column("value", sa.Double),
    )
    readings.metadata.create_all(engine)
    return readings


def test_core(engine, readings):
    at = datetime.datetime(2024, 5, 1, 12, 30)
    with engine.begin() as con:
        inserted = con.execute(sa.insert(readings), [{"id": i, "name": f"n{i}", "at": at, "value": i / 2} for i in range(10)])
        assert inserted.rowcount == 10
        assert con.execute(sa.insert(readings).values(id=10, name="ten")).rowcount == 1
        assert con.execute(sa.update(readings).where(readings.c.id > 7).values(value=None)).rowcount == 3
        assert con.execute(sa.delete(readings).where(readings.c.id == 0)).rowcount == 1
    query = (
        sa.select(readings.c.id, sa.func.upper(readings.c.name), readings.c.at)
        .where(readings.c.id.in_([1, 2, 10]), readings.c.name.like("n%"))
        .order_by(readings.c.id.desc()).limit(1).offset(1)
    )
    with engine.connect() as con:
        assert con.execute(query).all() == [(1, "N1", at)]
        assert con.execute(sa.text(f"SELECT count(value) FROM {readings.name} WHERE id < :below"), {"below": 5}).scalar() == 4


def test_rollback(engine, readings):
    with engine.begin() as con:
        con.execute(sa.insert(readings).values(id=1, name="stays"))
    with engine.connect() as con:
        con.execute(sa.insert(readings).values(id=2, name="goes"))
        assert con.execute(sa.select(sa.func.count()).select_from(readings)).scalar() == 2
        con.rollback()
    with pytest.raises(RuntimeError), engine.begin() as con:
        con.execute(sa.delete(readings))
        raise RuntimeError
    with engine.connect() as con:
        assert con.execute(sa.select(readings.c.name)).scalars().all() == ["stays"]


def test_orm(engine, table):
    class Base(DeclarativeBase):
        pass

    class Device(Base):
        __tablename__ = table
        id: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
        name: Mapped[str] = mapped_column(sa.Text)

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Device(id=1, name="one"), Device(id=2, name="two")])
        session.commit()
        session.get(Device, 2).name = "second"
        session.delete(session.get(Device, 1))
        session.commit()
        assert session.scalars(sa.select(Device.name)).all() == ["second"]


def test_errors_reach_the_caller(engine, readings):
    with engine.begin() as con:
        con.execute(sa.insert(readings).values(id=1, name="a"))
    with pytest.raises(sa.exc.DBAPIError, match="already exists"), engine.begin() as con:
        con.execute(sa.insert(readings).values(id=1, name="b"))
    with pytest.raises(sa.exc.DBAPIError, match="no_such"), engine.connect() as con:
        con.execute(sa.text("SELECT * FROM no_such"))


def test_reflection(engine, readings):
    inspector = sa.inspect(engine)
    assert "public" in inspector.get_schema_names()
    assert inspector.has_table(readings.name) and not inspector.has_table("no_such")
    columns = {c["name"]: type(c["type"]) for c in inspector.get_columns(readings.name)}
    assert columns == {"id": sa.BigInteger, "name": sa.Text, "at": sa.DateTime, "value": sa.Float}
    reflected = sa.Table(readings.name, sa.MetaData(), autoload_with=engine)
    assert [c.name for c in reflected.columns] == ["id", "name", "at", "value"]


def test_pandas_reads_through_it(engine, readings):
    with engine.begin() as con:
        con.execute(sa.insert(readings), [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}])
    assert pd.read_sql(sa.select(readings).order_by(readings.c.id), engine)["name"].tolist() == ["a", "b"]
