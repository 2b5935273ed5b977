"""Ten queries at once through one service; each is cancelled alone, and the others continue."""

import threading

import psycopg

SLEEPERS = 10


class Sleeper:
    """A session with a query that does not end by itself, in its own thread."""

    def __init__(self):
        self.connection = psycopg.connect(autocommit=True)
        self.member = self.connection.execute("SELECT host(inet_server_addr())").fetchone()[0]
        self.ended = threading.Event()
        self.words = ""
        self.asleep = threading.Thread(target=self.sleep, daemon=True)
        self.asleep.start()

    def sleep(self):
        try:
            self.connection.execute("SELECT pg_sleep(300)")
        except psycopg.errors.QueryCanceled as error:
            self.words = error.sqlstate
        except psycopg.Error as error:
            self.words = str(error)
        self.ended.set()


def wait_until_asleep(sleepers):
    """Waits, because a request before the start of the query would cancel nothing."""
    pids = [sleeper.connection.info.backend_pid for sleeper in sleepers]
    sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s) AND wait_event = 'PgSleep'"
    asleep = set()
    while len(asleep) < len(sleepers):
        # New connections alternate between the members, so both are checked.
        with psycopg.connect(autocommit=True) as connection:
            for pid in pids:
                if connection.execute(sql, ([pid],)).fetchone()[0]:
                    asleep.add(pid)


sleepers = [Sleeper() for _ in range(SLEEPERS)]
wait_until_asleep(sleepers)
for number, sleeper in enumerate(sleepers):
    # In turn: the old function, and the new one, which opens a connection with its own TLS
    # negotiation.
    if number % 2:
        sleeper.connection.cancel()
    else:
        sleeper.connection.cancel_safe(timeout=20)
    if not sleeper.ended.wait(30):
        raise SystemExit(f"the query of number {number} was not cancelled")
    if sleeper.words != "57014":
        raise SystemExit(f"number {number} ended with {sleeper.words}")
    hit = [other for other in sleepers[number + 1 :] if other.ended.is_set()]
    if hit:
        raise SystemExit(f"cancelling number {number} has hit {len(hit)} others")
members = {sleeper.member for sleeper in sleepers}
print(f"{len(sleepers)} cancelled, on {len(members)} members")
