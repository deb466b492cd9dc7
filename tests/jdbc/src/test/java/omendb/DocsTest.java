package omendb;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.junit.jupiter.api.Test;

/** The snippet of docs/clients.md. */
class DocsTest {
  private static void snippet(String url) throws SQLException {
    // begin
    try (Connection connection = DriverManager.getConnection(url); Statement statement = connection.createStatement()) {
      statement.executeUpdate("CREATE TABLE jdbc_readings (ts BIGINT PRIMARY KEY, value DOUBLE)");
      try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_readings VALUES (?, ?)")) {
        for (long ts = 0; ts < 1000; ts++) {
          insert.setLong(1, ts);
          insert.setDouble(2, ts / 2.0);
          insert.addBatch();
        }
        insert.executeBatch();
      }
      try (ResultSet rows = statement.executeQuery("SELECT avg(value) FROM jdbc_readings WHERE ts BETWEEN 100 AND 200")) {
        rows.next();
        System.out.println(rows.getDouble(1));
      }
    }
    // end
  }

  @Test
  void theSnippetRuns() throws SQLException {
    PrintStream console = System.out;
    ByteArrayOutputStream printed = new ByteArrayOutputStream();
    System.setOut(new PrintStream(printed));
    try {
      snippet(Server.shared().url());
    } finally {
      System.setOut(console);
    }
    assertEquals("75.0", printed.toString().strip());
  }

  @Test
  void thePageHasThatSnippet() throws IOException {
    Path project = Path.of(System.getProperty("basedir"));
    String source = Files.readString(project.resolve("src/test/java/omendb/DocsTest.java"));
    String here = source.substring(source.indexOf("// begin") + "// begin".length(), source.indexOf("// end"));
    String page = Files.readString(project.resolve("../../docs/clients.md"));
    String block = page.substring(page.indexOf("```java") + "```java".length());
    block = block.substring(0, block.indexOf("```"));
    // The first line of the page's block is the address.
    String there = block.strip().substring(block.strip().indexOf('\n'));
    assertEquals(here.stripIndent().strip(), there.strip());
  }
}
