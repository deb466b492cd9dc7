package omendb;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Transactions by SQL: the driver's setAutoCommit, commit and rollback do nothing. */
class TransactionsTest extends Jdbc {
  private String table;
  private Connection other;

  @BeforeEach
  void table() throws SQLException {
    table = name("transactions");
    update("CREATE TABLE " + table + " (id BIGINT PRIMARY KEY, v BIGINT)");
    update("INSERT INTO " + table + " VALUES (1, 10), (2, 20)");
    other = open();
  }

  @AfterEach
  void close() throws SQLException {
    other.close();
  }

  private long sum(Connection connection) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery("SELECT sum(v) FROM " + table)) {
      rows.next();
      return rows.getLong(1);
    }
  }

  @Test
  void theServerHasThem() throws SQLException {
    assertTrue(connection.getMetaData().supportsTransactions());
    assertTrue(connection.getMetaData().supportsTransactionIsolationLevel(Connection.TRANSACTION_REPEATABLE_READ));
  }

  @Test
  void aCommitShowsAllAtOnce() throws SQLException {
    assertEquals(0, update("BEGIN"));
    assertEquals(2, update("UPDATE " + table + " SET v = v + 1"));
    assertEquals(1, update("INSERT INTO " + table + " VALUES (3, 30)"));
    assertEquals(62, sum(connection), "a transaction sees its own writes");
    assertEquals(30, sum(other), "and nobody else does");
    assertEquals(0, update("COMMIT"));
    assertEquals(62, sum(other));
  }

  @Test
  void aRollbackLeavesNothing() throws SQLException {
    String made = name("made");
    try (Statement statement = connection.createStatement()) {
      statement.execute("BEGIN");
      statement.execute("CREATE TABLE " + made + " (id BIGINT)");
      statement.execute("INSERT INTO " + made + " VALUES (1)");
      statement.execute("DELETE FROM " + table);
      assertEquals(2, statement.executeLargeUpdate("INSERT INTO " + table + " VALUES (8, 1), (9, 2)"));
      statement.execute("ROLLBACK");
    }
    assertEquals(30, sum(connection));
    assertThrows(SQLException.class, () -> query("SELECT * FROM " + made));
  }

  @Test
  void preparedStatementsAndBatches() throws SQLException {
    try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?, ?)");
        PreparedStatement select = connection.prepareStatement("SELECT v FROM " + table + " WHERE id = ?")) {
      for (String end : List.of("ROLLBACK", "COMMIT")) {
        update("BEGIN");
        for (long id = 100; id < 200; id++) {
          insert.setLong(1, id);
          insert.setLong(2, 0);
          insert.addBatch();
        }
        assertArrayEquals(new int[] {100}, insert.executeBatch());
        select.setLong(1, 150);
        assertEquals(1, rows(select.executeQuery()).size());
        update(end);
        assertEquals(end.equals("COMMIT") ? 1 : 0, rows(select.executeQuery()).size(), end);
      }
    }
  }

  @Test
  void savepoints() throws SQLException {
    update("BEGIN");
    update("UPDATE " + table + " SET v = 0 WHERE id = 1");
    update("SAVEPOINT here");
    update("UPDATE " + table + " SET v = 0 WHERE id = 2");
    update("ROLLBACK TO SAVEPOINT here");
    update("COMMIT");
    assertEquals(20, sum(other));
  }

  @Test
  void theSecondToCommitIsToldToRetry() throws SQLException {
    try (Statement second = other.createStatement()) {
      update("BEGIN");
      second.execute("BEGIN");
      update("UPDATE " + table + " SET v = 1 WHERE id = 1");
      second.execute("UPDATE " + table + " SET v = 2 WHERE id = 1");
      update("COMMIT");
      SQLException e = assertThrows(SQLException.class, () -> second.execute("COMMIT"));
      // Flight in Java has no ABORTED: it arrives as INTERNAL, with the server's text.
      assertTrue(e.getMessage().contains("retry"), e.getMessage());
    }
    assertEquals(21, sum(other));
  }

  @Test
  void afterAFailedChangeOnlyARollbackIsTaken() throws SQLException {
    update("BEGIN");
    update("UPDATE " + table + " SET v = 0");
    assertThrows(SQLException.class, () -> update("INSERT INTO " + table + " VALUES (1, 1)"));
    SQLException e = assertThrows(SQLException.class, () -> query("SELECT 1"));
    assertTrue(e.getMessage().contains("ROLLBACK"), e.getMessage());
    update("ROLLBACK");
    assertEquals(30, sum(connection));
  }

  @Test
  void aConnectionThatIsClosedRollsBack() throws SQLException {
    try (Connection third = open(); Statement statement = third.createStatement()) {
      statement.execute("BEGIN");
      statement.execute("DELETE FROM " + table);
    }
    assertEquals(30, sum(connection));
  }

  /** What a program must know that relies on setAutoCommit. */
  @Test
  void theDriversOwnCommitAndRollbackDoNothing() throws SQLException {
    connection.setAutoCommit(false);
    update("UPDATE " + table + " SET v = 5");
    connection.rollback();
    assertEquals(10, sum(other), "each statement has committed by itself");
    connection.commit();
  }
}
