//! Messages of both sides, one behind the other in a stream (PostgreSQL documentation, "Message Formats").

use pgpassport::wire::append;

/// What one side sends.
#[derive(Debug, Default)]
pub struct Stream(Vec<u8>);

/// A result's rows.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// How many.
    pub count: u64,
    /// Bytes of each one's second column.
    pub bytes: usize,
}

impl Stream {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// What was put in.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn add(&mut self, kind: u8, body: &[u8]) -> &mut Self {
        append(&mut self.0, kind, body);
        self
    }

    // ---- A client's ----

    pub fn query(&mut self, text: &str) -> &mut Self {
        self.add(b'Q', &[text.as_bytes(), &[0]].concat())
    }

    /// With one parameter's type.
    pub fn parse(&mut self, name: &str, text: &str) -> &mut Self {
        self.add(b'P', &[name.as_bytes(), &[0], text.as_bytes(), b"\0\0\x01\0\0\0\x17"].concat())
    }

    /// The unnamed portal, with one parameter and its result as text.
    pub fn bind(&mut self, statement: &str, parameter: u64) -> &mut Self {
        let value = parameter.to_string();
        let length = u32::try_from(value.len()).unwrap_or_default().to_be_bytes();
        let body = [b"\0", statement.as_bytes(), b"\0\0\0\0\x01", &length, value.as_bytes(), b"\0\0"].concat();
        self.add(b'B', &body)
    }

    pub fn describe(&mut self) -> &mut Self {
        self.add(b'D', b"P\0")
    }

    pub fn execute(&mut self) -> &mut Self {
        self.add(b'E', b"\0\0\0\0\0")
    }

    pub fn sync(&mut self) -> &mut Self {
        self.add(b'S', b"")
    }

    // ---- A server's ----

    pub fn parsed(&mut self) -> &mut Self {
        self.add(b'1', b"")
    }

    pub fn bound(&mut self) -> &mut Self {
        self.add(b'2', b"")
    }

    /// A result of two columns; `described` where its columns are told first.
    pub fn rows(&mut self, rows: Rows, described: bool) -> &mut Self {
        if described {
            let column = |name: &str, of: &[u8]| [name.as_bytes(), b"\0\0\0\x40\x01\0\x02", of].concat();
            let columns = [
                b"\0\x02".to_vec(),
                column("id", b"\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"),
                column("customer", b"\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"),
            ];
            self.add(b'T', &columns.concat());
        }
        let text = vec![b'x'; rows.bytes];
        let length = u32::try_from(text.len()).unwrap_or_default().to_be_bytes();
        let row = [b"\0\x02\0\0\0\x044711".as_slice(), &length, &text].concat();
        for _ in 0..rows.count {
            self.add(b'D', &row);
        }
        self.complete(&format!("SELECT {}", rows.count))
    }

    pub fn complete(&mut self, tag: &str) -> &mut Self {
        self.add(b'C', &[tag.as_bytes(), &[0]].concat())
    }

    /// A syntax error at this position.
    pub fn error(&mut self, position: usize) -> &mut Self {
        let fields = format!(
            "SERROR\0VERROR\0C42601\0Msyntax error at or near \"SELETC\"\0P{position}\0Fscan.l\0L1188\0Rscanner_yyerror\0\0"
        );
        self.add(b'E', fields.as_bytes())
    }

    /// `G`: send rows; `H`: here they come.
    pub fn copy(&mut self, kind: u8) -> &mut Self {
        self.add(kind, b"\0\0\x04\0\0\0\0\0\0\0\0")
    }

    pub fn ready(&mut self, status: u8) -> &mut Self {
        self.add(b'Z', &[status])
    }

    // ---- Either's ----

    /// Rows of about 100 bytes.
    pub fn copy_rows(&mut self, count: u64) -> &mut Self {
        for row in 0..count {
            let line = format!("{row},c-{row:06},{}.50,2026-11-22T10:00:00Z,{:-<60}\n", row % 1000, "note");
            self.add(b'd', line.as_bytes());
        }
        self
    }

    pub fn copy_done(&mut self) -> &mut Self {
        self.add(b'c', b"")
    }
}
