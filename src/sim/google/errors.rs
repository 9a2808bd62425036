//! Google's error bodies: `google.rpc.Status` as JSON for APIs, OAuth errors for STS.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, Response};
use axum::response::IntoResponse;
use serde_json::{Value, json};

/// A refused API call.
#[derive(Debug, Clone)]
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
    /// `{"error": {code, message, status}}`.
    pub(super) fn new(code: u16, status: &str, message: &str) -> Self {
        Self { status: code, body: json!({ "error": { "code": code, "message": message, "status": status } }) }
    }

    /// The same with `errors[]`, as the SQL Admin API has it.
    pub(super) fn reason(mut self, reason: &str) -> Self {
        let message = self.body.pointer("/error/message").cloned().unwrap_or_default();
        let errors = json!([{ "message": message, "domain": "global", "reason": reason }]);
        self.insert("errors", errors);
        self
    }

    /// The same with an `ErrorInfo` detail.
    pub(super) fn info(mut self, reason: &str, domain: &str, metadata: Value) -> Self {
        let detail = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": domain,
            "metadata": metadata,
        }]);
        self.insert("details", detail);
        self
    }

    fn insert(&mut self, name: &str, value: Value) {
        if let Some(error) = self.body.get_mut("error").and_then(Value::as_object_mut) {
            error.insert(name.to_owned(), value);
        }
    }
}

/// 401 for a token that is missing, unknown or expired.
pub(super) fn unauthenticated(bearer: Option<&str>, service: &str) -> Refusal {
    let advice = "Expected OAuth 2 access token, login cookie or other valid authentication credential. See \
                  https://developers.google.com/identity/sign-in/web/devconsole-project.";
    let (message, reason, info) = if bearer.is_some() {
        (
            format!("Request had invalid authentication credentials. {advice}"),
            "authError",
            "ACCESS_TOKEN_TYPE_UNSUPPORTED",
        )
    } else {
        (format!("Request is missing required authentication credential. {advice}"), "required", "CREDENTIALS_MISSING")
    };
    Refusal::new(401, "UNAUTHENTICATED", &message).reason(reason).info(
        info,
        "googleapis.com",
        json!({ "service": service }),
    )
}

/// 403 for a token without the API's scope.
pub(super) fn insufficient_scopes(service: &str) -> Refusal {
    Refusal::new(403, "PERMISSION_DENIED", "Request had insufficient authentication scopes.")
        .reason("insufficientPermissions")
        .info("ACCESS_TOKEN_SCOPE_INSUFFICIENT", "googleapis.com", json!({ "service": service }))
}

/// 400 for a request that cannot be understood.
pub(super) fn invalid_argument(message: &str) -> Refusal {
    Refusal::new(400, "INVALID_ARGUMENT", message)
}

/// What a fault orders of an API.
pub(super) fn outage(status: u16) -> Response<Body> {
    let refusal = match status {
        401 => unauthenticated(Some(""), "googleapis.com"),
        403 => Refusal::new(403, "PERMISSION_DENIED", "The client is not authorized to make this request.")
            .reason("notAuthorized"),
        404 => Refusal::new(404, "NOT_FOUND", "The Cloud SQL instance does not exist.").reason("instanceDoesNotExist"),
        429 => Refusal::new(
            429,
            "RESOURCE_EXHAUSTED",
            "Quota exceeded for quota metric 'Queries' and limit 'Queries per minute per user' of service \
             'sqladmin.googleapis.com' for consumer 'project_number:123456789012'.",
        )
        .reason("rateLimitExceeded")
        .info("RATE_LIMIT_EXCEEDED", "googleapis.com", json!({ "service": "sqladmin.googleapis.com" })),
        503 => Refusal::new(503, "UNAVAILABLE", "The service is currently unavailable.").reason("backendError"),
        other => Refusal::new(other, "INTERNAL", "Internal error encountered.").reason("backendError"),
    };
    refusal.into_response()
}

/// What a fault orders of STS.
pub(super) fn oauth_outage(status: u16) -> Response<Body> {
    let body = json!({ "error": "internal_failure", "error_description": "Internal error encountered." });
    (crate::sim::https::status(status), Json(body)).into_response()
}

/// The bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}
