package omendb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The server's words reach the caller. The driver has no SQLStates: it puts the status code of the call into the cause. */
class ErrorsTest extends Jdbc {
  @ParameterizedTest
  @CsvSource(delimiter = '|', value = {
      "SELEC 1 | INVALID_ARGUMENT | syntax error",
      "SELECT * FROM nowhere | NOT_FOUND | table public.nowhere does not exist",
      "SELECT nam FROM (SELECT 1 AS name) t | NOT_FOUND | did you mean name?",
      "SELECT 1/0 | INVALID_ARGUMENT | division by zero",
      "SELECT CAST('x' AS INT) | INVALID_ARGUMENT | cannot cast",
      "COPY t TO '/tmp/t.csv' | UNIMPLEMENTED | COPY",
      "CREATE TABLE t (a INT CHECK (a > 1)) | UNIMPLEMENTED | CHECK",
  })
  void texts(String sql, String code, String text) {
    SQLException e = assertThrows(SQLException.class, () -> query(sql));
    assertTrue(e.getMessage().contains(text), e.getMessage());
    assertTrue(e.getCause().toString().contains(code + ": "), e.getCause().toString());
  }

  @Test
  void constraints() throws SQLException {
    String table = name("errors");
    update("CREATE TABLE " + table + " (id BIGINT PRIMARY KEY, note TEXT NOT NULL)");
    update("INSERT INTO " + table + " VALUES (1, 'a')");
    SQLException twice = assertThrows(SQLException.class, () -> update("INSERT INTO " + table + " VALUES (1, 'b')"));
    assertTrue(twice.getMessage().contains("(\"id\") = (1) already exists"), twice.getMessage());
    SQLException missing = assertThrows(SQLException.class, () -> update("INSERT INTO " + table + " VALUES (2, NULL)"));
    assertTrue(missing.getMessage().contains("\"note\" is NOT NULL"), missing.getMessage());
    SQLException exists = assertThrows(SQLException.class, () -> update("CREATE TABLE " + table + " (id BIGINT)"));
    assertTrue(exists.getCause().toString().contains("ALREADY_EXISTS"), exists.getCause().toString());
    assertEquals(1, number("SELECT count(*) FROM " + table));
  }

  @Test
  void aStatementThatCannotBePrepared() {
    Exception e = assertThrows(Exception.class, () -> connection.prepareStatement("SELECT * FROM nowhere WHERE id = ?"));
    assertTrue(e.getMessage().contains("nowhere"), e.getMessage());
  }

  /** An error in the midst of a stream ends it with the error, not as if it were complete. */
  @Test
  void anErrorAfterTheFirstRows() throws SQLException {
    try (Statement statement = connection.createStatement()) {
      Exception e = assertThrows(Exception.class, () -> {
        try (ResultSet rows = statement.executeQuery("SELECT 1000000 / (900000 - value) FROM generate_series(1, 1000000)")) {
          while (rows.next()) {
            rows.getLong(1);
          }
        }
      });
      assertTrue(e.getMessage().contains("division by zero"), e.getMessage());
    }
  }

  /** A connection is good for more after an error. */
  @Test
  void afterAnError() throws SQLException {
    try (PreparedStatement statement = connection.prepareStatement("SELECT 10 / ?")) {
      statement.setLong(1, 0);
      assertThrows(Exception.class, () -> rows(statement.executeQuery()));
      statement.setLong(1, 5);
      assertEquals(2L, rows(statement.executeQuery()).get(0).get(0));
    }
  }
}
