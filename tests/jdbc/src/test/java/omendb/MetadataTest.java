package omendb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What DBeaver and its like ask of a database before they show it. */
class MetadataTest extends Jdbc {
  private DatabaseMetaData metadata;
  private String schema;

  @BeforeEach
  void tables() throws SQLException {
    metadata = connection.getMetaData();
    schema = name("meta");
    update("CREATE SCHEMA " + schema);
    update("CREATE TABLE " + schema + ".metrics (ts TIMESTAMPTZ, host TEXT, value DOUBLE, PRIMARY KEY (ts, host))");
    update("CREATE TABLE " + schema + ".a_b (id BIGINT) CLUSTER BY (id)");
    update("CREATE TABLE " + schema + ".axb (id BIGINT)");
    update("CREATE VIEW " + schema + ".recent AS SELECT ts, value FROM " + schema + ".metrics");
  }

  /** Tools call all of these when they connect; one that fails keeps some from connecting. */
  @Test
  void everythingWithoutArgumentsHasAnAnswer() throws Exception {
    List<String> failed = new ArrayList<>();
    int called = 0;
    for (Method method : DatabaseMetaData.class.getMethods()) {
      if (method.getParameterCount() == 0) {
        called++;
        try {
          if (method.invoke(metadata) instanceof ResultSet rows) {
            rows(rows);
          }
        } catch (InvocationTargetException e) {
          failed.add(method.getName() + ": " + e.getCause());
        }
      }
    }
    assertEquals(List.of(), failed);
    assertTrue(called > 130, called + " methods");
  }

  @Test
  void theServerNamesItself() throws SQLException {
    assertEquals("OmenDB", metadata.getDatabaseProductName());
    assertTrue(metadata.getDatabaseProductVersion().matches("\\d+\\.\\d+\\.\\d+.*"));
    assertFalse(metadata.isReadOnly());
    assertEquals("\"", metadata.getIdentifierQuoteString());
    assertEquals("\\", metadata.getSearchStringEscape());
    assertEquals(List.of("catalog", "schema", "procedure"),
        List.of(metadata.getCatalogTerm(), metadata.getSchemaTerm(), metadata.getProcedureTerm()));
    assertTrue(metadata.isCatalogAtStart());
  }

  @Test
  void wordsAndFunctions() throws SQLException {
    assertTrue(words(metadata.getSQLKeywords()).containsAll(List.of("CLUSTER", "LIMIT", "OFFSET", "RETURNING", "SHOW")));
    assertTrue(words(metadata.getNumericFunctions()).containsAll(List.of("abs", "round", "sqrt")));
    assertTrue(words(metadata.getStringFunctions()).containsAll(List.of("lower", "substr", "trim")));
    assertTrue(words(metadata.getSystemFunctions()).contains("coalesce"));
    assertTrue(words(metadata.getTimeDateFunctions()).containsAll(List.of("date_trunc", "now")));
  }

  /** What the server says it has, it has: editors complete these names. */
  @Test
  void everyFunctionNamedExists() throws SQLException {
    List<String> missing = new ArrayList<>();
    for (String names : List.of(metadata.getNumericFunctions(), metadata.getStringFunctions(), metadata.getSystemFunctions(),
        metadata.getTimeDateFunctions())) {
      for (String function : words(names)) {
        try (Statement statement = connection.createStatement()) {
          statement.executeQuery("SELECT " + function + "()").close();
        } catch (SQLException e) {
          // Called without arguments most fail, but not because they are unknown.
          if (e.getMessage().toLowerCase().contains("invalid function")) {
            missing.add(function);
          }
        }
      }
    }
    assertEquals(List.of(), missing);
  }

  private static List<String> words(String list) {
    return Arrays.asList(list.split(", "));
  }

  @Test
  void whatIsSupported() throws SQLException {
    assertTrue(metadata.supportsFullOuterJoins());
    assertTrue(metadata.supportsLimitedOuterJoins());
    assertTrue(metadata.supportsOuterJoins());
    assertTrue(metadata.supportsUnionAll());
    assertTrue(metadata.supportsGroupBy());
    assertTrue(metadata.supportsSubqueriesInExists());
    assertTrue(metadata.supportsCorrelatedSubqueries());
    assertTrue(metadata.supportsBatchUpdates());
    assertTrue(metadata.supportsNonNullableColumns());
    assertTrue(metadata.supportsConvert(Types.INTEGER, Types.VARCHAR));
    assertFalse(metadata.supportsConvert(Types.DATE, Types.INTEGER));
    assertTrue(metadata.supportsResultSetType(ResultSet.TYPE_FORWARD_ONLY));
    assertFalse(metadata.supportsResultSetType(ResultSet.TYPE_SCROLL_SENSITIVE));
    assertFalse(metadata.supportsStoredProcedures());
    assertFalse(metadata.supportsSelectForUpdate());
    assertFalse(metadata.supportsPositionedUpdate());
    for (int level : List.of(Connection.TRANSACTION_NONE, Connection.TRANSACTION_READ_COMMITTED,
        Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_SERIALIZABLE)) {
      metadata.supportsTransactionIsolationLevel(level);
    }
    assertEquals(0, metadata.getMaxStatementLength());
    assertEquals(0, metadata.getMaxColumnsInTable());
  }

  @Test
  void catalogsSchemasAndTableTypes() throws SQLException {
    assertEquals(List.of("omendb"), column(metadata.getCatalogs(), "TABLE_CAT"));
    assertEquals(List.of("TABLE", "VIEW"), column(metadata.getTableTypes(), "TABLE_TYPE"));
    assertTrue(column(metadata.getSchemas(), "TABLE_SCHEM").containsAll(List.of("public", schema)));
    assertEquals(List.of(List.of(schema, "omendb")), rows(metadata.getSchemas("omendb", schema)));
    assertEquals(List.of(), rows(metadata.getSchemas("another", "%")));
  }

  @Test
  void tablesByPatternAndType() throws SQLException {
    assertEquals(List.of("a_b", "axb", "metrics", "recent"), tables("%", (String[]) null));
    assertEquals(List.of("a_b", "axb", "metrics", "recent"), tables(null, (String[]) null));
    assertEquals(List.of("a_b", "axb", "metrics"), tables("%", "TABLE"));
    assertEquals(List.of("recent"), tables("%", "VIEW"));
    assertEquals(List.of("a_b", "axb", "metrics", "recent"), tables("%", "TABLE", "VIEW", "SYSTEM TABLE"));
    assertEquals(List.of(), tables("%", "SYSTEM TABLE"));
    assertEquals(List.of("a_b", "axb"), tables("a_b", "TABLE"));
    assertEquals(List.of("a_b"), tables("a\\_b", "TABLE"));
    assertEquals(List.of(), tables("SELECT * FROM metrics WHERE host LIKE '%'", "TABLE"));
  }

  private List<Object> tables(String pattern, String... types) throws SQLException {
    return column(metadata.getTables("omendb", schema, pattern, types), "TABLE_NAME");
  }

  @Test
  void columns() throws SQLException {
    List<List<Object>> found = new ArrayList<>();
    try (ResultSet rows = metadata.getColumns("omendb", schema, "metrics", "%")) {
      while (rows.next()) {
        found.add(Arrays.asList(rows.getString("TABLE_CAT"), rows.getString("TABLE_SCHEM"), rows.getString("COLUMN_NAME"),
            rows.getInt("DATA_TYPE"), rows.getString("TYPE_NAME"), rows.getInt("COLUMN_SIZE"), rows.getInt("ORDINAL_POSITION"),
            rows.getString("IS_NULLABLE"), rows.getString("IS_AUTOINCREMENT")));
      }
    }
    assertEquals(
        List.of(
            List.of("omendb", schema, "ts", Types.TIMESTAMP_WITH_TIMEZONE, "TIMESTAMPTZ", 26, 1, "NO", "NO"),
            List.of("omendb", schema, "host", Types.VARCHAR, "TEXT", Integer.MAX_VALUE, 2, "NO", "NO"),
            List.of("omendb", schema, "value", Types.DOUBLE, "DOUBLE PRECISION", 15, 3, "YES", "NO")),
        found);
    assertEquals(List.of("value"), column(metadata.getColumns(null, schema, "metrics", "v%"), "COLUMN_NAME"));
    assertEquals(List.of("ts", "value"), column(metadata.getColumns(null, schema, "recent", null), "COLUMN_NAME"));
  }

  /** One column of a type that the driver does not know would break the listing of all tables. */
  @Test
  void columnsOfEveryType() throws SQLException {
    update("CREATE TABLE " + schema + ".kinds (o BOOLEAN, i1 TINYINT, i2 SMALLINT, i4 INT, i8 BIGINT, u1 TINYINT UNSIGNED, "
        + "u8 BIGINT UNSIGNED, f4 REAL, f8 DOUBLE, n NUMERIC(12, 3), t TEXT, b BYTEA, d DATE, tm TIME, tm0 TIME(0), "
        + "ts TIMESTAMP, ts9 TIMESTAMP(9), tz TIMESTAMPTZ, l BIGINT[], ll TEXT[][])");
    List<Integer> types = new ArrayList<>();
    try (ResultSet rows = metadata.getColumns(null, schema, "kinds", "%")) {
      while (rows.next()) {
        types.add(rows.getInt("DATA_TYPE"));
      }
    }
    assertEquals(
        List.of(Types.BOOLEAN, Types.TINYINT, Types.SMALLINT, Types.INTEGER, Types.BIGINT, Types.TINYINT, Types.BIGINT,
            Types.FLOAT, Types.DOUBLE, Types.DECIMAL, Types.VARCHAR, Types.VARBINARY, Types.DATE, Types.TIME, Types.TIME,
            Types.TIMESTAMP, Types.TIMESTAMP, Types.TIMESTAMP_WITH_TIMEZONE, Types.ARRAY, Types.ARRAY),
        types);
    try (ResultSet rows = metadata.getColumns(null, schema, "kinds", "n")) {
      assertTrue(rows.next());
      assertEquals(List.of("NUMERIC", 12, 3),
          List.of(rows.getString("TYPE_NAME"), rows.getInt("COLUMN_SIZE"), rows.getInt("DECIMAL_DIGITS")));
    }
  }

  @Test
  void keys() throws SQLException {
    try (ResultSet rows = metadata.getPrimaryKeys("omendb", schema, "metrics")) {
      List<List<Object>> found = new ArrayList<>();
      while (rows.next()) {
        found.add(List.of(rows.getString("COLUMN_NAME"), rows.getInt("KEY_SEQ"), rows.getString("PK_NAME")));
      }
      assertEquals(List.of(List.of("ts", 1, "metrics_pkey"), List.of("host", 2, "metrics_pkey")), found);
    }
    assertEquals(List.of(), rows(metadata.getPrimaryKeys(null, schema, "a_b")), "a clustered key is no primary key");
    assertEquals(List.of(), rows(metadata.getImportedKeys("omendb", schema, "metrics")));
    assertEquals(List.of(), rows(metadata.getExportedKeys("omendb", schema, "metrics")));
    assertEquals(List.of(), rows(metadata.getCrossReference(null, schema, "metrics", null, schema, "a_b")));
  }

  /** The driver answers these itself, with no rows. */
  @Test
  void whatTheDriverKnowsNothingOf() throws SQLException {
    assertEquals(List.of(), rows(metadata.getIndexInfo("omendb", schema, "metrics", false, true)));
    assertEquals(List.of(), rows(metadata.getProcedures("omendb", schema, "%")));
    assertEquals(List.of(), rows(metadata.getProcedureColumns("omendb", schema, "%", "%")));
    assertEquals(List.of(), rows(metadata.getFunctions("omendb", schema, "%")));
    assertEquals(List.of(), rows(metadata.getFunctionColumns("omendb", schema, "%", "%")));
    assertEquals(List.of(), rows(metadata.getBestRowIdentifier("omendb", schema, "metrics", DatabaseMetaData.bestRowSession, true)));
    assertEquals(List.of(), rows(metadata.getVersionColumns("omendb", schema, "metrics")));
    assertEquals(List.of(), rows(metadata.getTablePrivileges("omendb", schema, "%")));
    assertEquals(List.of(), rows(metadata.getColumnPrivileges("omendb", schema, "metrics", "%")));
    assertEquals(List.of(), rows(metadata.getUDTs("omendb", schema, "%", null)));
    assertEquals(List.of(), rows(metadata.getTypeInfo()));
  }

  /** The names that DBeaver writes into the statements of its table editor. */
  @Test
  void namesWithCatalogAndSchema() throws SQLException {
    String table = "omendb." + schema + ".edited";
    assertEquals(0, update("CREATE TABLE " + table + " (id BIGINT NOT NULL, note TEXT, PRIMARY KEY (id))"));
    assertEquals(1, update("INSERT INTO " + table + " (id, note) VALUES (1, 'a')"));
    assertEquals(1, update("UPDATE " + table + " SET note = 'b' WHERE id = 1"));
    assertEquals(0, update("ALTER TABLE " + table + " ADD COLUMN more INT"));
    assertEquals(1, number("SELECT count(*) FROM \"omendb\".\"" + schema + "\".\"edited\" x WHERE x.note = 'b'"));
    assertEquals(1, update("DELETE FROM " + table + " WHERE id = 1"));
    assertEquals(0, update("DROP TABLE " + table));
  }
}
