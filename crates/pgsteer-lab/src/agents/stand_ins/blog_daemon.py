#!/usr/bin/env python3
"""A stand-in for the blog's agent daemon, for pgsteer's lab.

Written from the description of what the daemon does, not from its code: one thread, which for each
connection asks Patroni for its role, without a timeout. The wanted role makes `READY`, anything
else makes `MAINT`, a Patroni that cannot be reached as well. An answer that is no JSON ends the
daemon.

The daemon uses Python's `requests`; where that is not to be had, the standard library has to do,
which is cheaper. Which of them it is, the first line of the log tells.

    blog_daemon.py LISTEN_IP LISTEN_PORT PATRONI_URL ROLE
"""

import json
import socket
import sys

LISTEN_IP, LISTEN_PORT, PATRONI_URL, ROLE = sys.argv[1:]

try:
    import requests

    def fetch():
        return requests.get(PATRONI_URL).text

    print("HTTP library: requests", requests.__version__, flush=True)
except ImportError:
    import urllib.error
    import urllib.request

    def fetch():
        try:
            return urllib.request.urlopen(PATRONI_URL).read()
        except urllib.error.HTTPError as answer:
            return answer.read()

    print("HTTP library: the standard library", flush=True)


def role():
    try:
        answer = fetch()
    except Exception:
        return None
    return json.loads(answer)["role"]


server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((LISTEN_IP, int(LISTEN_PORT)))
server.listen(1)
while True:
    client, _ = server.accept()
    client.sendall(b"READY\n" if role() == ROLE else b"MAINT\n")
    client.close()
