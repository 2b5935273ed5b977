"""A pipeline of many statements, one with an error in the middle, and a wrong password."""

import psycopg

ROWS = 1000

with psycopg.connect(autocommit=True) as connection:
    connection.execute("DROP TABLE IF EXISTS piped")
    connection.execute("CREATE TABLE piped (n int PRIMARY KEY, text text)")
    with connection.pipeline():
        for n in range(ROWS):
            connection.execute("INSERT INTO piped VALUES (%s, %s)", (n, "x" * (n % 300)))
        count = connection.execute("SELECT count(*) FROM piped")
    assert count.fetchone()[0] == ROWS
    errors = 0
    try:
        with connection.pipeline():
            connection.execute("SELECT 1")
            connection.execute("INSERT INTO piped VALUES (0, 'again')")
            connection.execute("SELECT 2")
    except psycopg.errors.UniqueViolation:
        errors += 1
    # The session still works after the error.
    assert connection.execute("SELECT max(n) FROM piped").fetchone()[0] == ROWS - 1

print(f"{ROWS} rows by a pipeline, {errors} error in its place")
