//! The OpenAPI document of the pages for programs. The schemas come from the types of the answers, so they
//! cannot differ from them; their descriptions are the comments of the types.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::past::{self, Range};
use crate::status::document;

/// The path of the document.
pub const PATH: &str = "/api/v1/openapi.json";

const INTRODUCTION: &str = "The state of pgsteer and of the cluster behind it. All pages show one Snapshot, so they never \
    contradict each other. Within /api/v1 fields may be added; no field changes its meaning or is removed: ignore unknown \
    fields. Times of day are RFC 3339 in UTC.";

/// The document, as OpenAPI 3.1.
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let status = schemas.of::<document::Document>("Status");
    let history = schemas.of::<past::Document>("History");
    let mut paths = states(&status, &history);
    paths.extend(own_pages());
    paths.extend(checks());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "pgsteer",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The front door of a highly available PostgreSQL cluster",
            "description": INTRODUCTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "[http] token_file" },
                "login": { "type": "http", "scheme": "basic", "description": "[http] login_file" },
            },
        },
        // Without [http] token_file and login_file nothing is needed.
        "security": [{}, { "token": [] }, { "login": [] }],
    })
}

/// The pages with the state.
fn states(status: &Value, history: &Value) -> Map<String, Value> {
    let ranges: Vec<&str> = Range::ALL.iter().map(|(name, _)| *name).collect();
    let range = json!({
        "name": "range",
        "in": "query",
        "description": "how far it goes back",
        "schema": { "type": "string", "enum": ranges, "default": ranges[0] },
    });
    let mut history = page(
        "history",
        "Curves, bars and events of the last minutes or hours",
        [
            ("200", of_json("The history", history)),
            ("400", of_text("The range is not one of those")),
        ],
    );
    history["get"]["parameters"] = json!([range]);
    let all = [
        (
            "/api/v1/status",
            page(
                "status",
                "The members, the services with their gates, and what happened last",
                [("200", of_json("The state now", status))],
            ),
        ),
        ("/api/v1/history", history),
        (
            "/api/v1/stream",
            page(
                "stream",
                "The status at each change and each second, as server-sent events; the data of each event \
                 `status` is a status document in one line",
                [
                    ("200", of_events(status)),
                    ("503", of_text("There are too many readers of the streams, or pgsteer stops")),
                ],
            ),
        ),
    ];
    all.map(|(path, page)| (path.to_owned(), page)).into_iter().collect()
}

/// The pages about pgsteer itself.
fn own_pages() -> Map<String, Value> {
    let all = [
        (
            PATH,
            page(
                "openapi",
                "This document",
                [("200", of_json("OpenAPI 3.1", &json!({ "type": "object" })))],
            ),
        ),
        (
            "/metrics",
            page(
                "metrics",
                "For Prometheus: OpenMetrics if the request accepts it, else the classic format",
                [("200", of_text("The metrics"))],
            ),
        ),
        (
            "/healthz",
            page(
                "healthz",
                "Whether pgsteer itself works; it says nothing about the cluster",
                [
                    ("200", of_text("The engine ran within the last seconds")),
                    ("503", of_text("The engine is stuck, or pgsteer stops; the text says which")),
                ],
            ),
        ),
    ];
    all.map(|(path, page)| (path.to_owned(), page)).into_iter().collect()
}

/// The health checks.
fn checks() -> Map<String, Value> {
    let all = [
        (
            "/services/{service}",
            "service_is_open",
            "Whether the service has an open gate, so that its clients are served",
        ),
        (
            "/members/{member}/services/{service}",
            "member_is_open",
            "Whether the gate of this member to the service is open",
        ),
        (
            "/members/{member}/{check}",
            "member_health",
            "A health check of Patroni's REST API for any member, as primary, replica or health",
        ),
        ("/{check}", "local_health", "The same for the local member"),
        (
            "/vips/{vip}",
            "vip_is_here",
            "Whether this machine should have the address of [vip.NAME], and has it alone",
        ),
    ];
    all.map(|(path, id, summary)| (path.to_owned(), check(path, id, summary))).into_iter().collect()
}

/// A page that is read.
fn page<const N: usize>(id: &str, summary: &str, own: [(&str, Value); N]) -> Value {
    json!({ "get": { "operationId": id, "summary": summary, "responses": answers(own) } })
}

/// The answers of a page, with those that every page can give.
fn answers<const N: usize>(own: [(&str, Value); N]) -> Value {
    let mut all = Map::new();
    all.extend(own.map(|(status, answer)| (status.to_owned(), answer)));
    all.insert("401".to_owned(), of_text("A token or a login is needed, or it is not accepted"));
    all.insert("403".to_owned(), of_text("[http] allow or hosts exclude the client"));
    Value::Object(all)
}

/// A health check. Its parameters are the parts of its path in braces.
fn check(path: &str, id: &str, summary: &str) -> Value {
    let own = [
        ("200", of_text("Yes")),
        ("400", of_text("A parameter is invalid")),
        ("404", of_text("There is no such check or service")),
        ("503", of_text("No, with the reason; or not known, with a header that says so")),
    ];
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let mut check = page(id, summary, own);
    check["get"]["parameters"] = json!(parameters);
    check
}

fn of_json(what: &str, schema: &Value) -> Value {
    json!({ "description": what, "content": { "application/json": { "schema": schema } } })
}

fn of_text(what: &str) -> Value {
    json!({ "description": what, "content": { "text/plain": { "schema": { "type": "string" } } } })
}

fn of_events(status: &Value) -> Value {
    json!({
        "description": "Events until the reader or pgsteer ends",
        "content": { "text/event-stream": { "schema": { "type": "string" }, "x-event-data": status } },
    })
}

/// The schemas of answers, each under its name.
struct Schemas {
    generator: SchemaGenerator,
    named: Map<String, Value>,
}

impl Schemas {
    fn new() -> Schemas {
        let settings = SchemaSettings::draft2020_12().for_serialize();
        let settings = settings.with(|it| it.definitions_path = "/components/schemas".into());
        Schemas { generator: settings.into_generator(), named: Map::new() }
    }

    /// Adds the schema of `T` under `name`, and returns the reference to it.
    fn of<T: schemars::JsonSchema>(&mut self, name: &str) -> Value {
        self.named.insert(name.to_owned(), T::json_schema(&mut self.generator).to_value());
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    /// All of them, with those that they refer to.
    fn take(mut self) -> Value {
        let parts = self.generator.take_definitions(true);
        self.named.extend(parts);
        Value::Object(self.named)
    }
}

#[cfg(test)]
mod tests {
    use jsonschema::Validator;

    use super::*;
    use crate::http::sample;

    /// A validator for one of the schemas, which also refuses fields that the schema does not have.
    fn validator(name: &str) -> Validator {
        let mut document = document();
        let schemas = document["components"]["schemas"].as_object_mut().unwrap();
        for schema in schemas.values_mut() {
            if schema["type"] == "object" && schema.get("additionalProperties").is_none() {
                schema["unevaluatedProperties"] = json!(false);
            }
        }
        document["$ref"] = json!(format!("#/components/schemas/{name}"));
        jsonschema::validator_for(&document).unwrap()
    }

    fn faults(validator: &Validator, answer: &Value) -> Vec<String> {
        validator.iter_errors(answer).map(|it| format!("{}: {it}", it.instance_path())).collect()
    }

    #[test]
    fn the_status_document_is_as_its_schema_says() {
        let answer = serde_json::to_value(sample::document_of(&sample::snapshot())).unwrap();
        let validator = validator("Status");
        assert_eq!(faults(&validator, &answer), Vec::<String>::new());
        for (field, wrong) in
            [("uptime_seconds", json!("x")), ("clusters", json!([{}])), ("new", json!(1))]
        {
            let mut answer = answer.clone();
            answer[field] = wrong;
            assert_ne!(faults(&validator, &answer), Vec::<String>::new(), "{field}");
        }
        let mut answer = answer;
        answer.as_object_mut().unwrap().remove("vips");
        assert_ne!(faults(&validator, &answer), Vec::<String>::new(), "every field is there");
    }

    #[test]
    fn the_history_is_as_its_schema_says() {
        let (mut past, stats, now) = (sample::past(), sample::stats(), sample::now());
        past.segments.observe(&sample::snapshot(), now.at);
        let points = past.rates.points(&sample::snapshot(), &stats);
        past.series.push(points);
        let answer = serde_json::to_value(past::compose(&past, Range::TenMinutes, &now)).unwrap();
        assert_eq!(faults(&validator("History"), &answer), Vec::<String>::new());
    }
}
