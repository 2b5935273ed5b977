//! Adapts a rendered HAProxy file to a lab: it needs no root, and its socket is reachable over TCP.

use std::net::SocketAddr;

/// Lines that need root, or that reach beyond the lab.
const OF_ROOT: [&str; 4] = ["user ", "group ", "chroot ", "log /"];

/// Adapts `text` for the user of the lab. Its stats socket is at `socket`. Abstract sockets get
/// `own` in their name, so that the names of two HAProxies differ.
pub fn suited(text: &str, socket: SocketAddr, own: &str) -> String {
    let is_of_root = |line: &&str| OF_ROOT.iter().any(|word| line.trim_start().starts_with(word));
    let lines = text.lines().filter(|line| !is_of_root(line)).map(|line| {
        if line.trim_start().starts_with("stats socket") {
            return format!("    stats socket ipv4@{socket} level admin\n");
        }
        format!("{}\n", line.replace("abns@pgsteer-", &format!("abns@pgsteer-{own}-")))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_need_root_are_removed() {
        let text = "global\n    user haproxy\n    stats socket /run/x mode 660\n    log /dev/log a\n    \
                    log global\nfrontend g\n    bind abns@pgsteer-guard\n";
        let suited = suited(text, "127.0.0.1:9000".parse().unwrap(), "x");
        assert_eq!(
            suited,
            "global\n    stats socket ipv4@127.0.0.1:9000 level admin\n    log global\nfrontend g\n    \
             bind abns@pgsteer-x-guard\n"
        );
    }
}
