//! The panels of the Grafana dashboard.

use serde::Serialize;

/// A panel of the dashboard.
#[derive(Serialize)]
pub struct Panel {
    title: &'static str,
    about: &'static str,
    unit: &'static str,
    expr: &'static str,
    legend: &'static str,
}

/// All panels, in their order.
pub const PANELS: [Panel; 13] = [
    Panel {
        title: "Who is primary",
        about: "1 for the member that has the role",
        unit: "short",
        expr: "pgsteer_member_role{cluster=~\"$cluster\",role=\"primary\"}",
        legend: "{{member}}",
    },
    Panel {
        title: "Open gates",
        about: "Members that get new sessions of the service. With 0, its clients wait",
        unit: "short",
        expr: "pgsteer_service_open_gates{cluster=~\"$cluster\"}",
        legend: "{{service}} at {{instance}}",
    },
    Panel {
        title: "Why gates are not open",
        about: "1 with the reason",
        unit: "short",
        expr: "pgsteer_gate_reason{cluster=~\"$cluster\"}",
        legend: "{{service}} {{member}}: {{reason}}",
    },
    Panel {
        title: "Clients on hold",
        about: "Clients that wait for an open member",
        unit: "short",
        expr: "pgsteer_held_clients{cluster=~\"$cluster\"}",
        legend: "{{service}} at {{instance}}",
    },
    Panel {
        title: "Sessions",
        about: "Sessions by service and member",
        unit: "short",
        expr: "pgsteer_sessions{cluster=~\"$cluster\"}",
        legend: "{{service}} {{member}}",
    },
    Panel {
        title: "Lag",
        about: "How far replay is behind",
        unit: "bytes",
        expr: "pgsteer_member_lag_bytes{cluster=~\"$cluster\"}",
        legend: "{{member}}",
    },
    Panel {
        title: "Sessions ended by pgsteer",
        about: "Each because the gate of its member was shut",
        unit: "cps",
        expr: "rate(pgsteer_sessions_ended_total{cluster=~\"$cluster\"}[5m])",
        legend: "{{service}} {{member}}",
    },
    Panel {
        title: "Clients refused",
        about: "Clients that were refused because no member was available",
        unit: "cps",
        expr: "rate(pgsteer_refused_clients_total{cluster=~\"$cluster\"}[5m])",
        legend: "{{service}}",
    },
    Panel {
        title: "Bytes to clients",
        about: "Bytes per second from members to clients, logins excluded",
        unit: "Bps",
        expr: "rate(pgsteer_bytes_out_total{cluster=~\"$cluster\"}[1m])",
        legend: "{{service}} {{member}}",
    },
    Panel {
        title: "Bytes from clients",
        about: "Bytes per second from clients to members, logins excluded",
        unit: "Bps",
        expr: "rate(pgsteer_bytes_in_total{cluster=~\"$cluster\"}[1m])",
        legend: "{{service}} {{member}}",
    },
    Panel {
        title: "Time on hold",
        about: "99 of 100 clients on hold waited less",
        unit: "s",
        expr: "histogram_quantile(0.99, sum by (le, service) (rate(pgsteer_hold_time_seconds_bucket{cluster=~\"$cluster\"}[5m])))",
        legend: "{{service}}",
    },
    Panel {
        title: "Time to a served login",
        about: "99 of 100 logins took less, the hold included",
        unit: "s",
        expr: "histogram_quantile(0.99, sum by (le, service) (rate(pgsteer_login_time_seconds_bucket{cluster=~\"$cluster\"}[5m])))",
        legend: "{{service}}",
    },
    Panel {
        title: "Time of a probe",
        about: "99 of 100 answers to probes came sooner",
        unit: "s",
        expr: "histogram_quantile(0.99, sum by (le, member, source) (rate(pgsteer_probe_time_seconds_bucket{cluster=~\"$cluster\"}[5m])))",
        legend: "{{member}} by {{source}}",
    },
];
