#!/bin/sh
# Unpacks HAProxy 3.0, as Debian 13 has it, beside the HAProxy of the system: `install-haproxy-3.0.sh FOLDER`
# makes FOLDER/haproxy-3.0/haproxy. Installs nothing, and needs no root: the packages come by apt, by a list of
# its own, from the mirror that this Debian uses itself. Clients that are retried while a server becomes DOWN
# may hang in this version; the end-to-end tests and `make profiles` look for that.
set -eu
umask 022
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

SUITE=trixie
VERSION=3.0
# HAProxy and the libraries that it loads, with the C library, which is newer than that of Debian 12.
PACKAGES='haproxy libc6 libcap2 libcrypt1 libgcc-s1 libgcrypt20 libgpg-error0 libjemalloc2 liblua5.4-0 liblz4-1
    liblzma5 libpcre2-8-0 libssl3t64 libsystemd0 libzstd1 zlib1g'
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "install-haproxy-$VERSION: $*" >&2; }
# Without it tests are skipped, and everything else goes on.
none() {
    say "$*; the tests with HAProxy $VERSION are skipped"
    exit 0
}

[ $# -eq 1 ] || { echo 'usage: install-haproxy-3.0.sh FOLDER' >&2; exit 2; }
DEST=$1/haproxy-$VERSION
is_there() { [ -x "$DEST/haproxy" ] && "$DEST/haproxy" -v 2>/dev/null | grep -q "version $VERSION\."; }
if is_there; then exit 0; fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || none 'this system has no apt'
[ -r $KEYRING ] || none "there is no $KEYRING"
# The first mirror that has this Debian itself, in either format of apt's lists.
MIRROR=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    sed -n -e 's/^deb  *\(\[[^]]*\]  *\)\{0,1\}\([^ ]*\/debian\/\{0,1\}\) .*/\2/p' -e 's/^URIs: *\([^ ]*\/debian\/\{0,1\}\)$/\1/p' |
    head -n 1)
[ -n "$MIRROR" ] || none 'the lists of apt name no mirror of Debian'

WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir -p "$WORK/lists/partial" "$WORK/cache/archives/partial" "$WORK/debs" "$WORK/root"
echo "deb [signed-by=$KEYRING] $MIRROR $SUITE main" >"$WORK/sources.list"
# apt with nothing of the system's but its architecture.
apt() {
    apt-get -q -o Dir::Etc::sourcelist="$WORK/sources.list" -o Dir::Etc::sourceparts=/nowhere \
        -o Dir::State::lists="$WORK/lists" -o Dir::Cache="$WORK/cache" -o APT::Sandbox::User= "$@"
}
say "unpacking Debian's HAProxy $VERSION into $DEST"
apt update >"$WORK/log" 2>&1 || { tail -n 5 "$WORK/log" >&2; none "apt cannot read the list of $SUITE"; }
(cd "$WORK/debs" && apt download $PACKAGES) >>"$WORK/log" 2>&1 ||
    { tail -n 5 "$WORK/log" >&2; none 'apt cannot get the packages'; }
for deb in "$WORK"/debs/*.deb; do dpkg-deb -x "$deb" "$WORK/root"; done

LOADER=$(cd "$WORK/root" && ls -d usr/lib/*-linux-gnu*/ld-linux*.so.* | head -n 1)
rm -rf "$DEST"
mkdir -p "$DEST"
mv "$WORK/root" "$DEST/root"
# By the new loader and the new libraries, which nothing else on this system sees.
cat >"$DEST/haproxy" <<END
#!/bin/sh
exec '$DEST/root/$LOADER' --library-path '$DEST/root/${LOADER%/*}' '$DEST/root/usr/sbin/haproxy' "\$@"
END
chmod 755 "$DEST" "$DEST/haproxy"
is_there || { "$DEST/haproxy" -v >&2 || true; say "this HAProxy does not run"; exit 1; }
