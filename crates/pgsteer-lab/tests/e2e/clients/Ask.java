import java.sql.DriverManager;

/** Prints for each of these URLs whether the server is a standby, in one line. */
class Ask {
    public static void main(String[] urls) throws Exception {
        var answers = new java.util.StringJoiner(" ");
        for (var url : urls) {
            try (var connection = DriverManager.getConnection(url, "app", System.getenv("PGPASSWORD"));
                    var rows = connection.createStatement().executeQuery("SELECT pg_is_in_recovery()")) {
                rows.next();
                answers.add(rows.getString(1));
            }
        }
        System.out.println(answers);
    }
}
