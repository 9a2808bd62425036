import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.sql.*;
import java.util.*;
import java.util.concurrent.Callable;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PSQLException;

/**
 * pgjdbc, https://jdbc.postgresql.org/documentation/. Prints {@code ACT<TAB>VALUE}; the test knows which value is right.
 */
public final class Pgjdbc {
  private static final String LARGE = "abcdefghijklmnop".repeat(20 * 1024 * 1024 / 16);
  private static final String TEXT = "grüße '*/ --";
  private static final int CURSOR_ROWS = 10_000;

  private static Connection connect(String token, String... properties) throws SQLException {
    Map<String, String> env = System.getenv();
    Properties settings = new Properties();
    settings.setProperty("user", env.get("PGUSER"));
    settings.setProperty("password", token);
    settings.setProperty("sslmode", "verify-full");
    settings.setProperty("sslrootcert", env.get("PGSSLROOTCERT"));
    for (int i = 0; i < properties.length; i += 2) {
      settings.setProperty(properties[i], properties[i + 1]);
    }
    String url = "jdbc:postgresql://" + env.get("PGHOST") + ":" + env.get("PGPORT") + "/" + env.get("PGDATABASE");
    return DriverManager.getConnection(url, settings);
  }

  private static Connection connect() throws SQLException {
    return connect(System.getenv("PGPASSWORD"));
  }

  private static String one(Connection connection, String query) throws SQLException {
    try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(query)) {
      rows.next();
      return rows.getString(1);
    }
  }

  private static void execute(Connection connection, String statement) throws SQLException {
    try (Statement made = connection.createStatement()) {
      made.execute(statement);
    }
  }

  private static String parametersText() throws SQLException {
    try (Connection text = connect(System.getenv("PGPASSWORD"), "binaryTransfer", "false");
        PreparedStatement select = text.prepareStatement("select ?::int + 1, ?::text, ?::int is null")) {
      select.setInt(1, 41);
      select.setString(2, TEXT);
      select.setNull(3, Types.INTEGER);
      try (ResultSet row = select.executeQuery()) {
        row.next();
        return row.getInt(1) + "|" + row.getString(2) + "|" + row.getBoolean(3);
      }
    }
  }

  // A prepareThreshold of -1 forces binary from the first execution on.
  private static String parametersBinary() throws SQLException {
    try (Connection binary = connect(System.getenv("PGPASSWORD"), "prepareThreshold", "-1");
        PreparedStatement select = binary.prepareStatement("select ?::int4 + 1, ?::bytea, ?::float8")) {
      select.setInt(1, 41);
      select.setBytes(2, new byte[] {0, 1, (byte) 255});
      select.setDouble(3, 0.5);
      try (ResultSet row = select.executeQuery()) {
        row.next();
        return row.getInt(1) + "|" + HexFormat.of().formatHex(row.getBytes(2)) + "|" + row.getDouble(3);
      }
    }
  }

  private static String prepared(Connection connection) throws SQLException {
    long total = 0;
    try (PreparedStatement select = connection.prepareStatement("select ?::int * 2")) {
      for (int n = 0; n < 100; n++) {
        select.setInt(1, n);
        try (ResultSet row = select.executeQuery()) {
          row.next();
          total += row.getLong(1);
        }
      }
    }
    return "100|" + total;
  }

  // A batch is sent in one go, with one Sync.
  private static String pipeline(Connection connection) throws SQLException {
    execute(connection, "create temp table piped (n int)");
    try (PreparedStatement insert = connection.prepareStatement("insert into piped values (?)")) {
      for (int n = 1; n <= 3; n++) {
        insert.setInt(1, n);
        insert.addBatch();
      }
      insert.executeBatch();
    }
    return one(connection, "select string_agg(n::text, '|' order by n) from piped");
  }

  private static void insert(Connection connection, int n) throws SQLException {
    try (PreparedStatement insert = connection.prepareStatement("insert into kept values (?)")) {
      insert.setInt(1, n);
      insert.executeUpdate();
    }
  }

  private static String transaction(Connection connection) throws SQLException {
    String kept = "select string_agg(n::text, ',' order by n) from kept";
    execute(connection, "create temp table kept (n int)");
    connection.setAutoCommit(false);
    insert(connection, 1);
    Savepoint savepoint = connection.setSavepoint();
    insert(connection, 2);
    connection.rollback(savepoint);
    insert(connection, 3);
    connection.commit();
    String before = one(connection, kept);
    insert(connection, 4);
    connection.rollback();
    connection.setAutoCommit(true);
    return before + "|" + one(connection, kept);
  }

  private static String error(Connection connection) throws SQLException {
    try (PreparedStatement select = connection.prepareStatement("select nope from orders where id = ?")) {
      select.setInt(1, 1);
      select.executeQuery();
    } catch (PSQLException error) {
      return error.getSQLState() + "|" + error.getServerErrorMessage().getPosition();
    }
    return "no error";
  }

  private static String copyIn(Connection connection) throws Exception {
    execute(connection, "create temp table copied (n int)");
    StringBuilder lines = new StringBuilder();
    for (int n = 0; n < 1000; n++) {
      lines.append(n).append('\n');
    }
    byte[] bytes = lines.toString().getBytes(StandardCharsets.UTF_8);
    PGConnection driver = connection.unwrap(PGConnection.class);
    driver.getCopyAPI().copyIn("copy copied from stdin", new ByteArrayInputStream(bytes));
    return one(connection, "select count(*) || '|' || sum(n) from copied");
  }

  private static String copyOut(Connection connection) throws Exception {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    PGConnection driver = connection.unwrap(PGConnection.class);
    driver.getCopyAPI().copyOut("copy (select generate_series(0, 999)) to stdout", out);
    String[] lines = out.toString(StandardCharsets.UTF_8).split("\n");
    return lines.length + "|" + Arrays.stream(lines).mapToLong(Long::parseLong).sum();
  }

  private static String cancel(Connection connection) throws Exception {
    String outcome = "slept";
    try (Statement sleep = connection.createStatement()) {
      Thread later = new Thread(() -> {
        try {
          Thread.sleep(500);
          sleep.cancel();
        } catch (Exception error) {
          error.printStackTrace();
        }
      });
      later.start();
      try {
        sleep.execute("select pg_sleep(30)");
      } catch (SQLException error) {
        outcome = error.getSQLState().equals("57014") ? "canceled" : error.getSQLState();
      }
      later.join();
    }
    return outcome + "|" + one(connection, "select 1");
  }

  private static String heard(Connection connection, Connection another) throws SQLException {
    execute(connection, "listen orders_changed");
    execute(another, "notify orders_changed, '42'");
    PGNotification[] heard = connection.unwrap(PGConnection.class).getNotifications(10_000);
    return heard == null || heard.length == 0 ? "silence" : heard[0].getParameter();
  }

  private static String large(Connection connection) throws Exception {
    try (PreparedStatement select = connection.prepareStatement("select ?::text")) {
      select.setString(1, LARGE);
      try (ResultSet row = select.executeQuery()) {
        row.next();
        byte[] value = row.getString(1).getBytes(StandardCharsets.UTF_8);
        return value.length + "|" + HexFormat.of().formatHex(MessageDigest.getInstance("MD5").digest(value));
      }
    }
  }

  private static String cursor(Connection connection) throws SQLException {
    long count = 0;
    long total = 0;
    connection.setAutoCommit(false);
    try (PreparedStatement select = connection.prepareStatement("select generate_series(1, ?::int)")) {
      select.setInt(1, CURSOR_ROWS);
      select.setFetchSize(500);
      try (ResultSet rows = select.executeQuery()) {
        while (rows.next()) {
          count++;
          total += rows.getLong(1);
        }
      }
    }
    connection.commit();
    connection.setAutoCommit(true);
    return count + "|" + total;
  }

  private static String refusal() {
    try (Connection refused = connect(System.getenv("WRONG_TOKEN"))) {
      return "let in";
    } catch (SQLException error) {
      return error.getSQLState() + " " + error.getMessage();
    }
  }

  private static void act(String name, Callable<String> work) {
    String value;
    try {
      value = work.call();
    } catch (Exception error) {
      error.printStackTrace();
      value = "!" + error;
    }
    System.out.println(name + "\t" + value.replace('\n', ' '));
  }

  /** Every act, in order. */
  public static void main(String[] arguments) throws Exception {
    System.setOut(new java.io.PrintStream(System.out, true, StandardCharsets.UTF_8));
    try (Connection connection = connect(); Connection another = connect()) {
      act("connect", () -> one(connection, "select session_user"));
      act("parameters text", Pgjdbc::parametersText);
      act("parameters binary", Pgjdbc::parametersBinary);
      act("prepared x100", () -> prepared(connection));
      act("pipeline", () -> pipeline(connection));
      act("transaction", () -> transaction(connection));
      act("error position", () -> error(connection));
      act("copy in", () -> copyIn(connection));
      act("copy out", () -> copyOut(connection));
      act("cancel", () -> cancel(connection));
      act("listen/notify", () -> heard(connection, another));
      act("20 MiB value", () -> large(connection));
      act("cursor 10000", () -> cursor(connection));
      act("refusal", Pgjdbc::refusal);
    }
  }
}
