//! The table: what is documented.

/// A hop of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    Discovery,
    Jwks,
    Graph,
    OnBehalfOf,
    Sts,
    Iam,
    OwnIdentity,
    AdminApi,
    Dial,
    Tls,
    Login,
}

/// What is documented of a hop and a fault.
#[derive(Debug, Clone, Copy)]
pub enum Cell {
    /// The client is told this SQLSTATE.
    Refused(&'static str),
    /// There is no such thing, and why.
    Cannot(&'static str),
}

/// One hop.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The key of `[deadlines]`.
    pub deadline: &'static str,
    /// In the order of [`FAULTS`].
    pub cells: [Cell; 8],
}

/// What goes wrong.
pub const FAULTS: [&str; 8] = ["slow", "refused", "reset", "4xx", "429", "5xx", "garbage", "huge body"];

/// In the order in which a login meets them.
pub const HOPS: [Hop; 11] = [
    Hop::Discovery,
    Hop::Jwks,
    Hop::Graph,
    Hop::OnBehalfOf,
    Hop::Sts,
    Hop::Iam,
    Hop::OwnIdentity,
    Hop::AdminApi,
    Hop::Dial,
    Hop::Tls,
    Hop::Login,
];

const UNAVAILABLE: Cell = Cell::Refused("57P03");
const BROKEN: Cell = Cell::Refused("08006");
const REFUSED: Cell = Cell::Refused("28000");
const BEFORE_BYTES: Cell = Cell::Cannot("TCP alone carries no answer: what is said comes with the hop after it");
const NO_STATUS: Cell = Cell::Cannot("TLS has alerts, no statuses: a handshake succeeds or breaks");
const AT_DIAL: Cell = Cell::Cannot("a connection is refused at the dial; from then on it can break, not be refused");

/// In the order of [`HOPS`].
pub const MATRIX: [Row; 11] = [
    Row { deadline: "keys", cells: [UNAVAILABLE; 8] },
    Row { deadline: "keys", cells: [UNAVAILABLE; 8] },
    Row { deadline: "keys", cells: [UNAVAILABLE; 8] },
    // A refusal of Entra's own is JSON, and its table is in config/refusals.md; a status alone says nothing.
    Row {
        deadline: "on_behalf_of",
        cells: [UNAVAILABLE, UNAVAILABLE, BROKEN, BROKEN, UNAVAILABLE, UNAVAILABLE, BROKEN, BROKEN],
    },
    Row {
        deadline: "sts",
        cells: [UNAVAILABLE, UNAVAILABLE, BROKEN, REFUSED, UNAVAILABLE, UNAVAILABLE, BROKEN, BROKEN],
    },
    Row {
        deadline: "iam_credentials",
        cells: [UNAVAILABLE, UNAVAILABLE, BROKEN, REFUSED, UNAVAILABLE, UNAVAILABLE, BROKEN, BROKEN],
    },
    Row {
        deadline: "own_identity",
        cells: [UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, BROKEN, BROKEN],
    },
    Row {
        deadline: "admin_api",
        cells: [UNAVAILABLE, UNAVAILABLE, BROKEN, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, BROKEN, BROKEN],
    },
    Row {
        deadline: "dial",
        cells: [
            UNAVAILABLE,
            UNAVAILABLE,
            Cell::Cannot("a reset in answer to the first packet is a refused connection; later it is TLS that breaks"),
            BEFORE_BYTES,
            BEFORE_BYTES,
            BEFORE_BYTES,
            BEFORE_BYTES,
            BEFORE_BYTES,
        ],
    },
    Row {
        deadline: "handshake",
        cells: [UNAVAILABLE, AT_DIAL, BROKEN, NO_STATUS, NO_STATUS, NO_STATUS, BROKEN, BROKEN],
    },
    // PostgreSQL's own statuses: 28000, 53300, 57P03, passed on as they are.
    Row {
        deadline: "login",
        cells: [UNAVAILABLE, AT_DIAL, BROKEN, REFUSED, Cell::Refused("53300"), UNAVAILABLE, BROKEN, BROKEN],
    },
];

impl Hop {
    /// As the page says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discovery => "discovery document",
            Self::Jwks => "key set",
            Self::Graph => "Microsoft Graph",
            Self::OnBehalfOf => "Entra, on behalf of",
            Self::Sts => "Google STS",
            Self::Iam => "IAM Credentials",
            Self::OwnIdentity => "the proxy's own identity",
            Self::AdminApi => "SQL Admin API",
            Self::Dial => "dial",
            Self::Tls => "TLS",
            Self::Login => "login",
        }
    }
}
