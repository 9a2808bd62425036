//! PostgreSQL's client programs as their users run them: `pgbench`, `pg_dump`, `pg_restore`, `psql`.

use super::{DATABASE, Postgres15, Printed, RESTORED, Suited, run};
use crate::psql::Login;

/// PostgreSQL 15's programs against one chain.
#[derive(Debug)]
pub struct Tools<'a> {
    /// Where the programs are.
    pub postgres: &'a Postgres15,
    /// What they reach.
    pub suited: &'a Suited,
}

impl Tools<'_> {
    /// Runs a program through the proxy; it must go well. Arguments are separated by spaces.
    pub async fn through(&self, program: &str, arguments: &str) -> String {
        self.run(program, arguments, self.suited.through(DATABASE)).await
    }

    /// The same past the proxy, as another superuser.
    pub async fn past(&self, program: &str, arguments: &str) -> String {
        self.run(program, arguments, self.suited.onlooker(DATABASE)).await
    }

    async fn run(&self, program: &str, arguments: &str, login: Login) -> String {
        let mut command = self.postgres.program(program);
        command.args(arguments.split_whitespace()).current_dir(self.suited.chain.folder());
        let Printed { well, output } = run(command, &login, &self.suited.chain).await;
        assert!(well, "{program} {arguments}: {output}");
        output
    }

    /// One statement's result past the proxy.
    pub async fn ask(&self, statement: &str) -> String {
        self.suited
            .onlooker(DATABASE)
            .psql(self.suited.chain.cloud.ca_path(), &["-c", statement])
            .await
            .well()
            .to_owned()
    }

    /// A file in the folder where the programs run.
    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.suited.chain.folder().join(name)
    }

    /// Everything in a database, taken past the proxy; without the lines that differ in each dump.
    pub async fn contents(&self, database: &str) -> String {
        let dump = self.past("pg_dump", &format!("--dbname={database}")).await;
        let random = |line: &&str| !(line.starts_with("\\restrict ") || line.starts_with("\\unrestrict "));
        dump.lines().filter(random).collect::<Vec<_>>().join("\n")
    }

    /// An empty database to restore into.
    pub async fn empty(&self) {
        self.past("dropdb", &format!("--if-exists {RESTORED}")).await;
        self.past("createdb", &format!("--template=template0 {RESTORED}")).await;
    }
}
