"""One query at a time, inside TLS. libpq 17 sends its cancel request inside TLS as well."""

import threading

import psycopg

ROUNDS = 8

if psycopg.pq.version() < 170000:
    raise SystemExit("this libpq cancels without TLS")
cancelled = 0
for _ in range(ROUNDS):
    with psycopg.connect(autocommit=True, sslmode="require") as connection:
        timer = threading.Timer(0.3, lambda: connection.cancel_safe(timeout=20))
        timer.start()
        try:
            connection.execute("SELECT pg_sleep(3)")
        except psycopg.errors.QueryCanceled:
            cancelled += 1
        timer.join()
print(f"{cancelled} of {ROUNDS} cancelled")
