#!/usr/bin/env python3
"""A stand-in for happac, for pgsteer's lab.

It is written from the description of happac, not from its code: for each connection one GET of an
endpoint of Patroni, without a timeout, and one run of pg_isready. Status 200 and exit code 0 give
`up`, any other result gives `down`. If either step fails, the connection closes without an answer.

    happac.py LISTEN_IP LISTEN_PORT PATRONI_HOST PATRONI_PORT ENDPOINT PG_ISREADY PG_HOST PG_PORT
"""

import http.client
import socketserver
import subprocess
import sys

LISTEN_IP, LISTEN_PORT, PATRONI_HOST, PATRONI_PORT, ENDPOINT, PG_ISREADY, PG_HOST, PG_PORT = sys.argv[1:]


def patroni_answers_200():
    patroni = http.client.HTTPConnection(PATRONI_HOST, int(PATRONI_PORT))
    try:
        patroni.request("GET", "/" + ENDPOINT)
        return patroni.getresponse().status == 200
    finally:
        patroni.close()


def is_ready():
    asked = [PG_ISREADY, "-q", "-h", PG_HOST, "-p", PG_PORT]
    return subprocess.run(asked, check=False).returncode == 0


class Check(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            answer = b"up\n" if patroni_answers_200() and is_ready() else b"down\n"
        except (OSError, http.client.HTTPException):
            return
        self.request.sendall(answer)


class Agent(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request, client_address):
        """HAProxy may have closed the connection, which is no error."""


Agent((LISTEN_IP, int(LISTEN_PORT)), Check).serve_forever()
