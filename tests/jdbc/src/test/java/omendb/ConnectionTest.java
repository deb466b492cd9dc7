package omendb;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import org.junit.jupiter.api.Test;

/** Connections, their options and their sessions. */
class ConnectionTest extends Jdbc {
  @Test
  void aConnectionIsAliveAndCommitsByItself() throws SQLException {
    assertTrue(connection.isValid(5));
    assertTrue(connection.getAutoCommit());
    assertEquals(1, number("SELECT 1"));
  }

  @Test
  void optionsOfTheUrl() throws SQLException {
    for (String option : List.of("user=someone&password=secret", "token=abc", "threadPoolSize=2",
        "retainCookies=false", "useClientCache=false")) {
      try (Connection other = open(option); Statement statement = other.createStatement();
          ResultSet rows = statement.executeQuery("SELECT 1")) {
        assertTrue(rows.next(), option);
      }
    }
  }

  @Test
  void theCatalogOfTheUrl() throws SQLException {
    Connection other = open("catalog=omendb");
    try (Statement statement = other.createStatement(); ResultSet rows = statement.executeQuery("SELECT 1")) {
      assertTrue(rows.next());
    }
    try {
      other.close();
    } catch (SQLException e) {
      // Driver 18.3 closes such a session twice, the second time over the closed channel.
      assertTrue(e.getMessage().contains("Channel shutdown"), e.getMessage());
    }
  }

  @Test
  void anUnknownCatalogIsRefused() {
    Exception e = assertThrows(Exception.class, () -> open("catalog=another").close());
    assertTrue(e.getMessage().contains("another"), e.getMessage());
  }

  @Test
  void encryptionThatTheServerDoesNotHaveIsAnError() {
    String url = Server.shared().url().replace("useEncryption=false", "useEncryption=true&disableCertificateVerification=true");
    assertThrows(SQLException.class, () -> {
      try (Connection other = DriverManager.getConnection(url); Statement statement = other.createStatement()) {
        statement.executeQuery("SELECT 1").close();
      }
    });
  }

  /** What one connection sets, another does not see: the driver's cookies carry a session for each. */
  @Test
  void eachConnectionIsASession() throws SQLException {
    String schema = name("session");
    update("CREATE SCHEMA " + schema);
    update("CREATE TABLE " + schema + ".only_here (id BIGINT)");
    try (Connection other = open(); Statement statement = other.createStatement()) {
      assertEquals(0, statement.executeUpdate("SET search_path = " + schema));
      statement.executeQuery("SELECT * FROM only_here").close();
      SQLException e = assertThrows(SQLException.class, () -> query("SELECT * FROM only_here"));
      assertTrue(e.getMessage().contains("public.only_here does not exist"), e.getMessage());
    }
  }
}
