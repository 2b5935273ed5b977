#!/usr/bin/env python3
"""A stand-in for the blog's agent daemon, for pgsteer's lab.

It is written from the description of the daemon, not from its code: one thread, which requests the
role from Patroni for each connection, without a timeout. The expected role gives `READY`. Any other
role, and a Patroni that is unreachable, give `MAINT`. An answer that is not JSON ends the daemon.

The daemon uses Python's `requests`. Without that package it uses the standard library, which needs
less CPU. The first line of the log names the one in use.

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
