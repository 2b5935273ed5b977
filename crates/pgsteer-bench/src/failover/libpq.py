"""The same traffic as on the other paths, with the real libpq: a host list and target_session_attrs.

Arguments: the DSN, the two statements, and the limits as JSON. Writes one JSON object per line.
"""
import json
import select
import signal
import sys
import threading
import time

import psycopg2

dsn, insert, ping, limits = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
stopping = threading.Event()
writing = threading.Lock()
kept_open = {}


def now_us():
    return time.time_ns() // 1000


def write(kind, what):
    with writing:
        sys.stdout.write(json.dumps({kind: what}) + "\n")


def label(error):
    """The reason of libpq's failure, from its message on the last host."""
    text = str(error)
    for sign, meaning in [
        ("session is read-only", "no host is writable"),
        ("timeout expired", "timeout"),
        ("starting up", "57P03"),
        ("shutting down", "57P03"),
        ("refused", "refused"),
        ("too many clients", "53300"),
        ("No route", "refused"),
        ("unexpectedly", "closed"),
    ]:
        if sign in text:
            return meaning
    return "other: " + text.strip().splitlines()[-1][:60]


def connect():
    session = psycopg2.connect(dsn)
    session.autocommit = True
    return session


def ask(session, sql):
    with session.cursor() as cursor:
        cursor.execute(sql)
        ip, wal_file = cursor.fetchone()
    # The name of a WAL file begins with the timeline.
    return {"ip": ip, "timeline": int(wal_file[:8], 16)}


def outcome_of(error):
    code = getattr(error, "pgcode", None)
    if code == "25006":
        return "read_only"
    if code is None or code.startswith(("57P", "08")):
        return {"cut": code or "closed"}
    return {"failed": code}


def try_once(room):
    tried = {"start_us": now_us(), "login_us": None}
    session = None
    try:
        session = connect()
        tried["login_us"] = now_us()
        outcome = {"done": ask(session, insert)}
    except psycopg2.Error as error:
        outcome = outcome_of(error) if session else {"no_connection": label(error)}
    tried["end_us"] = now_us()
    # libpq's limit applies to each host; the whole try has a limit as well.
    if tried["end_us"] - tried["start_us"] > limits["try_seconds"] * 1_000_000:
        outcome = {"cut": "timeout"} if session else {"no_connection": "timeout"}
    tried["outcome"] = outcome
    write("try", tried)
    if session:
        session.close()
    room.release()


def keep(number):
    while not stopping.is_set():
        try:
            session = connect()
            kept = {"opened_us": now_us(), "server": ask(session, ping), "closed_us": None}
            kept_open[number] = kept
            while True:
                # Between two pings it reads, so that it sees the end at once.
                select.select([session.fileno()], [], [], limits["ping_seconds"])
                ask(session, ping)
        except psycopg2.Error:
            kept = kept_open.pop(number, None)
            if kept:
                kept["closed_us"] = now_us()
                write("kept", kept)
        time.sleep(limits["ping_seconds"])


def main():
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    threading.stack_size(256 * 1024)
    room = threading.Semaphore(limits["outstanding"])
    for number in range(limits["kept"]):
        threading.Thread(target=keep, args=(number,), daemon=True).start()
    due = time.monotonic()
    while not stopping.is_set():
        if room.acquire(blocking=False):
            threading.Thread(target=try_once, args=(room,), daemon=True).start()
        else:
            now = now_us()
            why = {"no_connection": "too many waiting"}
            write("try", {"start_us": now, "login_us": None, "end_us": now, "outcome": why})
        due += limits["every_seconds"]
        time.sleep(max(0, due - time.monotonic()))
    time.sleep(1)
    for kept in list(kept_open.values()):
        write("kept", kept)
    sys.stdout.flush()


main()
