//! The command line: flags and their help.

use std::path::PathBuf;

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use globset::Glob;
use jiff::tz::TimeZone;

use crate::exit::Exit;
use crate::inventory;

/// Moves tables, window by window, from database clusters that are reached only by SSH into Greenplum.
#[derive(Debug, Parser)]
#[command(name = "gpferry", version, max_term_width = 100, after_help = exit_codes())]
pub struct Cli {
    #[command(flatten)]
    /// What every command takes.
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line; ends the process where it is wrong, or asks for help.
    pub fn read() -> Self {
        let mut cli = Self::parse();
        cli.common.format = match cli.common.shape {
            Shape::Text => Format::Text,
            Shape::Json => Format::Json,
            Shape::Csv if matches!(cli.command, Command::History(_)) => Format::Text,
            Shape::Csv => {
                let kind = clap::error::ErrorKind::ArgumentConflict;
                Self::command().error(kind, "`--format csv` is for `gpferry history` alone").exit()
            }
        };
        cli
    }
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Common {
    /// The YAML file that names mount, target, sources and jobs
    #[arg(
        short,
        long,
        global = true,
        env = "GPFERRY_INVENTORY",
        default_value = "inventory.yml",
        value_name = "PATH"
    )]
    pub inventory: PathBuf,
    /// Where the record of all runs is kept [default: beside the inventory, INVENTORY.ledger.sqlite]
    #[arg(long, global = true, env = "GPFERRY_LEDGER", value_name = "PATH")]
    pub ledger: Option<PathBuf>,
    /// An SSH configuration to use instead of ~/.ssh/config
    #[arg(long, global = true, env = "GPFERRY_SSH_CONFIG", value_name = "PATH")]
    pub ssh_config: Option<PathBuf>,
    /// How results are written to stdout
    #[arg(long = "format", global = true, default_value = "text", value_name = "FORMAT")]
    pub shape: Shape,
    /// The same, for every command that writes no CSV.
    #[arg(skip)]
    pub format: Format,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say only errors on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// No bars on a terminal, and no progress lines elsewhere
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// How log lines on stderr are written
    #[arg(long, global = true, default_value = "text", value_name = "FORMAT")]
    pub log_format: Format,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// For people.
    Text,
    /// For programs: one document with a `version`.
    Json,
    /// For spreadsheets: a header and a line each; `history` alone.
    Csv,
}

/// How something is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one document with a `version`.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Is every host, path, user, script and database ready? Changes nothing
    Preflight(Look),
    /// Show what `run` would do now; touches nothing
    Plan(Planned),
    /// Export and load every unit that is due; resumes what an earlier run left
    Run(Run),
    /// The first half of `run`: files on the mount, nothing loaded
    Export(Moves),
    /// The second half of `run`: loads what `export` left on the mount
    Load(Moves),
    /// Is the target what the source is? Counts, then digests, then keys; changes nothing
    Compare(Compare),
    /// Move again exactly the windows that were found to differ
    Repair(Repair),
    /// Per job and table: how far, how much, what failed and what to do
    Status(Narrow),
    /// Units, attempts or runs of the past, newest first
    History(History),
    /// Remove what is older than the inventory's `keep` says
    Prune(Prune),
    /// Move a damaged ledger aside, and make a new one from the load log
    RebuildLedger,
    /// Write an inventory that holds what the databases under `catalog:` hold, to leave those behind
    Import(Import),
    /// Is everything normal? What is wrong, who is told, who has taken note
    Alarm {
        /// What of it.
        #[command(subcommand)]
        what: AlarmCommand,
    },
    /// Show a host's keys, and record them once you have compared them
    Trust(Trust),
    /// What a remote exit code means and what to try
    Explain {
        /// The exit code, 0 to 255
        code: u32,
    },
}

/// Which units.
#[derive(Debug, Clone, Args)]
pub struct Select {
    #[command(flatten)]
    /// Which jobs and tables.
    pub narrow: Narrow,
    /// Start of the first window, instead of the job's `from`
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<String>,
    /// Final end, instead of the job's `until`
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<String>,
    /// At most so many units
    #[arg(long, value_name = "N")]
    pub max_units: Option<usize>,
    /// Also try again what failed in as many runs as `retries` allows
    #[arg(long)]
    pub retry_failed: bool,
}

/// What is planned, and how closely.
#[derive(Debug, Clone, Args)]
pub struct Planned {
    #[command(flatten)]
    /// Which units.
    pub select: Select,
    /// Also ask the sources how large tables are, and show what is cut in slices as those
    #[arg(long)]
    pub slices: bool,
}

/// Which units are moved, and how the run begins.
#[derive(Debug, Clone, Args)]
pub struct Moves {
    #[command(flatten)]
    /// Which units.
    pub select: Select,
    /// Show the first keys that collide; they are values out of the tables
    #[arg(long)]
    pub show_keys: bool,
    /// Start without looking first whether the mount can be used
    #[arg(long)]
    pub no_preflight: bool,
}

/// What `run` takes beyond its halves.
#[derive(Debug, Clone, Args)]
pub struct Run {
    #[command(flatten)]
    /// What its halves take too.
    pub moves: Moves,
    /// First create the tables that the target lacks, after the source's catalog
    #[arg(long)]
    pub create_tables: bool,
    /// Create the tables that the target lacks, due or not, and move nothing
    #[arg(long, conflicts_with_all = ["from", "until", "max_units", "retry_failed"])]
    pub tables_only: bool,
}

/// What is compared, and how deep.
#[derive(Debug, Clone, Args)]
pub struct Compare {
    #[command(flatten)]
    /// Which jobs and tables.
    pub narrow: Narrow,
    /// Only windows that end after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<String>,
    /// Only windows that begin before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<String>,
    /// Digests of all rows, not only of windows whose number of rows differs
    #[arg(long)]
    pub deep: bool,
    /// At most so many keys of each table; they are values out of the tables
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Show what changed columns hold on both sides, too
    #[arg(long)]
    pub show_values: bool,
    /// A new CSV file to write the keys to
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
}

/// What is moved again, and how much of it.
#[derive(Debug, Clone, Args)]
pub struct Repair {
    #[command(flatten)]
    /// Which jobs and tables.
    pub narrow: Narrow,
    /// Only windows that end after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<String>,
    /// Only windows that begin before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<String>,
    /// Compare again, show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Also delete rows that only the target has
    #[arg(long)]
    pub delete_extra: bool,
    /// More windows than this only after a question
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub max_windows: usize,
    /// Answer that question with yes
    #[arg(long)]
    pub yes: bool,
    /// Start without looking first whether the mount can be used
    #[arg(long)]
    pub no_preflight: bool,
}

/// What preflight looks at.
#[derive(Debug, Clone, Args)]
pub struct Look {
    #[command(flatten)]
    /// Which jobs and tables.
    pub narrow: Narrow,
    /// Only hosts of this name, as in the inventory; a glob, may be given more than once
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    pub host: Vec<Glob>,
    /// Only this part; may be given more than once
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    pub only: Vec<Part>,
}

/// A part of preflight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Reaching the hosts.
    Reach,
    /// What is on the hosts.
    Host,
    /// The shared directory, on the runner and on every host.
    Mount,
    /// Scripts that people have already.
    Script,
    /// The source databases.
    Source,
    /// The target.
    Target,
}

/// Which jobs and tables.
#[derive(Debug, Clone, Args)]
pub struct Narrow {
    /// Only jobs of this name; a glob, may be given more than once
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    pub job: Vec<Glob>,
    /// Only tables of this name, as schema.table; a glob, may be given more than once
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    pub table: Vec<Glob>,
    /// Only jobs of this source; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub source: Vec<String>,
}

/// What of the past.
#[derive(Debug, Args)]
pub struct History {
    #[command(flatten)]
    /// Which jobs and tables.
    pub narrow: Narrow,
    /// Only those that stand there; may be given more than once
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<StateWord>,
    /// Not before this time, or so long ago: `2021-08-10 04:00`, `24h`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before this time, or so long ago
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only what this run did
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Every attempt, not the units
    #[arg(long, conflicts_with = "runs")]
    pub attempts: bool,
    /// The runs, not the units
    #[arg(long, conflicts_with_all = ["state", "job", "table", "source"])]
    pub runs: bool,
    /// At most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub limit: usize,
}

/// Where a unit or an attempt stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateWord {
    /// Its export was begun.
    Exporting,
    /// Its file is published.
    Exported,
    /// Its load was begun.
    Loading,
    /// Its rows are in the target.
    Loaded,
    /// It failed.
    Failed,
    /// Its rows are moved by units of other bounds.
    Replaced,
}

/// What is asked about alarms.
#[derive(Debug, Subcommand)]
pub enum AlarmCommand {
    /// Look at everything, tell the sinks, and say NORMAL (exit code 0) or ABNORMAL (4)
    Check(AlarmCheck),
    /// The alarms that stand, newest first
    List {
        /// Also those that are over
        #[arg(long)]
        all: bool,
    },
    /// Take note of alarms: they are not told again until they are over
    Ack(Acknowledge),
    /// Try sinks: each is told a message that says nothing else
    Test {
        /// Sinks of the inventory [default: all]
        #[arg(value_name = "SINK")]
        sink: Vec<String>,
    },
    /// Tell the sinks now what they have not heard
    Send,
}

/// What a check says.
#[derive(Debug, Args)]
pub struct AlarmCheck {
    /// Count what was raised and what was over since this time, or so long ago; what stands counts however old it is
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub since: String,
    /// What somebody has taken note of does not make it ABNORMAL
    #[arg(long)]
    pub unacknowledged: bool,
}

/// Which alarms somebody takes note of.
#[derive(Debug, Args)]
pub struct Acknowledge {
    /// Their numbers, as `gpferry alarm list` shows them
    #[arg(value_name = "NUMBER", required_unless_present = "all")]
    pub number: Vec<i64>,
    /// All that stand
    #[arg(long, conflicts_with = "number")]
    pub all: bool,
}

/// What is removed.
#[derive(Debug, Args)]
pub struct Prune {
    /// Only show what would be removed; `-v` names every file
    #[arg(long)]
    pub dry_run: bool,
}

/// What is written down.
#[derive(Debug, Args)]
pub struct Import {
    /// Catalogs of the inventory [default: all]
    #[arg(value_name = "NAME")]
    pub catalog: Vec<String>,
    /// A new file to write to, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Whose keys.
#[derive(Debug, Args)]
pub struct Trust {
    /// A source of the inventory, an alias, or user@host:port
    pub host: String,
    /// Record without asking, for scripts that compare the fingerprint themselves
    #[arg(long, value_name = "SHA256:…")]
    pub fingerprint: Vec<String>,
}

fn glob(text: &str) -> Result<Glob, String> {
    Glob::new(text).map_err(|error| error.to_string())
}

/// Checks the form only: which time one with an offset is, the inventory's zone says.
fn time(text: &str) -> Result<String, String> {
    let error = "not a time like `2021-08-10 00:00:00`, `2021-08-10T00:00`, `2021-08-10`, or `2021-08-10T00:00+08:00`";
    inventory::moment(text, &TimeZone::UTC).map(|_| text.to_owned()).ok_or_else(|| error.into())
}

fn exit_codes() -> String {
    let lines: Vec<String> = Exit::ALL.iter().map(|exit| format!("  {exit}")).collect();
    format!("Exit codes:\n{}", lines.join("\n"))
}
