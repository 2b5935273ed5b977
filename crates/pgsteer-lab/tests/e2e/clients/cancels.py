"""Ten queries at once through one door; each is cancelled alone, and the others sleep on."""

import threading

import psycopg

SLEEPERS = 10


class Sleeper:
    """A session whose query takes for ever, in a thread of its own."""

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
    """A request that comes before the query has begun would cancel nothing."""
    pids = [sleeper.connection.info.backend_pid for sleeper in sleepers]
    sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s) AND wait_event = 'PgSleep'"
    asleep = set()
    while len(asleep) < len(sleepers):
        # Both members are looked at in turn, since connections are spread.
        with psycopg.connect(autocommit=True) as connection:
            for pid in pids:
                if connection.execute(sql, ([pid],)).fetchone()[0]:
                    asleep.add(pid)


sleepers = [Sleeper() for _ in range(SLEEPERS)]
wait_until_asleep(sleepers)
for number, sleeper in enumerate(sleepers):
    # The old way and the new one, which has a connection with TLS negotiation of its own.
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
