package omendb;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.Date;
import java.sql.ParameterMetaData;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Time;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Values bound to prepared statements arrive as they were given. */
class ParametersTest extends Jdbc {
  private static final List<String> COLUMNS =
      List.of("t", "n", "d", "tm", "ts", "ts9", "tz", "b", "f4", "f8", "o", "i1", "i2", "i4", "u8");
  private String table;

  @BeforeEach
  void table() throws SQLException {
    table = name("parameters");
    update("CREATE TABLE " + table + " (id BIGINT PRIMARY KEY, t TEXT, n DECIMAL(10, 2), d DATE, tm TIME, ts TIMESTAMP, "
        + "ts9 TIMESTAMP(9), tz TIMESTAMPTZ, b BYTEA, f4 REAL, f8 DOUBLE, o BOOLEAN, i1 TINYINT, i2 SMALLINT, i4 INT, "
        + "u8 BIGINT UNSIGNED)");
  }

  private String insert() {
    return "INSERT INTO " + table + " (id, " + String.join(", ", COLUMNS) + ") VALUES (?" + ", ?".repeat(COLUMNS.size()) + ")";
  }

  @Test
  void everyType() throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement(insert())) {
      statement.setLong(1, Long.MIN_VALUE);
      statement.setString(2, "Grüße, 世界 '\"\\");
      statement.setBigDecimal(3, new BigDecimal("-12345678.90"));
      statement.setDate(4, Date.valueOf("1969-12-31"));
      statement.setTime(5, Time.valueOf("23:59:58"));
      statement.setTimestamp(6, Timestamp.valueOf("1969-12-31 23:59:59.5"));
      statement.setTimestamp(7, Timestamp.valueOf("2024-05-06 07:08:09.123"));
      statement.setTimestamp(8, Timestamp.valueOf("2038-01-19 03:14:08"));
      statement.setBytes(9, new byte[] {0, -1, 127});
      statement.setFloat(10, 1.25f);
      statement.setDouble(11, -1e300);
      statement.setBoolean(12, true);
      statement.setByte(13, (byte) -128);
      statement.setShort(14, (short) -32768);
      statement.setInt(15, Integer.MIN_VALUE);
      statement.setLong(16, Long.MAX_VALUE);
      assertEquals(1, statement.executeUpdate());
    }
    // As text, so that the reading of the driver proves nothing of its writing.
    String text = String.join(", ", COLUMNS.stream().filter(c -> !c.equals("b")).map(c -> "CAST(" + c + " AS TEXT)").toList());
    assertEquals(
        List.of("Grüße, 世界 '\"\\", "-12345678.90", "1969-12-31", "23:59:58", "1969-12-31 23:59:59.5",
            "2024-05-06 07:08:09.123", "2038-01-19 03:14:08+00", "1.25", "-1e300", "true", "-128", "-32768", "-2147483648",
            "9223372036854775807"),
        query("SELECT " + text + " FROM " + table).get(0));
    assertArrayEquals(new byte[] {0, -1, 127}, (byte[]) query("SELECT b FROM " + table).get(0).get(0));
  }

  @Test
  void nullOfEveryType() throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement(insert())) {
      ParameterMetaData parameters = statement.getParameterMetaData();
      statement.setLong(1, 1);
      for (int i = 2; i <= COLUMNS.size() + 1; i++) {
        statement.setNull(i, parameters.getParameterType(i));
      }
      assertEquals(1, statement.executeUpdate());
      statement.setLong(1, 2);
      for (int i = 2; i <= COLUMNS.size() + 1; i++) {
        statement.setNull(i, Types.NULL);
      }
      assertEquals(1, statement.executeUpdate());
    }
    String nulls = String.join(" AND ", COLUMNS.stream().map(c -> c + " IS NULL").toList());
    assertEquals(2, number("SELECT count(*) FROM " + table + " WHERE " + nulls));
  }

  @Test
  void theServerTellsCountAndTypes() throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement(insert())) {
      ParameterMetaData parameters = statement.getParameterMetaData();
      assertEquals(COLUMNS.size() + 1, parameters.getParameterCount());
      int[] types = new int[COLUMNS.size() + 1];
      Arrays.setAll(types, i -> {
        try {
          return parameters.getParameterType(i + 1);
        } catch (SQLException e) {
          throw new IllegalStateException(e);
        }
      });
      assertArrayEquals(
          new int[] {Types.BIGINT, Types.VARCHAR, Types.DECIMAL, Types.DATE, Types.TIME, Types.TIMESTAMP, Types.TIMESTAMP,
              Types.TIMESTAMP_WITH_TIMEZONE, Types.VARBINARY, Types.FLOAT, Types.DOUBLE, Types.BOOLEAN, Types.TINYINT,
              Types.SMALLINT, Types.INTEGER, Types.BIGINT},
          types);
    }
  }

  /** The same statement with one value after another, also of a narrower type than the column's. */
  @Test
  void inConditionsAndAgain() throws SQLException {
    update("INSERT INTO " + table + " (id, ts, d, n) VALUES (1, '2024-05-06 07:08:09.5', '2024-05-06', 1.50), "
        + "(2, '2024-05-07 00:00:00', '2024-05-07', 2.50)");
    try (PreparedStatement statement = connection.prepareStatement("SELECT id FROM " + table + " WHERE id = ?")) {
      statement.setInt(1, 1);
      assertEquals(List.of(List.of(1L)), rows(statement.executeQuery()));
      statement.setShort(1, (short) 2);
      assertEquals(List.of(List.of(2L)), rows(statement.executeQuery()));
      statement.setLong(1, 3);
      assertEquals(List.of(), rows(statement.executeQuery()));
    }
    String sql = "SELECT id FROM " + table + " WHERE ts >= ? AND d <= ? AND n = ? ORDER BY id LIMIT ? OFFSET ?";
    try (PreparedStatement statement = connection.prepareStatement(sql)) {
      statement.setTimestamp(1, Timestamp.valueOf("2024-05-06 07:08:09.5"));
      statement.setDate(2, Date.valueOf("2024-05-06"));
      statement.setBigDecimal(3, new BigDecimal("1.50"));
      statement.setLong(4, 10);
      statement.setLong(5, 0);
      assertEquals(List.of(List.of(1L)), rows(statement.executeQuery()));
    }
  }

  /** A parameter without a type to go by is text; a cast gives it one. */
  @Test
  void withoutAColumn() throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement("SELECT ? AS a, CAST(? AS INT) AS b, ? + 1 AS c")) {
      statement.setString(1, "text");
      statement.setInt(2, 7);
      statement.setLong(3, 41);
      assertEquals(List.of(List.of("text", 7, 42L)), rows(statement.executeQuery()));
    }
  }

  @Test
  void aValueThatDoesNotFitIsAnError() throws SQLException {
    Connection other = open();
    try (PreparedStatement statement = other.prepareStatement("INSERT INTO " + table + " (id, n) VALUES (1, ?)")) {
      // The driver wants the column's own scale.
      statement.setBigDecimal(1, new BigDecimal("1.5"));
      SQLException e = assertThrows(SQLException.class, statement::executeUpdate);
      assertTrue(e.getMessage().contains("scale"), e.getMessage());
      statement.setBigDecimal(1, new BigDecimal("1.5").setScale(2));
      assertEquals(1, statement.executeUpdate());
    }
    closeAfterDriverError(other);
    assertEquals(1, number("SELECT count(*) FROM " + table));
  }

  @Test
  void unboundParametersAreAnError() throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement("DELETE FROM " + table + " WHERE id = ?")) {
      assertThrows(Exception.class, statement::executeUpdate);
    }
  }

  @Test
  void readBack() throws SQLException {
    update("INSERT INTO " + table + " (id, t) VALUES (1, NULL)");
    try (PreparedStatement statement = connection.prepareStatement("SELECT t, i4, o FROM " + table + " WHERE id = ?")) {
      statement.setLong(1, 1);
      try (ResultSet rows = statement.executeQuery()) {
        assertTrue(rows.next());
        assertNull(rows.getString(1));
        assertEquals(0, rows.getInt(2));
        assertTrue(rows.wasNull());
        rows.getBoolean("o");
        assertTrue(rows.wasNull());
      }
    }
  }
}
