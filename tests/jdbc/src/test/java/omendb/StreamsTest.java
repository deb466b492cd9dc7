package omendb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Large results, and results that are not read to their end. */
class StreamsTest extends Jdbc {
  /** Never ends in any time that a test would wait. */
  private static final String ENDLESS =
      "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b WHERE (a.value * b.value) % 7 = 3";
  private static final String LONG = "SELECT value, repeat('x', 100) AS text FROM generate_series(1, 3000000)";

  /** Three million rows, more than 300 MB, with less memory than that. */
  @Test
  void largeResultsAreStreamed() throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(LONG)) {
      long count = 0;
      long sum = 0;
      while (rows.next()) {
        count++;
        sum += rows.getLong(1);
      }
      assertEquals(3_000_000, count);
      assertEquals(3_000_000L * 3_000_001 / 2, sum);
    }
  }

  @Test
  void noRows() throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("SELECT 1 AS one WHERE false")) {
      assertEquals("one", rows.getMetaData().getColumnLabel(1));
      assertTrue(!rows.next());
    }
  }

  @Test
  void maxRows() throws SQLException {
    try (Statement statement = connection.createStatement()) {
      statement.setMaxRows(10);
      assertEquals(10, rows(statement.executeQuery(LONG)).size());
      statement.setMaxRows(0);
      assertEquals(11, rows(statement.executeQuery("SELECT value FROM generate_series(1, 11)")).size());
    }
  }

  @Test
  void resultsClosedHalfRead() throws SQLException {
    for (int round = 0; round < 5; round++) {
      try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(LONG)) {
        assertTrue(rows.next());
      }
    }
    assertEquals(1, number("SELECT 1"));
  }

  @Test
  void twoResultsAtOnce() throws SQLException {
    try (Statement one = connection.createStatement(); Statement two = connection.createStatement();
        ResultSet a = one.executeQuery("SELECT value FROM generate_series(1, 100000)");
        ResultSet b = two.executeQuery("SELECT value FROM generate_series(1, 100000)")) {
      for (int i = 1; i <= 100_000; i++) {
        assertTrue(a.next() && b.next());
        assertEquals(a.getLong(1), b.getLong(1));
      }
    }
  }

  @Test
  void cancel() throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(LONG)) {
      assertTrue(rows.next());
      statement.cancel();
      SQLException e = assertThrows(SQLException.class, rows::next);
      assertTrue(e.getMessage().contains("cancel"), e.getMessage());
    }
    assertEquals(1, number("SELECT 1"));
  }

  /** The driver's own timeout is the time to the first rows. */
  @Test
  void queryTimeout() throws SQLException {
    Connection other = open();
    Statement statement = other.createStatement();
    // The driver does not tell the server that it has given up.
    statement.executeUpdate("SET statement_timeout = '5s'");
    statement.setQueryTimeout(1);
    SQLException e = assertThrows(SQLException.class, () -> statement.executeQuery(ENDLESS));
    assertTrue(e.getMessage().contains("timed out after 1 SECONDS"), e.getMessage());
    closeAfterDriverError(other);
    assertEquals(1, number("SELECT 1"));
  }

  /** The server's own timeout ends the query, whatever the driver does. */
  @Test
  void statementTimeoutOfTheServer() throws SQLException {
    update("SET statement_timeout = '200ms'");
    Exception e = assertThrows(Exception.class, () -> query(ENDLESS));
    assertTrue(e.getMessage().contains("statement_timeout"), e.getMessage());
    update("RESET statement_timeout");
    assertEquals(List.of(List.of(1L)), query("SELECT 1"));
  }
}
