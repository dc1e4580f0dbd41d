//! How a table is cut in windows.

use std::time::Duration;

use crate::measure::{Measure, Scale};
use crate::window::Length;

/// How a table is cut in windows.
#[derive(Debug, Clone, PartialEq)]
pub enum WindowRule {
    /// One unit, `…^all`.
    None {
        /// Due again after this long; absent: moved once.
        every: Option<Length>,
    },
    /// Half-open intervals of a column.
    By(WindowBy),
}

/// Windows by a column.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowBy {
    /// The window column.
    pub column: String,
    /// How its values are read, and how long a window is.
    pub cut: Cut,
    /// A window is due once its end is this long ago. For ids: once its last id was there this long ago.
    pub lag: Duration,
    /// What becomes of rows whose window column is NULL.
    pub null_window: NullWindow,
}

impl WindowBy {
    /// By what the rows of a table with this rule are told apart.
    pub fn measure(&self) -> Measure {
        let scale = match self.cut {
            Cut::Time { scale, .. } => scale,
            Cut::Ids { .. } => Scale::Id,
        };
        Measure::By(scale, self.column.clone())
    }
}

/// What windows are cut by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// By time.
    Time {
        /// How the column's values are read; never [`Scale::Id`].
        scale: Scale,
        /// How long a window is; absent: the job's whole range is one window.
        length: Option<Length>,
    },
    /// By a growing id.
    Ids {
        /// How many ids a window holds at most; more than 0.
        step: i64,
        /// The first id; absent: the lowest that is there.
        from: Option<i64>,
        /// The first id no more; absent: goes on for ever. After `from`.
        until: Option<i64>,
    },
}

/// What becomes of rows whose window column is NULL: they are in no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NullWindow {
    /// They are left alone, and counted.
    Skip,
    /// They are one unit of their own, moved once.
    Include,
}
