"""COPY of about 50 MB into a table and out of it again, compared by checksum."""

import hashlib
import random

import psycopg

ROWS = 50_000
ROW_BYTES = 1_000

generator = random.Random(1)
alphabet = bytes.maketrans(bytes(range(256)), bytes(97 + byte % 26 for byte in range(256)))


def row(number):
    text = generator.randbytes(ROW_BYTES).translate(alphabet)
    return b"%d\t%s\n" % (number, text)


sent, sent_bytes = hashlib.sha256(), 0
received, received_bytes = hashlib.sha256(), 0
with psycopg.connect(autocommit=True) as connection, connection.cursor() as cursor:
    cursor.execute("DROP TABLE IF EXISTS copied")
    cursor.execute("CREATE UNLOGGED TABLE copied (n int, text text)")
    with cursor.copy("COPY copied FROM STDIN") as copy:
        for first in range(0, ROWS, 50):
            chunk = b"".join(row(number) for number in range(first, first + 50))
            sent.update(chunk)
            sent_bytes += len(chunk)
            copy.write(chunk)
    with cursor.copy("COPY (SELECT * FROM copied ORDER BY n) TO STDOUT") as copy:
        for chunk in copy:
            received.update(chunk)
            received_bytes += len(chunk)
    cursor.execute("DROP TABLE copied")

if (sent.digest(), sent_bytes) != (received.digest(), received_bytes):
    raise SystemExit(f"{sent_bytes} bytes went in and {received_bytes} others came out")
print(f"copied {sent_bytes} bytes there and back")
