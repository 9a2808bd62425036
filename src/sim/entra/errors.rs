//! Entra's error bodies: OAuth `error`, an `AADSTS` code and its text, and the ids that support asks for.

use crate::time::{Clock, Timestamp};
use axum::Json;
use axum::body::Body;
use axum::http::Response;
use axum::response::IntoResponse;
use serde_json::{Value, json};
use uuid::Uuid;

/// A refused request: status and body.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    body: Value,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        (crate::sim::https::status(self.status), Json(self.body)).into_response()
    }
}

impl Refusal {
    /// The same with one more member.
    pub(super) fn member(mut self, name: &str, value: String) -> Self {
        if let Some(members) = self.body.as_object_mut() {
            members.insert(name.to_owned(), value.into());
        }
        self
    }

    /// The same as the page that a browser gets.
    pub(super) fn page(&self) -> Response<Body> {
        let text = self.body.get("error_description").and_then(Value::as_str).unwrap_or_default();
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let page = format!("<!doctype html><title>Sorry, but we're having trouble signing you in.</title><p>{text}");
        (crate::sim::https::status(self.status), axum::response::Html(page)).into_response()
    }
}

/// Makes refusals at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refuse(Timestamp);

impl Refuse {
    /// Takes the time for `timestamp`.
    pub(super) fn at(clock: &Clock) -> Self {
        Self(clock.now())
    }

    /// `{"error", "error_description": "AADSTS…: … Trace ID: … Correlation ID: … Timestamp: …", …}`.
    pub(super) fn with(self, status: u16, error: &str, code: u32, text: &str) -> Refusal {
        let (trace, correlation) = (Uuid::new_v4(), Uuid::new_v4());
        let timestamp = self.0.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let description =
            format!("AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}");
        let body = json!({
            "error": error, "error_description": description, "error_codes": [code], "timestamp": timestamp,
            "trace_id": trace, "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
        });
        Refusal { status, body }
    }

    /// A parameter that must be in the body.
    pub(super) fn missing(self, parameter: &str) -> Refusal {
        let text = format!("The request body must contain the following parameter: '{parameter}'.");
        self.with(400, "invalid_request", 900_144, &text)
    }

    /// A scope that names no API of the tenant.
    pub(super) fn resource(self, resource: &str, tenant: &str) -> Refusal {
        let text = format!(
            "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if \
             the application has not been installed by the administrator of the tenant or consented to by any user \
             in the tenant. You might have sent your authentication request to the wrong tenant."
        );
        self.with(400, "invalid_resource", 500_011, &text)
    }

    /// A scope that the API does not have. (The OAuth code beside it is an assumption.)
    pub(super) fn permission(self, permission: &str, resource: &str) -> Refusal {
        let text = format!(
            "The application 'pgpassport-sign-in' asked for scope '{permission}' that doesn't exist on the resource \
             '{resource}'. Contact the app vendor."
        );
        self.with(400, "invalid_scope", 650_053, &text)
    }

    /// A client id that is no app of the tenant.
    pub(super) fn client(self, client: &str, tenant: &str) -> Refusal {
        let text = format!(
            "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if \
             the application has not been installed by the administrator of the tenant or consented to by any user \
             in the tenant. You may have sent your authentication request to the wrong tenant."
        );
        self.with(400, "unauthorized_client", 700_016, &text)
    }
}

/// A path that names no tenant.
pub(super) fn unknown_tenant(name: &str, clock: &Clock) -> Refusal {
    let text = format!(
        "Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the \
         correct cloud. Check with your subscription administrator, this may happen if there are no active \
         subscriptions for the tenant."
    );
    Refuse::at(clock).with(400, "invalid_tenant", 90_002, &text)
}

/// What a failing front end answers: a status and a page, not JSON.
pub(super) fn outage(status: u16) -> Response<Body> {
    let page = "<html><body><h2>Our services aren't available right now</h2></body></html>";
    (crate::sim::https::status(status), axum::response::Html(page)).into_response()
}
