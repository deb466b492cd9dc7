package omendb;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Statements that change something run once, whichever call they came by, and say what they changed. */
class UpdatesTest extends Jdbc {
  private String table;

  @BeforeEach
  void table() throws SQLException {
    table = name("updates");
    update("CREATE TABLE " + table + " (id BIGINT PRIMARY KEY, note TEXT)");
  }

  @Test
  void countsOfExecuteUpdate() throws SQLException {
    assertEquals(3, update("INSERT INTO " + table + " VALUES (1, 'a'), (2, 'b'), (3, 'c')"));
    assertEquals(2, update("UPDATE " + table + " SET note = 'x' WHERE id > 1"));
    assertEquals(0, update("UPDATE " + table + " SET note = 'x' WHERE id > 100"));
    assertEquals(2, update("INSERT INTO " + table + " VALUES (3, 'd'), (4, 'e') ON CONFLICT (id) DO UPDATE SET note = excluded.note"));
    assertEquals(0, update("INSERT INTO " + table + " VALUES (4, 'f') ON CONFLICT DO NOTHING"));
    assertEquals(1, update("DELETE FROM " + table + " WHERE id = 1"));
    assertEquals(3, number("SELECT count(*) FROM " + table));
  }

  /** Editors send everything through execute. */
  @Test
  void countsOfExecute() throws SQLException {
    try (Statement statement = connection.createStatement()) {
      assertFalse(statement.execute("INSERT INTO " + table + " VALUES (1, 'a'), (2, 'b')"));
      assertEquals(2, statement.getUpdateCount());
      assertFalse(statement.getMoreResults());
      assertEquals(-1, statement.getUpdateCount());
      assertFalse(statement.execute("DELETE FROM " + table + " WHERE id = 77"));
      assertEquals(0, statement.getUpdateCount());
      assertTrue(statement.execute("SELECT * FROM " + table));
      assertEquals(-1, statement.getUpdateCount());
      assertEquals(2, rows(statement.getResultSet()).size());
    }
  }

  /** Definitions have no count; a server that said -1 would see them twice. */
  @Test
  void definitionsRunOnce() throws SQLException {
    String other = name("defined");
    try (Statement statement = connection.createStatement()) {
      for (String sql : List.of("CREATE TABLE " + other + " (id BIGINT)", "CREATE VIEW " + other + "_v AS SELECT id FROM " + other,
          "ALTER TABLE " + other + " ADD COLUMN more TEXT", "TRUNCATE TABLE " + other, "DROP VIEW " + other + "_v",
          "DROP TABLE " + other)) {
        assertFalse(statement.execute(sql), sql);
        assertEquals(0, statement.getUpdateCount(), sql);
      }
      assertEquals(0, statement.executeLargeUpdate("CREATE SCHEMA " + other));
    }
  }

  @Test
  void aDefinitionAsAPreparedStatement() throws SQLException {
    String other = name("defined");
    try (PreparedStatement statement = connection.prepareStatement("CREATE TABLE " + other + " (id BIGINT)")) {
      assertEquals(0, statement.executeUpdate());
    }
    assertEquals(0, number("SELECT count(*) FROM " + other));
  }

  @Test
  void preparedStatementsAgainAndAgain() throws SQLException {
    try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?, ?)")) {
      for (int id = 0; id < 20; id++) {
        insert.setLong(1, id);
        insert.setString(2, "n" + id);
        assertEquals(1, insert.executeUpdate());
      }
    }
    try (PreparedStatement change = connection.prepareStatement("UPDATE " + table + " SET note = ? WHERE id BETWEEN ? AND ?")) {
      change.setString(1, "many");
      change.setLong(2, 5);
      change.setLong(3, 9);
      assertEquals(5, change.executeUpdate());
    }
    assertEquals(5, number("SELECT count(*) FROM " + table + " WHERE note = 'many'"));
  }

  /** The driver takes a prepared change for a query there, and asks for its rows: it still runs once. */
  @Test
  void executeOfAPreparedChangeRunsOnce() throws SQLException {
    try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?, 'once')")) {
      insert.setLong(1, 1);
      insert.execute();
      insert.setLong(1, 2);
      insert.execute();
    }
    assertEquals(2, number("SELECT count(*) FROM " + table));
  }

  /** One message with all rows, one transaction; the driver makes one total of the counts. */
  @Test
  void batches() throws SQLException {
    try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?, ?)")) {
      for (int id = 0; id < 1000; id++) {
        insert.setLong(1, id);
        insert.setString(2, id % 10 == 0 ? null : "n" + id);
        insert.addBatch();
      }
      assertArrayEquals(new int[] {1000}, insert.executeBatch());
      assertEquals(100, number("SELECT count(*) FROM " + table + " WHERE note IS NULL"));
      for (int id = 2000; id > 998; id--) {
        insert.setLong(1, id);
        insert.setString(2, "again");
        insert.addBatch();
      }
      SQLException e = assertThrows(SQLException.class, insert::executeBatch);
      assertTrue(e.getMessage().contains("already exists"), e.getMessage());
    }
    assertEquals(1000, number("SELECT count(*) FROM " + table), "a batch that fails leaves nothing");
  }

  @Test
  void returningRows() throws SQLException {
    assertEquals(List.of(List.of(1L, "a"), List.of(2L, "b")),
        query("INSERT INTO " + table + " VALUES (1, 'a'), (2, 'b') RETURNING id, note"));
    try (PreparedStatement delete = connection.prepareStatement("DELETE FROM " + table + " WHERE id = ? RETURNING note")) {
      delete.setLong(1, 2);
      assertEquals(List.of(List.of("b")), rows(delete.executeQuery()));
    }
    try (Statement statement = connection.createStatement()) {
      assertTrue(statement.execute("UPDATE " + table + " SET note = 'z' RETURNING id"));
      try (ResultSet rows = statement.getResultSet()) {
        assertTrue(rows.next());
        assertFalse(rows.next());
      }
    }
    assertEquals(1, number("SELECT count(*) FROM " + table));
  }
}
