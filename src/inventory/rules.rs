//! `window`, `load` and `export`: written in `defaults`, in a job, at a table, and laid over each other key by
//! key.
//!
//! Each layer is read once, however many tables it serves, so that a fault in `defaults` is one fault.

use std::time::Duration;

use super::load_keys::{self, LoadKeys};
use super::model::{
    Compressor, Cut, ExportMethod, ExportRule, LoadMode, LoadRule, NullWindow, OnPkViolation, WindowBy,
    WindowRule,
};
use super::reader::{At, Fields, Reader};
use super::scalars::{length, number, pause, size, text, whole, word};
use super::yaml::Value;
use crate::measure::Scale;
use crate::window::Length;

/// What an id may be: its window's end is one more.
const IDS: std::ops::RangeInclusive<i64> = -i64::MAX..=i64::MAX - 1;

/// What one layer says, or several laid over each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) window: WindowLayer,
    load: LoadLayer,
    export: ExportLayer,
    /// `late_after` and `expect_every`.
    pub(super) expected: Expected,
}

/// What is said about how late something may be.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Expected {
    pub(super) late_after: Option<Duration>,
    pub(super) expect_every: Option<Duration>,
}

/// What is said about windows.
#[derive(Debug, Clone, Default)]
pub(super) enum WindowLayer {
    /// Nothing.
    #[default]
    Silent,
    /// `none`.
    None,
    /// Some of the keys.
    By(WindowKeys),
    /// Something that is a fault already.
    Faulty,
}

/// The keys of a window, each where it is written.
#[derive(Debug, Clone, Default)]
pub(super) struct WindowKeys {
    pub(super) column: Option<String>,
    pub(super) scale: Option<Scale>,
    pub(super) length: Option<Length>,
    pub(super) lag: Option<Duration>,
    pub(super) step: Option<i64>,
    pub(super) from: Option<i64>,
    pub(super) until: Option<i64>,
    pub(super) null_window: Option<NullWindow>,
}

#[derive(Debug, Clone, Default)]
struct LoadLayer {
    mode: Option<LoadMode>,
    matching: Option<Matching>,
    on_pk_violation: Option<OnPkViolation>,
    timeout: Option<Duration>,
    lock_timeout: Option<Duration>,
    more: LoadKeys,
    /// One of the words is a fault already: what it was meant to be is unknown.
    faulty: bool,
}

/// `match`, and the path that it is written at.
#[derive(Debug, Clone)]
struct Matching {
    columns: Vec<String>,
    path: String,
}

#[derive(Debug, Clone, Default)]
struct ExportLayer {
    timeout: Option<Duration>,
    retries: Option<u32>,
    slice_bytes: Option<u64>,
    compressor: Option<Compressor>,
    method: Option<ExportMethod>,
}

impl Rules {
    /// The keys of a map that holds a layer.
    pub(super) fn read(reader: &mut Reader, fields: &Fields<'_>) -> Self {
        Self {
            window: fields.get("window").map(|at| read_window(reader, &at)).unwrap_or_default(),
            load: fields.get("load").map(|at| read_load(reader, &at)).unwrap_or_default(),
            export: fields.get("export").map(|at| read_export(reader, &at)).unwrap_or_default(),
            expected: Expected {
                late_after: limit(reader, fields, "late_after", "late_after: 2h"),
                expect_every: limit(reader, fields, "expect_every", "expect_every: 1h"),
            },
        }
    }

    /// These rules where they say something, those below where not.
    pub(super) fn over(self, below: &Rules) -> Rules {
        Rules {
            window: self.window.over(&below.window),
            load: LoadLayer {
                mode: self.load.mode.or(below.load.mode),
                matching: self.load.matching.or_else(|| below.load.matching.clone()),
                on_pk_violation: self.load.on_pk_violation.or(below.load.on_pk_violation),
                timeout: self.load.timeout.or(below.load.timeout),
                lock_timeout: self.load.lock_timeout.or(below.load.lock_timeout),
                more: self.load.more.over(&below.load.more),
                faulty: self.load.faulty || below.load.faulty,
            },
            export: ExportLayer {
                timeout: self.export.timeout.or(below.export.timeout),
                retries: self.export.retries.or(below.export.retries),
                slice_bytes: self.export.slice_bytes.or(below.export.slice_bytes),
                compressor: self.export.compressor.or(below.export.compressor),
                method: self.export.method.or(below.export.method),
            },
            expected: Expected {
                late_after: self.expected.late_after.or(below.expected.late_after),
                expect_every: self.expected.expect_every.or(below.expected.expect_every),
            },
        }
    }

    /// The path of the `match` in these rules.
    pub(super) fn match_path(&self) -> Option<&str> {
        self.load.matching.as_ref().map(|matching| matching.path.as_str())
    }

    /// Does a mode here use `match`? Yes as well where it is unknown what the mode was meant to be.
    pub(super) fn uses_match(&self) -> bool {
        let LoadRule { mode, on_pk_violation, .. } = self.load_rule_as_written();
        let mode_does = match mode {
            LoadMode::Update | LoadMode::Merge => true,
            LoadMode::Insert | LoadMode::Replace => false,
        };
        mode_does || on_pk_violation == OnPkViolation::Merge || self.load.faulty
    }

    /// May a table with these rules be moved again and again? Yes as well where the mode is unknown.
    pub(super) fn may_repeat(&self) -> bool {
        match self.load_rule_as_written().mode {
            LoadMode::Merge | LoadMode::Replace => true,
            LoadMode::Insert | LoadMode::Update => self.load.faulty,
        }
    }

    /// Defaults filled in, nothing left out.
    fn load_rule_as_written(&self) -> LoadRule {
        let default = LoadRule::default();
        let rule = LoadRule {
            mode: self.load.mode.unwrap_or(LoadMode::Insert),
            match_columns: self.load.matching.as_ref().map(|m| m.columns.clone()).unwrap_or_default(),
            on_pk_violation: self.load.on_pk_violation.unwrap_or(OnPkViolation::Rollback),
            timeout: self.load.timeout.unwrap_or(default.timeout),
            lock_timeout: self.load.lock_timeout.unwrap_or(default.lock_timeout),
            ..default
        };
        self.load.more.complete(rule)
    }

    /// How a table is loaded, without a `match` that its mode does not use.
    pub(super) fn load_rule(&self) -> LoadRule {
        let rule = self.load_rule_as_written();
        if self.uses_match() { rule } else { LoadRule { match_columns: Vec::new(), ..rule } }
    }

    /// How a table is exported, defaults filled in.
    pub(super) fn export_rule(&self) -> ExportRule {
        ExportRule {
            timeout: self.export.timeout.unwrap_or(Duration::from_secs(30 * 60)),
            retries: self.export.retries.unwrap_or(2),
            slice_bytes: self.export.slice_bytes.unwrap_or(64 << 20),
            compressor: self.export.compressor.unwrap_or(Compressor::Auto),
            method: self.export.method.unwrap_or(ExportMethod::Auto),
        }
    }
}

impl WindowLayer {
    fn over(self, below: &WindowLayer) -> WindowLayer {
        match (self, below) {
            (WindowLayer::Silent, below) => below.clone(),
            (WindowLayer::By(_), WindowLayer::Faulty) => WindowLayer::Faulty,
            (WindowLayer::By(keys), WindowLayer::By(below)) => WindowLayer::By(keys.over(below)),
            (this, _) => this,
        }
    }

    /// The rule, with the default lag; or why there is none: an empty text where that is a fault already.
    pub(super) fn rule(&self, every: Option<Length>) -> Result<WindowRule, &'static str> {
        match self {
            WindowLayer::Silent => {
                Err("no window is given for this table, here or in its job or in `defaults`")
            }
            WindowLayer::Faulty => Err(""),
            WindowLayer::None => Ok(WindowRule::None { every }),
            WindowLayer::By(keys) => keys.rule().map(WindowRule::By),
        }
    }
}

impl WindowKeys {
    fn over(self, below: &WindowKeys) -> WindowKeys {
        // Another type makes other lengths and bounds of the layers below meaningless, not wrong: they are for
        // the tables that have the type of that layer.
        WindowKeys {
            column: self.column.or_else(|| below.column.clone()),
            scale: self.scale.or(below.scale),
            length: self.length.or(below.length),
            lag: self.lag.or(below.lag),
            step: self.step.or(below.step),
            from: self.from.or(below.from),
            until: self.until.or(below.until),
            null_window: self.null_window.or(below.null_window),
        }
    }

    fn rule(&self) -> Result<WindowBy, &'static str> {
        let column =
            self.column.clone().ok_or("the window has no column, here or in its job or in `defaults`")?;
        let cut = match self.scale.unwrap_or(Scale::Time) {
            Scale::Id => Cut::Ids {
                step: self
                    .step
                    .ok_or("a window of type `id` has no `step`, the number of ids that it holds")?,
                from: self.from,
                until: self.until,
            },
            scale => Cut::Time { scale, length: self.length },
        };
        Ok(WindowBy {
            column,
            cut,
            lag: self.lag.unwrap_or(Duration::from_secs(5 * 60)),
            null_window: self.null_window.unwrap_or(NullWindow::Skip),
        })
    }
}

fn read_window(reader: &mut Reader, at: &At<'_>) -> WindowLayer {
    const EXAMPLE: &str = "`window: { column: evt_timestamp, length: 4h }` or `window: none`";
    const KEYS: &[&str] = &["column", "type", "length", "lag", "step", "from", "until", "null_window"];
    const NULLS: [(&str, NullWindow); 2] = [("skip", NullWindow::Skip), ("include", NullWindow::Include)];
    if let Value::Text(text) = &at.node.value {
        if text == "none" {
            return WindowLayer::None;
        }
        let shown = reader.secrets.echo(text);
        reader.fault(at, format!("{shown} is neither a map nor `none`"), format!("write it as {EXAMPLE}"));
        return WindowLayer::Faulty;
    }
    let Some(fields) = reader.fields(at, KEYS, EXAMPLE) else {
        return WindowLayer::Faulty;
    };
    let keys = WindowKeys {
        column: fields
            .get("column")
            .map(|at| text(reader, &at, "column: \"evt_timestamp\"").unwrap_or_default().to_owned()),
        scale: fields
            .get("type")
            .and_then(|at| word(reader, &at, &Scale::ALL.map(|scale| (scale.word(), scale)))),
        // Any length in place of a faulty one, so that the job is not asked for its end as well.
        length: fields
            .get("length")
            .map(|at| length(reader, &at, "length: 4h").unwrap_or_else(|| Length::hours(1))),
        lag: fields.get("lag").and_then(|at| pause(reader, &at, "lag: 5m")),
        step: fields.get("step").map(|at| number(reader, &at, 1..=i64::MAX, "step: 100000").unwrap_or(1)),
        from: fields.get("from").and_then(|at| number(reader, &at, IDS, "from: 1")),
        until: fields.get("until").and_then(|at| number(reader, &at, IDS, "until: 1000001")),
        null_window: fields.get("null_window").and_then(|at| word(reader, &at, &NULLS)),
    };
    if let (Some(at), Some(from), Some(until)) = (fields.get("from"), keys.from, keys.until)
        && from >= until
    {
        let what = format!("{from} is not before {until}, which is `until`: no id lies between them");
        reader.fault(&at, what, "make `until` greater than `from`, or leave it out");
    }
    report_mixed(reader, &fields, keys.scale);
    WindowLayer::By(keys)
}

/// Keys of ids beside a type of time, and the other way round, where both stand in one layer.
fn report_mixed(reader: &mut Reader, fields: &Fields<'_>, scale: Option<Scale>) {
    let (wrong, of): (&[&str], _) = match scale {
        None => return,
        Some(Scale::Id) => (&["length"], "a window of time; one of ids has `step`"),
        Some(_) => (&["step", "from", "until"], "a window of type `id`"),
    };
    for key in wrong {
        if let Some(at) = fields.get(key) {
            reader.fault(&at, format!("`{key}` is for {of}"), "remove it, or correct `type`");
        }
    }
}

fn read_load(reader: &mut Reader, at: &At<'_>) -> LoadLayer {
    const MODES: [(&str, LoadMode); 4] = [
        ("insert", LoadMode::Insert),
        ("update", LoadMode::Update),
        ("merge", LoadMode::Merge),
        ("replace", LoadMode::Replace),
    ];
    const VIOLATIONS: [(&str, OnPkViolation); 4] = [
        ("rollback", OnPkViolation::Rollback),
        ("skip_identical", OnPkViolation::SkipIdentical),
        ("quarantine", OnPkViolation::Quarantine),
        ("merge", OnPkViolation::Merge),
    ];
    let Some(fields) = reader.fields(at, load_keys::KNOWN, "load: { mode: insert }") else {
        return LoadLayer { faulty: true, ..LoadLayer::default() };
    };
    let (mode, on_pk_violation) = (fields.get("mode"), fields.get("on_pk_violation"));
    let written = [&mode, &on_pk_violation].into_iter().flatten().count();
    let mode = mode.and_then(|at| word(reader, &at, &MODES));
    let on_pk_violation = on_pk_violation.and_then(|at| word(reader, &at, &VIOLATIONS));
    let understood = usize::from(mode.is_some()) + usize::from(on_pk_violation.is_some());
    LoadLayer {
        mode,
        matching: fields.get("match").map(|at| Matching {
            columns: load_keys::columns(reader, &at, "match: [\"glass_id\"]"),
            path: at.path,
        }),
        on_pk_violation,
        timeout: limit(reader, &fields, "timeout", "timeout: 30m"),
        lock_timeout: limit(reader, &fields, "lock_timeout", "lock_timeout: 5m"),
        more: LoadKeys::read(reader, &fields),
        faulty: understood < written,
    }
}

fn limit(reader: &mut Reader, fields: &Fields<'_>, key: &str, example: &'static str) -> Option<Duration> {
    fields.get(key).and_then(|at| length(reader, &at, example)).map(Length::as_duration)
}

fn read_export(reader: &mut Reader, at: &At<'_>) -> ExportLayer {
    const COMPRESSORS: [(&str, Compressor); 4] = [
        ("auto", Compressor::Auto),
        ("igzip", Compressor::Igzip),
        ("pigz", Compressor::Pigz),
        ("gzip", Compressor::Gzip),
    ];
    const METHODS: [(&str, ExportMethod); 3] =
        [("auto", ExportMethod::Auto), ("copy", ExportMethod::Copy), ("segments", ExportMethod::Segments)];
    let known = &["timeout", "retries", "slice_bytes", "compressor", "method"];
    let Some(fields) = reader.fields(at, known, "export: { timeout: 30m }") else {
        return ExportLayer::default();
    };
    ExportLayer {
        timeout: limit(reader, &fields, "timeout", "timeout: 30m"),
        retries: fields.get("retries").and_then(|at| whole(reader, &at, 0..=100, "retries: 2")),
        slice_bytes: fields.get("slice_bytes").and_then(|at| size(reader, &at, "slice_bytes: 256MiB")),
        compressor: fields.get("compressor").and_then(|at| word(reader, &at, &COMPRESSORS)),
        method: fields.get("method").and_then(|at| word(reader, &at, &METHODS)),
    }
}
