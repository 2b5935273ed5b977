# Starts a PostgreSQL that listens on a socket only and a PgBouncer in front of it, with the file
# from stdin, and runs a query through both. Needs $bin, $home, $port and $pgbouncer. Prints only
# the answer.
set -eu
rm -rf "$home"
mkdir -m 700 "$home"
pooler=
ended() {
    [ -z "$pooler" ] || kill "$pooler"
    "$bin/pg_ctl" -s -D "$home/data" -m immediate stop || true
    rm -rf "$home"
}
trap ended EXIT
cat >"$home/pgbouncer.ini"
"$bin/initdb" -D "$home/data" -U postgres -A trust -N >/dev/null
printf 'local all postgres trust\nlocal all all scram-sha-256\n' >"$home/data/pg_hba.conf"
"$bin/pg_ctl" -s -w -D "$home/data" -l "$home/log" -o "-c listen_addresses= -c fsync=off -k $home -p 5432" start
psql() { "$bin/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }
psql -h "$home" -U postgres -c "create role app login password 'secret'" -c 'create database app owner app'
psql -h "$home" -U postgres -c "select format('\"%s\" \"%s\"', rolname, rolpassword) from pg_authid where rolname = 'app'" \
    >"$home/userlist.txt"
"$pgbouncer" -q "$home/pgbouncer.ini" &
pooler=$!
export PGPASSWORD=secret PGCONNECT_TIMEOUT=5
query="select current_user || case when inet_client_addr() is null then ' through the socket' end"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    if psql -h 127.0.0.1 -p "$port" -U app -c "$query" app 2>"$home/said"; then exit 0; fi
    sleep 0.3
done
cat "$home/said" "$home/pgbouncer.log" >&2
exit 1
