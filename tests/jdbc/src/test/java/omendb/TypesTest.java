package omendb;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.math.BigDecimal;
import java.sql.Array;
import java.sql.Date;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Time;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.util.Arrays;
import java.util.List;
import java.util.TimeZone;
import org.junit.jupiter.api.Test;

/** Columns of every type as Java sees them. */
class TypesTest extends Jdbc {
  /** Runs what reads the first row of a query. */
  private void first(String sql, Reader reader) throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
      assertTrue(rows.next());
      reader.read(rows);
    }
  }

  private interface Reader {
    void read(ResultSet rows) throws SQLException;
  }

  @Test
  void numbers() throws SQLException {
    first("SELECT CAST(-128 AS TINYINT), CAST(-32768 AS SMALLINT), CAST(-2147483648 AS INT), -9223372036854775808, "
        + "CAST(1.5 AS REAL), CAST(-2.25 AS DOUBLE), CAST('12345678901234567890.123' AS DECIMAL(38, 3)), "
        + "CAST(255 AS TINYINT UNSIGNED), CAST(4294967295 AS INT UNSIGNED), "
        + "CAST('18446744073709551615' AS BIGINT UNSIGNED), true", rows -> {
      assertEquals((byte) -128, rows.getByte(1));
      assertEquals((short) -32768, rows.getShort(2));
      assertEquals(Integer.MIN_VALUE, rows.getInt(3));
      assertEquals(Long.MIN_VALUE, rows.getLong(4));
      assertEquals(1.5f, rows.getFloat(5));
      assertEquals(-2.25, rows.getDouble(6));
      assertEquals(new BigDecimal("12345678901234567890.123"), rows.getBigDecimal(7));
      assertEquals(255, rows.getInt(8));
      assertEquals(4294967295L, rows.getLong(9));
      assertEquals(new BigDecimal("18446744073709551615"), rows.getObject(10));
      assertTrue(rows.getBoolean(11));
      assertEquals("-128 -32768 12345678901234567890.123", rows.getString(1) + " " + rows.getString(2) + " " + rows.getString(7));
    });
  }

  @Test
  void textAndBinary() throws SQLException {
    first("SELECT 'Grüße, 世界', '', X'00ff10', arrow_cast('view', 'Utf8View'), arrow_cast('large', 'LargeUtf8'), "
        + "arrow_cast('dictionary', 'Dictionary(Int32, Utf8)')", rows -> {
      assertEquals("Grüße, 世界", rows.getString(1));
      assertEquals("", rows.getString(2));
      assertArrayEquals(new byte[] {0, -1, 16}, rows.getBytes(3));
      assertEquals("view", rows.getString(4));
      assertEquals("large", rows.getString(5));
      assertEquals("dictionary", rows.getString(6));
    });
  }

  @Test
  void datesAndTimes() throws SQLException {
    first("SELECT DATE '1969-12-31', TIME '23:59:58.123456', TIMESTAMP '2024-05-06 07:08:09.123456', "
        + "TIMESTAMPTZ '2024-05-06 07:08:09.123456+02', CAST('2024-05-06 07:08:09.123456789' AS TIMESTAMP(9)), "
        + "CAST('2024-05-06 07:08:09' AS TIMESTAMP(0))", rows -> {
      assertEquals(Date.valueOf("1969-12-31"), rows.getDate(1));
      assertEquals(LocalDate.of(1969, 12, 31), rows.getObject(1, LocalDate.class));
      assertEquals(Time.valueOf("23:59:58").getTime() + 123, rows.getTime(2).getTime());
      assertEquals(Timestamp.valueOf("2024-05-06 07:08:09.123456"), rows.getTimestamp(3));
      assertEquals(LocalDateTime.parse("2024-05-06T07:08:09.123456"), rows.getObject(3, LocalDateTime.class));
      assertEquals(Instant.parse("2024-05-06T05:08:09.123456Z"), rows.getTimestamp(4).toInstant());
      assertEquals(Instant.parse("2024-05-06T05:08:09.123456Z"), rows.getObject(4, Instant.class));
      assertEquals(Timestamp.valueOf("2024-05-06 07:08:09.123456789"), rows.getTimestamp(5));
      assertEquals(Timestamp.valueOf("2024-05-06 07:08:09"), rows.getTimestamp(6));
    });
  }

  /** The classes of java.time do not depend on the zone of the machine, as those of java.sql do. */
  @Test
  void timesInAnotherZone() throws SQLException {
    TimeZone before = TimeZone.getDefault();
    TimeZone.setDefault(TimeZone.getTimeZone("America/New_York"));
    try {
      first("SELECT TIMESTAMPTZ '2024-07-01 12:00:00+00', TIMESTAMP '2024-07-01 12:00:00', DATE '2024-07-01'", rows -> {
        assertEquals(Instant.parse("2024-07-01T12:00:00Z"), rows.getObject(1, Instant.class));
        assertEquals(OffsetDateTime.parse("2024-07-01T12:00:00Z"), rows.getObject(1, OffsetDateTime.class));
        assertEquals(LocalDateTime.parse("2024-07-01T12:00:00"), rows.getObject(2, LocalDateTime.class));
        assertEquals(LocalDate.of(2024, 7, 1), rows.getObject(3, LocalDate.class));
      });
    } finally {
      TimeZone.setDefault(before);
    }
  }

  @Test
  void nulls() throws SQLException {
    List<String> types = List.of("BOOLEAN", "TINYINT", "SMALLINT", "INT", "BIGINT", "REAL", "DOUBLE", "DECIMAL(10, 2)", "TEXT",
        "BYTEA", "DATE", "TIME", "TIMESTAMP", "BIGINT[]");
    String nulls = String.join(", ", types.stream().map(type -> "CAST(NULL AS " + type + ") AS \"" + type + "\"").toList());
    first("SELECT " + nulls + ", NULL AS untyped", rows -> {
      for (int column = 1; column <= types.size() + 1; column++) {
        assertNull(rows.getObject(column), "column " + column);
        assertTrue(rows.wasNull());
      }
      assertEquals(0, rows.getInt(4));
      assertTrue(rows.wasNull());
    });
  }

  @Test
  void lists() throws SQLException {
    first("SELECT [1, 2, NULL], ['a', 'b'], arrow_cast([1], 'LargeList(Int64)'), [[1], [2, 3]]", rows -> {
      assertEquals(Arrays.asList(1L, 2L, null), Arrays.asList((Object[]) rows.getArray(1).getArray()));
      assertEquals(List.of("a", "b"), Arrays.stream((Object[]) rows.getArray(2).getArray()).map(Object::toString).toList());
      assertEquals(List.of(1L), Arrays.asList((Object[]) rows.getArray(3).getArray()));
      Array nested = rows.getArray(4);
      assertEquals(2, ((Object[]) nested.getArray()).length);
    });
  }

  /** Types that the driver does not know leave the server as ones that it does. */
  @Test
  void typesThatTheDriverDoesNotKnow() throws SQLException {
    first("SELECT arrow_cast(1.5, 'Float16'), arrow_cast([1, 2], 'ListView(Int64)'), arrow_cast('x', 'BinaryView'), "
        + "arrow_cast(1.25, 'Decimal32(5, 2)'), arrow_cast(1.25, 'Decimal64(5, 2)')", rows -> {
      assertEquals(1.5f, rows.getFloat(1));
      assertEquals(List.of(1L, 2L), Arrays.asList((Object[]) rows.getArray(2).getArray()));
      assertArrayEquals(new byte[] {'x'}, rows.getBytes(3));
      assertEquals(new BigDecimal("1.25"), rows.getBigDecimal(4));
      assertEquals(new BigDecimal("1.25"), rows.getBigDecimal(5));
    });
  }

  @Test
  void intervalsAndStructs() throws SQLException {
    first("SELECT INTERVAL '1 month 2 days', named_struct('a', 1, 'b', 'x')", rows -> {
      assertTrue(rows.getString(1).length() > 0);
      assertTrue(rows.getObject(2).toString().contains("x"));
    });
  }

  @Test
  void columnsOfAResult() throws SQLException {
    String table = name("types");
    update("CREATE TABLE " + table + " (id BIGINT PRIMARY KEY, price NUMERIC(12, 3), \"Odd Name\" TEXT, tz TIMESTAMPTZ)");
    // Driver 18.3 tells the columns of a result without rows twice over.
    update("INSERT INTO " + table + " (id) VALUES (1)");
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT *, price * 2 AS twice FROM " + table)) {
      ResultSetMetaData columns = rows.getMetaData();
      assertEquals(5, columns.getColumnCount());
      assertEquals(List.of("id", "price", "Odd Name", "tz", "twice"),
          List.of(columns.getColumnName(1), columns.getColumnLabel(2), columns.getColumnLabel(3), columns.getColumnName(4),
              columns.getColumnLabel(5)));
      assertEquals(List.of(Types.BIGINT, Types.DECIMAL, Types.VARCHAR, Types.TIMESTAMP_WITH_TIMEZONE),
          List.of(columns.getColumnType(1), columns.getColumnType(2), columns.getColumnType(3), columns.getColumnType(4)));
      assertEquals(List.of(12, 3), List.of(columns.getPrecision(2), columns.getScale(2)));
    }
  }
}
