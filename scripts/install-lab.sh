#!/bin/sh
# Installs what the lab needs: PostgreSQL, Patroni, etcd, PgBouncer, HAProxy and a few tools by apt, and a
# second, newer Patroni in a separate Python environment. It starts no service and creates no database
# cluster on this machine. It may run repeatedly; if nothing is missing it only checks.
#
# With the argument `readers` it also installs the programs that check the files of `pgsteer render` in the
# tests, and clients of other languages. The demo does not need them.
set -eu
umask 022
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

PATRONI_PIP='patroni[etcd3,psycopg3]==4.1.5'
PSYCOPG_PIP='psycopg[binary]>=3.1,<4'
SQLALCHEMY_PIP='SQLAlchemy>=2,<3'
# node-postgres, Grafana's types with their compiler, and what drives and audits the live page in Chromium.
NPM='pg@8 typescript@5 @grafana/schema@13 playwright-core@1 axe-core@4'
POSTGRES_MIN=14
PYTHON=/usr/bin/python3

if [ "$(id -u)" -eq 0 ]; then
    AS_ROOT=''
    CACHE=/var/cache/pgsteer-lab
else
    AS_ROOT=sudo
    CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pgsteer-lab
fi
VENV=$CACHE/venv
STAMP=$VENV/pgsteer-lab.stamp
CLIENTS=$CACHE/clients
CLIENTS_STAMP=$CLIENTS/pgsteer-lab.stamp

case "$*" in
'') READERS='' ;;
readers) READERS=yes ;;
*)
    echo 'usage: install-lab.sh [readers]' >&2
    exit 2
    ;;
esac

say() { echo "install-lab: $*" >&2; }

# ---- What is missing ----------------------------------------------------------------------------

# Checks files only, because this runs at every start of the demo and the tests.
have_postgres() {
    for bin in /usr/lib/postgresql/*/bin; do
        major=${bin#/usr/lib/postgresql/}
        major=${major%/bin}
        case $major in *[!0-9]*) continue ;; esac
        [ "$major" -ge $POSTGRES_MIN ] && [ -x "$bin/postgres" ] && [ -x "$bin/pg_rewind" ] && return 0
    done
    return 1
}

have_command() { command -v "$1" >/dev/null 2>&1; }

have_module() {
    for found in /usr/lib/python3/dist-packages/"$1" /usr/lib/python3*/site-packages/"$1" \
        /usr/lib64/python3*/site-packages/"$1" /usr/lib/python3.*/"$1"; do
        [ -e "$found" ] && return 0
    done
    return 1
}

# Prints one line per missing program: the Debian package, a tab, and a description.
missing() {
    need() { printf '%s\t%s\n' "$1" "$2"; }
    have_postgres || need postgresql "PostgreSQL $POSTGRES_MIN or later (looked for /usr/lib/postgresql/*/bin/postgres)"
    have_command patroni || need patroni 'Patroni (the command patroni)'
    have_module psycopg2 || need python3-psycopg2 'psycopg2 for the Python of the system'
    have_module etcd || need python3-etcd 'python-etcd for the Python of the system'
    have_command etcd || need etcd-server 'etcd (the command etcd)'
    have_command etcdctl || need etcd-client "etcd's client (the command etcdctl)"
    have_command pgbouncer || need pgbouncer 'PgBouncer (the command pgbouncer)'
    have_command haproxy || need haproxy 'HAProxy (the command haproxy)'
    have_command ip || need iproute2 'iproute2 (the command ip)'
    have_command setpriv && have_command nsenter && have_command setsid && have_command flock && have_command prlimit ||
        need util-linux 'util-linux (the commands setpriv, nsenter, setsid, flock and prlimit)'
    have_command ps || need procps 'procps (the command ps)'
    [ -x $PYTHON ] && have_module ensurepip || need python3-venv "Python 3 with venv ($PYTHON)"
    [ -n "$READERS" ] || return 0
    have_command keepalived || need keepalived 'keepalived (the command keepalived)'
    have_command promtool || need prometheus "Prometheus' promtool (the command promtool)"
    have_command ansible-playbook || need ansible-core 'Ansible (the command ansible-playbook)'
    have_command systemd-analyze || need systemd "systemd's own opinion (the command systemd-analyze)"
    have_command node || need nodejs 'Node.js (the command node)'
    have_command npm || need npm 'the package manager of Node.js (the command npm)'
    have_command chromium || need chromium "Chromium for the live page (the command chromium)"
    # Java itself is large, so JDBC is tested only if Java is installed.
    ! have_command java || [ -r /usr/share/java/postgresql.jar ] || need libpostgresql-jdbc-java 'the JDBC driver'
}

stamp_text() {
    printf '%s\n%s\n' "$PATRONI_PIP" "$PSYCOPG_PIP"
    readlink -f $PYTHON
}

have_venv() {
    [ -x "$VENV/bin/patroni" ] && [ -r "$STAMP" ] && [ "$(cat "$STAMP")" = "$(stamp_text)" ]
}

have_clients() {
    [ -z "$READERS" ] || { [ -r "$CLIENTS_STAMP" ] && [ "$(cat "$CLIENTS_STAMP")" = "$(clients_text)" ]; }
}

# HAProxy 3.0 unpacked beside the system's; a system without the packages goes on without it.
have_haproxy() { [ -z "$READERS" ] || [ -x "$CACHE/haproxy-3.0/haproxy" ]; }

clients_text() { printf '%s\n%s\n' "$SQLALCHEMY_PIP" "$NPM"; }

# ---- Installing by apt --------------------------------------------------------------------------

POLICY=/usr/sbin/policy-rc.d
POLICY_SAVED=$POLICY.before-pgsteer-lab
NO_CLUSTER=/etc/postgresql-common/createcluster.d/pgsteer-lab.conf
MARK='made by install-lab.sh of pgsteer, removed when it ends'

# Undoes keep_quiet, also after a run that was killed in the middle.
unquiet() {
    $AS_ROOT rm -f $NO_CLUSTER
    if grep -qs "$MARK" $POLICY; then $AS_ROOT rm -f $POLICY; fi
    if [ -e $POLICY_SAVED ] && [ ! -e $POLICY ]; then $AS_ROOT mv $POLICY_SAVED $POLICY; fi
}

# While packages are unpacked, no service may start and no "main" database cluster may be created.
keep_quiet() {
    unquiet
    trap unquiet EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    if [ -e $POLICY ]; then $AS_ROOT mv $POLICY $POLICY_SAVED; fi
    printf '#!/bin/sh\n# %s\nexit 101\n' "$MARK" | $AS_ROOT tee $POLICY >/dev/null
    $AS_ROOT chmod 755 $POLICY
    $AS_ROOT mkdir -p ${NO_CLUSTER%/*}
    printf '# %s\ncreate_main_cluster = false\n' "$MARK" | $AS_ROOT tee $NO_CLUSTER >/dev/null
}

apt_install() {
    $AS_ROOT env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get install -y -q \
        --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

# A service of a package that this script installed must not start at the next boot either. Services of
# other packages stay unchanged.
disable_services() {
    have_command update-rc.d || return 0
    for package in "$@"; do
        case $package in
        etcd-server) service=etcd ;;
        patroni | pgbouncer | haproxy | postgresql | keepalived | prometheus) service=$package ;;
        *) continue ;;
        esac
        $AS_ROOT update-rc.d $service disable >/dev/null 2>&1 ||
            say "could not disable the service $service; it may start at the next boot"
    done
}

install_packages() {
    packages=$1
    say 'installing' $packages
    keep_quiet
    log=$(mktemp)
    # The list of packages may be old or missing, so a failure is retried once with a new list.
    if ! apt_install $packages >"$log" 2>&1; then
        $AS_ROOT apt-get update -q >>"$log" 2>&1 || true
        if ! apt_install $packages >>"$log" 2>&1; then
            tail -n 20 "$log" >&2
            say "apt could not install: $packages (the whole log is in $log)"
            exit 1
        fi
    fi
    rm -f "$log"
    disable_services $packages
    unquiet
    trap - EXIT INT TERM HUP
}

install_missing_packages() {
    found=$(missing)
    [ -n "$found" ] || return 0
    if ! have_command apt-get; then
        echo "$found" | while IFS="$(printf '\t')" read -r _ words; do say "missing: $words."; done
        say 'this system has no apt; install the above with its own package manager.'
        exit 1
    fi
    packages=$(echo "$found" | cut -f1 | sort -u | paste -sd ' ' -)
    if [ -n "$AS_ROOT" ] && ! have_command sudo; then
        say "missing: $packages; run as root: apt-get install $packages"
        exit 1
    fi
    install_packages "$packages"
    still=$(missing)
    if [ -n "$still" ]; then
        echo "$still" | while IFS="$(printf '\t')" read -r _ words; do say "still missing: $words."; done
        exit 1
    fi
}

# ---- The newer Patroni --------------------------------------------------------------------------

# The system's Python makes the environment, because user postgres must be able to run it and cannot read
# a Python in another user's home folder.
install_venv() {
    say "making $VENV with $PATRONI_PIP"
    log=$(mktemp)
    rm -rf "$VENV"
    if ! { $PYTHON -m venv "$VENV" &&
        "$VENV/bin/python" -m pip install -q --disable-pip-version-check "$PATRONI_PIP" "$PSYCOPG_PIP"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        say "pip could not install $PATRONI_PIP (the whole log is in $log)"
        exit 1
    fi
    rm -f "$log"
    "$VENV/bin/patroni" --version >/dev/null
    stamp_text >"$STAMP"
}

# ---- Clients of other languages, and the compiler for the dashboard's types -----------------------------------

# In a separate folder, so that a rebuild of the Python environment keeps it. That one has psycopg already.
install_clients() {
    say "making $CLIENTS with $SQLALCHEMY_PIP and $NPM"
    log=$(mktemp)
    rm -rf "$CLIENTS"
    mkdir -p "$CLIENTS/node"
    if ! { "$VENV/bin/python" -m pip install -q --disable-pip-version-check --target "$CLIENTS/python" "$SQLALCHEMY_PIP" &&
        npm install --prefix "$CLIENTS/node" --ignore-scripts --no-audit --no-fund --loglevel=error $NPM; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        say "pip or npm could not install $SQLALCHEMY_PIP and $NPM (the whole log is in $log)"
        exit 1
    fi
    rm -f "$log"
    clients_text >"$CLIENTS_STAMP"
}

# ---- All together -------------------------------------------------------------------------------

if [ -z "$(missing)" ] && have_venv && have_clients && have_haproxy; then exit 0; fi
mkdir -p "$CACHE"
# Two runs at once wait for each other; the lock ends with the process. Without flock, which may be missing
# before the first run, they do not wait.
exec 9>"$CACHE/install.lock"
if have_command flock; then flock 9; fi
install_missing_packages
have_venv || install_venv
have_clients || install_clients
have_haproxy || sh "${0%/*}/install-haproxy-3.0.sh" "$CACHE"
say 'everything is installed'
