package omendb;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;

/** What the tests share: a connection for each, table names, and rows as lists. */
abstract class Jdbc {
  private static final AtomicInteger NUMBERS = new AtomicInteger();

  /** A connection of the test's own. */
  protected Connection connection;

  @BeforeEach
  void connect() throws SQLException {
    connection = open();
  }

  @AfterEach
  void disconnect() throws SQLException {
    connection.close();
    if (!Server.shared().isAlive()) {
      throw new IllegalStateException("the server ended by itself");
    }
  }

  static Connection open(String... options) throws SQLException {
    return DriverManager.getConnection(Server.shared().url(options));
  }

  /** Closes a connection whose driver leaked: version 18.3 does after errors of its own, and says so here. */
  static void closeAfterDriverError(Connection connection) {
    try {
      connection.close();
    } catch (SQLException e) {
      if (!e.getMessage().contains("leaked") && !e.getMessage().contains("Failed to")) {
        throw new IllegalStateException(e);
      }
    }
  }

  /** A table name that no other test uses. */
  static String name(String prefix) {
    return prefix + "_" + NUMBERS.incrementAndGet();
  }

  /** Runs a statement as an update; the rows that it changed. */
  int update(String sql) throws SQLException {
    try (Statement statement = connection.createStatement()) {
      return statement.executeUpdate(sql);
    }
  }

  /** The rows of a query. */
  List<List<Object>> query(String sql) throws SQLException {
    try (Statement statement = connection.createStatement();
        ResultSet rows = statement.executeQuery(sql)) {
      return rows(rows);
    }
  }

  /** The one number of a query. */
  long number(String sql) throws SQLException {
    return ((Number) query(sql).get(0).get(0)).longValue();
  }

  /** All rows of a result, which is closed. */
  static List<List<Object>> rows(ResultSet rows) throws SQLException {
    try (rows) {
      List<List<Object>> all = new ArrayList<>();
      while (rows.next()) {
        List<Object> row = new ArrayList<>();
        for (int column = 1; column <= rows.getMetaData().getColumnCount(); column++) {
          row.add(rows.getObject(column));
        }
        all.add(row);
      }
      return all;
    }
  }

  /** One column of all rows of a result, by its label; the result is closed. */
  static List<Object> column(ResultSet rows, String label) throws SQLException {
    try (rows) {
      List<Object> all = new ArrayList<>();
      while (rows.next()) {
        all.add(rows.getObject(label));
      }
      return all;
    }
  }
}
