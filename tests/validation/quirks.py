"""What the validation suite must know of OmenDB and of the ADBC Flight SQL driver."""

import pathlib
import re

from adbc_drivers_validation import model

HERE = pathlib.Path(__file__).parent

# A literal with more than six digits of a second.
FINE = re.compile(r"TIMESTAMP( WITH TIME ZONE)? ('[^']*\.\d{7,9}(?:\+00)?')")
# A piece of a statement up to the end of the line, a comment at the end of it left out; texts may hold anything.
LINE = re.compile(r"((?:[^'\n-]|'[^']*'|-(?!-))*)(?:--[^\n]*)?\n?")


class OmenDB(model.DriverQuirks):
    """OmenDB at a place that the fixtures fill in."""

    name = "omendb"
    driver = "flightsql"
    driver_name = "ADBC Flight SQL Driver - Go"
    vendor_name = "OmenDB"
    vendor_version = re.compile(r"^\d+\.\d+\.\d+")
    short_version = "0.1"
    # Not said, since there is none: temporary tables, another catalog, statistics. The driver asks for no keys and no nullability.
    features = model.DriverFeatures(
        connection_get_table_schema=True,
        connection_set_current_schema=True,
        connection_transactions=True,
        get_objects=True,
        statement_bind=True,
        statement_bulk_ingest=True,
        statement_bulk_ingest_schema=True,
        statement_execute_schema=True,
        statement_get_parameter_schema=True,
        statement_prepare=True,
        statement_rows_affected=True,
        current_catalog="omendb",
        current_schema="public",
        secondary_schema="other",
        # There is one catalog: that loads and schemas can name it is tested with it.
        statement_bulk_ingest_catalog=True,
        secondary_catalog="omendb",
        secondary_catalog_schema="other",
        # What the makers of the suite ask of drivers of their own.
        quirk_foundry=False,
    )
    setup = model.DriverSetup()

    @property
    def queries_paths(self) -> tuple[pathlib.Path]:
        return (HERE / "queries",)

    def is_table_not_found(self, table_name, error) -> bool:
        return "does not exist" in str(error) and (table_name is None or table_name in str(error))

    def split_statement(self, statement: str) -> list[str]:
        """One statement at a time. TIMESTAMP without a precision has six digits, as in PostgreSQL: finer literals say theirs."""
        lines = [match[1].rstrip() for match in LINE.finditer(statement)]
        statements = [s.strip() for s in re.split(r";$", "\n".join(lines), flags=re.M)]
        return [FINE.sub(r"TIMESTAMP(9)\1 \2", s) for s in statements if s]


QUIRKS = [OmenDB()]
