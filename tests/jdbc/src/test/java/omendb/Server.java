package omendb;

import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The built server as the tests drive it: one process for the run, on a free port and a temporary directory. */
final class Server {
  private static final Pattern LISTENS = Pattern.compile("listens on grpc://127\\.0\\.0\\.1:(\\d+)");
  private static Server shared;

  private final Process process;
  private final int port;

  /** The server that all tests share. It is started on first use and ends with the run. */
  static synchronized Server shared() {
    if (shared == null) {
      try {
        shared = new Server();
      } catch (IOException e) {
        throw new IllegalStateException("the server cannot be started", e);
      }
    }
    return shared;
  }

  private Server() throws IOException {
    String binary = System.getenv("OMENDB_BIN");
    if (binary == null || !new File(binary).canExecute()) {
      throw new IllegalStateException("OMENDB_BIN names no program (" + binary + "): run ./test java, or build it and set OMENDB_BIN");
    }
    Path directory = Files.createTempDirectory("omendb-jdbc");
    File log = directory.resolve("log").toFile();
    ProcessBuilder builder =
        new ProcessBuilder(binary, "serve", "--data-dir", directory.resolve("data").toString(), "--listen", "127.0.0.1:0");
    // Variables of that prefix would be settings of the server.
    builder.environment().keySet().removeIf(name -> name.startsWith("OMENDB_"));
    builder.redirectError(log);
    process = builder.start();
    process.getOutputStream().close();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> end(directory)));
    port = readPort(log);
  }

  /** The port from the line that says where the server listens. */
  private int readPort(File log) throws IOException {
    BufferedReader output = new BufferedReader(new InputStreamReader(process.getInputStream()));
    for (String line = output.readLine(); line != null; line = output.readLine()) {
      Matcher listens = LISTENS.matcher(line);
      if (listens.find()) {
        return Integer.parseInt(listens.group(1));
      }
    }
    throw new IllegalStateException("the server ended before it said where it listens:\n" + Files.readString(log.toPath()));
  }

  private void end(Path directory) {
    try {
      process.destroyForcibly().waitFor();
      try (var files = Files.walk(directory)) {
        files.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(File::delete);
      }
    } catch (IOException | InterruptedException e) {
      System.err.println(directory + " could not be removed: " + e);
    }
  }

  boolean isAlive() {
    return process.isAlive();
  }

  /** The URL of a connection. The driver encrypts unless it is told not to. */
  String url(String... options) {
    StringBuilder url = new StringBuilder("jdbc:arrow-flight-sql://127.0.0.1:" + port + "/?useEncryption=false");
    for (String option : options) {
      url.append('&').append(option);
    }
    return url.toString();
  }
}
