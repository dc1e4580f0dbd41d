//! The `gpferry` program: parse, run, print the failure, exit.

use std::io::Write;
use std::process::ExitCode;

use gpferry::cli::{Cli, Common, Format};
use gpferry::commands::dispatch;
use gpferry::exit::Exit;
use gpferry::failure::Failure;
use gpferry::progress::Screen;
use gpferry::report::failure::text;

/// Where messages are wrapped: logs and mails have no width of their own.
const WIDTH: u16 = 80;

fn main() -> ExitCode {
    // Nothing that gpferry makes is readable by others, whatever the caller's umask.
    rustix::process::umask(rustix::fs::Mode::RWXO);
    let cli = Cli::read();
    let screen = Screen::default();
    log_to(&screen, &cli.common);
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| dispatch(&cli, &screen))) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(failure)) => say(screen, &failure).into(),
        // The panic's own message has been printed.
        Err(_) => Exit::Unforeseen.into(),
    }
}

/// Prints what failed and what to try.
fn say(mut screen: Screen, failure: &Failure) -> Exit {
    // Where stderr is gone the exit code must do.
    let _ = screen.write_all(text(failure, WIDTH).as_bytes());
    failure.exit()
}

fn log_to(screen: &Screen, common: &Common) {
    let level = match (common.quiet, common.verbose) {
        (true, _) => "error",
        (false, 0) => "gpferry=info,warn",
        (false, 1) => "gpferry=debug,warn",
        (false, _) => "trace",
    };
    let mut logger = env_logger::Builder::new();
    // What goes over a webhook's connection is logged by its library byte by byte, tokens too.
    let level = format!("{level},ureq=off,ureq_proto=off");
    logger.parse_filters(&level).target(env_logger::Target::Pipe(Box::new(screen.clone())));
    match common.log_format {
        Format::Text => logger.format_timestamp_millis().format_target(false),
        Format::Json => logger.format(|out, record| {
            let line = serde_json::json!({
                "version": 1,
                "time": jiff::Timestamp::now().to_string(),
                "level": record.level().as_str(),
                "target": record.target(),
                "message": record.args().to_string(),
            });
            writeln!(out, "{line}")
        }),
    };
    logger.init();
}
