//! Asks the databases that hold jobs and tables (`catalog:` of the inventory), and gives their rows as text.
//!
//! Only reads: each query is one statement in a read-only transaction. Whatever a server does, asking it ends:
//! connecting and each query have a limit, and so has the number of rows. What the rows mean is decided by
//! [`crate::inventory::Draft`].

mod error;
mod mysql;
mod option_file;
mod postgres;

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

pub use error::CatalogError;

use crate::exit::Exit;
use crate::inventory::{Answer, Fetched, JobCatalog};
use crate::stop::Stop;

/// What asking a catalog may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest time to connect, and for each query.
    pub time: Duration,
    /// Most rows that a query may give.
    pub rows: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(30), rows: 100_000 }
    }
}

/// The server notices its limit by itself; this much later it is left alone.
const GRACE: Duration = Duration::from_secs(2);

/// What every one of these catalogs holds, by name. `variable` looks up an environment variable.
///
/// # Errors
/// [`CatalogError`] of the first that cannot be read; [`CatalogError::Stopped`] where `stop` was asked for.
pub fn fetch<'a>(
    catalogs: impl IntoIterator<Item = &'a JobCatalog>,
    variable: &(impl Fn(&str) -> Option<String> + Clone + Send + 'static),
    limits: Limits,
    stop: &Stop,
) -> Result<BTreeMap<String, Fetched>, CatalogError> {
    let mut all = BTreeMap::new();
    for catalog in catalogs {
        all.insert(catalog.name.clone(), fetch_one(catalog.clone(), variable.clone(), limits, stop)?);
    }
    Ok(all)
}

/// What one thread tells another about its progress.
enum News {
    /// It begins to do this.
    Begun(&'static str),
    Done(Result<Fetched, CatalogError>),
}

/// By a thread of its own, which is left behind when it takes too long: no library bounds everything that a
/// server can do to it.
fn fetch_one(
    catalog: JobCatalog,
    variable: impl Fn(&str) -> Option<String> + Send + 'static,
    limits: Limits,
    stop: &Stop,
) -> Result<Fetched, CatalogError> {
    let name = catalog.name.clone();
    let (tell, hear) = channel();
    thread::spawn(move || {
        let fetched = ask(&catalog, &variable, limits, &tell);
        // Nobody listens any more where it took too long.
        let _ = tell.send(News::Done(fetched));
    });
    let mut doing = CONNECT;
    let mut until = Instant::now() + limits.time + GRACE;
    loop {
        if stop.asked() {
            return Err(CatalogError::Stopped {
                catalog: name,
                exit: stop.exit().unwrap_or(Exit::Inventory),
            });
        }
        let left = until.saturating_duration_since(Instant::now());
        match hear.recv_timeout(left.min(Duration::from_millis(100))) {
            Ok(News::Done(fetched)) => return fetched,
            Ok(News::Begun(what)) => {
                doing = what;
                until = Instant::now() + limits.time + GRACE;
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(CatalogError::TooSlow { catalog: name, doing, limit: limits.time });
            }
        }
    }
}

const CONNECT: &str = "connect";

/// A session with a catalog's server.
trait Session {
    /// Every row of one statement, and the columns' names.
    fn answer(&mut self, doing: &'static str, sql: &str, limits: Limits) -> Result<Answer, CatalogError>;
}

fn ask(
    catalog: &JobCatalog,
    variable: &impl Fn(&str) -> Option<String>,
    limits: Limits,
    tell: &Sender<News>,
) -> Result<Fetched, CatalogError> {
    let begin = |doing| {
        let _ = tell.send(News::Begun(doing));
    };
    begin(CONNECT);
    let scheme = catalog.url.split("://").next().unwrap_or_default();
    let mut session: Box<dyn Session> = if matches!(scheme, "mysql" | "mariadb") {
        Box::new(mysql::open(catalog, variable, limits)?)
    } else {
        Box::new(postgres::open(catalog, variable, limits)?)
    };
    let mut fetched = Fetched::default();
    for (query, doing, answer) in [
        (&catalog.tables, "answer the query of `tables`", &mut fetched.tables),
        (&catalog.jobs, "answer the query of `jobs`", &mut fetched.jobs),
    ] {
        if let Some(query) = query {
            begin(doing);
            *answer = Some(session.answer(doing, &query.sql, limits)?);
        }
    }
    Ok(fetched)
}

/// Refuses an answer that was cut.
fn enough(catalog: &str, doing: &'static str, answer: &Answer, limits: Limits) -> Result<(), CatalogError> {
    if answer.rows.len() > limits.rows {
        return Err(CatalogError::TooMany { catalog: catalog.to_owned(), doing, most: limits.rows });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Draft;
    use std::net::TcpListener;
    use std::path::Path;

    fn catalog(url: &str) -> Draft {
        let text = format!(
            "version: 1\nmount: {{ path: /m }}\ntarget: {{ url: postgresql://u@h/d }}\nsources:\n  \
             s: {{ host: h, engine: postgres, database: d }}\ncatalog:\n  old: {{ url: \"{url}\", like: etl_conf_d }}\n"
        );
        Draft::parse(&text, Path::new("i.yml")).unwrap()
    }

    fn refused(url: &str) -> CatalogError {
        let limits = Limits { time: Duration::from_secs(1), rows: 10 };
        let draft = catalog(url);
        fetch(&draft.inventory().catalogs, &|_: &str| None, limits, &Stop::default()).unwrap_err()
    }

    #[test]
    fn a_server_that_takes_the_connection_and_says_nothing_costs_the_limit_and_no_more() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        for scheme in ["mysql", "postgresql"] {
            let begin = Instant::now();
            let error = refused(&format!("{scheme}://u@127.0.0.1:{port}/d"));
            assert!(begin.elapsed() < Duration::from_secs(8), "{scheme}: {:?}", begin.elapsed());
            let said = error.to_string();
            assert!(said.contains("catalog old") && said.contains("1 s"), "{scheme}: {said}");
            assert!(!error.remedy().is_empty());
        }
    }

    #[test]
    fn nobody_there_is_an_error_that_names_the_place() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for scheme in ["mysql", "postgresql"] {
            let said = refused(&format!("{scheme}://u@127.0.0.1:{port}/d")).to_string();
            assert!(said.contains("catalog old") && said.contains(&format!("127.0.0.1:{port}")), "{said}");
            assert!(said.to_lowercase().contains("refused"), "{said}");
        }
    }

    #[test]
    fn a_stop_ends_the_waiting() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let draft = catalog(&format!("mysql://u@{}/d", silent.local_addr().unwrap()));
        let stop = Stop::default();
        stop.give_up();
        let begin = Instant::now();
        let error =
            fetch(&draft.inventory().catalogs, &|_: &str| None, Limits::default(), &stop).unwrap_err();
        assert!(matches!(error, CatalogError::Stopped { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
