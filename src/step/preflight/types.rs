//! Does a column of the target hold whatever the source's can? Pure.
//!
//! Types are compared as `format_type` writes them. What is not understood is no fault: COPY decides then.

/// How a target column's type stands to its source's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Every value fits.
    Fits,
    /// Some values do not fit, or lose something: why.
    Narrower(String),
    /// Another kind of type, which COPY may or may not convert.
    Different,
}

/// A type, as far as width matters.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// At most so many characters; `None` is any number.
    Text(Option<u32>),
    /// Decimal digits that always fit: 4, 9, 18 hold; what it may need: 5, 10, 19.
    Integer {
        holds: u32,
        needs: u32,
    },
    /// Digits before and after the point.
    Numeric(Option<(u32, u32)>),
    /// Decimal digits that survive.
    Float(u32),
    /// Digits of a second.
    Timestamp {
        zone: bool,
        digits: u32,
    },
    Date,
    Other(String),
}

/// Compares two types.
pub fn fit(source: &str, target: &str) -> Fit {
    let to = kind(target);
    if source == target || to == Kind::Text(None) {
        return Fit::Fits;
    }
    match kind(source) {
        Kind::Text(from) => text(from, &to),
        Kind::Integer { needs, .. } => integer(needs, &to),
        Kind::Numeric(from) => numeric(from, &to),
        Kind::Float(digits) => float(digits, &to),
        Kind::Timestamp { zone, digits } => timestamp(zone, digits, &to),
        Kind::Date => date(&to),
        Kind::Other(from) => {
            if to == Kind::Other(from) {
                Fit::Fits
            } else {
                Fit::Different
            }
        }
    }
}

fn text(from: Option<u32>, to: &Kind) -> Fit {
    match (from, to) {
        (_, Kind::Text(None)) => Fit::Fits,
        (None, Kind::Text(Some(n))) => Fit::Narrower(format!("texts of more than {n} characters do not fit")),
        (Some(from), Kind::Text(Some(n))) if from > *n => {
            Fit::Narrower(format!("texts of {} to {from} characters do not fit", n + 1))
        }
        (Some(_), Kind::Text(Some(_))) => Fit::Fits,
        (
            _,
            Kind::Integer { .. }
            | Kind::Numeric(_)
            | Kind::Float(_)
            | Kind::Timestamp { .. }
            | Kind::Date
            | Kind::Other(_),
        ) => Fit::Different,
    }
}

fn integer(needs: u32, to: &Kind) -> Fit {
    match to {
        Kind::Integer { needs: room, .. } if needs > *room => {
            Fit::Narrower(format!("numbers of more than {} digits do not fit", room - 1))
        }
        Kind::Float(digits) if needs > *digits => rounded(*digits),
        Kind::Integer { .. } | Kind::Float(_) | Kind::Numeric(None) => Fit::Fits,
        Kind::Numeric(Some((before, _))) => numbers((needs, 0), (*before, 0)),
        Kind::Text(_) | Kind::Timestamp { .. } | Kind::Date | Kind::Other(_) => Fit::Different,
    }
}

fn numeric(from: Option<(u32, u32)>, to: &Kind) -> Fit {
    match (from, to) {
        (_, Kind::Numeric(None)) => Fit::Fits,
        (Some(from), Kind::Numeric(Some(to))) => numbers(from, *to),
        (Some(from), Kind::Integer { holds, .. }) => numbers(from, (*holds, 0)),
        (Some((needs, 0)), Kind::Float(digits)) if needs <= *digits => Fit::Fits,
        (_, Kind::Float(digits)) => rounded(*digits),
        (None, Kind::Numeric(Some(to))) => any_number(*to),
        (None, Kind::Integer { .. }) => decimals(),
        (_, Kind::Text(_) | Kind::Timestamp { .. } | Kind::Date | Kind::Other(_)) => Fit::Different,
    }
}

fn float(from: u32, to: &Kind) -> Fit {
    match to {
        Kind::Float(digits) if from > *digits => rounded(*digits),
        Kind::Float(_) | Kind::Numeric(None) => Fit::Fits,
        Kind::Numeric(Some(to)) => any_number(*to),
        Kind::Integer { .. } => decimals(),
        Kind::Text(_) | Kind::Timestamp { .. } | Kind::Date | Kind::Other(_) => Fit::Different,
    }
}

fn timestamp(zone: bool, from: u32, to: &Kind) -> Fit {
    match to {
        Kind::Timestamp { zone: there, digits } if zone == *there => {
            if from > *digits {
                Fit::Narrower(format!("times are rounded to {digits} digits of a second"))
            } else {
                Fit::Fits
            }
        }
        Kind::Date => Fit::Narrower("the time of day is lost".into()),
        Kind::Text(_)
        | Kind::Integer { .. }
        | Kind::Numeric(_)
        | Kind::Float(_)
        | Kind::Timestamp { .. }
        | Kind::Other(_) => Fit::Different,
    }
}

fn date(to: &Kind) -> Fit {
    match to {
        Kind::Timestamp { zone: false, .. } | Kind::Date => Fit::Fits,
        Kind::Text(_)
        | Kind::Integer { .. }
        | Kind::Numeric(_)
        | Kind::Float(_)
        | Kind::Timestamp { zone: true, .. }
        | Kind::Other(_) => Fit::Different,
    }
}

fn rounded(digits: u32) -> Fit {
    Fit::Narrower(format!("numbers of more than {digits} digits are rounded"))
}

fn decimals() -> Fit {
    Fit::Narrower("numbers with decimals do not fit".into())
}

fn any_number((before, after): (u32, u32)) -> Fit {
    Fit::Narrower(format!(
        "numbers of more than {before} digits do not fit, and those with more than {after} decimals are rounded"
    ))
}

/// Digits before and after the point.
fn numbers(from: (u32, u32), to: (u32, u32)) -> Fit {
    if from.0 > to.0 {
        Fit::Narrower(format!("numbers of more than {} digits before the point do not fit", to.0))
    } else if from.1 > to.1 {
        Fit::Narrower(format!("numbers with more than {} decimals are rounded", to.1))
    } else {
        Fit::Fits
    }
}

fn kind(type_name: &str) -> Kind {
    if type_name.ends_with("[]") {
        return Kind::Other(type_name.to_owned());
    }
    let (base, arguments) = arguments(type_name);
    let first = arguments.first().copied();
    match base.as_str() {
        "text" => Kind::Text(None),
        "character varying" => Kind::Text(first),
        "character" => Kind::Text(Some(first.unwrap_or(1))),
        "name" => Kind::Text(Some(63)),
        "smallint" => Kind::Integer { holds: 4, needs: 5 },
        "integer" => Kind::Integer { holds: 9, needs: 10 },
        "bigint" => Kind::Integer { holds: 18, needs: 19 },
        "numeric" => Kind::Numeric(first.map(|precision| {
            let scale = arguments.get(1).copied().unwrap_or(0);
            (precision.saturating_sub(scale), scale)
        })),
        "real" => Kind::Float(6),
        "double precision" => Kind::Float(15),
        "timestamp without time zone" => Kind::Timestamp { zone: false, digits: first.unwrap_or(6) },
        "timestamp with time zone" => Kind::Timestamp { zone: true, digits: first.unwrap_or(6) },
        "date" => Kind::Date,
        _ => Kind::Other(type_name.to_owned()),
    }
}

/// `timestamp(3) without time zone` → `timestamp without time zone`, `[3]`.
fn arguments(type_name: &str) -> (String, Vec<u32>) {
    let Some((before, rest)) = type_name.split_once('(') else { return (type_name.to_owned(), Vec::new()) };
    let Some((inside, after)) = rest.split_once(')') else { return (type_name.to_owned(), Vec::new()) };
    let numbers = inside.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    (format!("{before}{after}"), numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_everything_fits() {
        for (source, target) in [
            ("integer", "integer"),
            ("integer", "bigint"),
            ("integer", "numeric"),
            ("integer", "numeric(10,0)"),
            ("integer", "double precision"),
            ("bigint", "numeric(19,0)"),
            ("character varying(20)", "character varying(20)"),
            ("character varying(20)", "character varying"),
            ("character(5)", "character varying(5)"),
            ("json", "text"),
            ("numeric(10,2)", "numeric(12,4)"),
            ("numeric(9,0)", "integer"),
            ("real", "double precision"),
            ("timestamp(3) without time zone", "timestamp without time zone"),
            ("date", "timestamp without time zone"),
            ("integer[]", "integer[]"),
        ] {
            assert_eq!(fit(source, target), Fit::Fits, "{source} into {target}");
        }
    }

    #[test]
    fn what_loses_something_is_narrower() {
        for (source, target) in [
            ("bigint", "integer"),
            ("integer", "smallint"),
            ("integer", "numeric(9,0)"),
            ("integer", "real"),
            ("bigint", "double precision"),
            ("text", "character varying(20)"),
            ("character varying(21)", "character varying(20)"),
            ("character varying", "character(3)"),
            ("numeric(12,2)", "numeric(10,2)"),
            ("numeric(10,4)", "numeric(12,2)"),
            ("numeric", "numeric(10,2)"),
            ("numeric", "double precision"),
            ("numeric(10,0)", "integer"),
            ("double precision", "real"),
            ("double precision", "integer"),
            ("timestamp without time zone", "timestamp(0) without time zone"),
            ("timestamp without time zone", "date"),
        ] {
            assert!(
                matches!(fit(source, target), Fit::Narrower(_)),
                "{source} into {target}: {:?}",
                fit(source, target)
            );
        }
    }

    #[test]
    fn what_is_of_another_kind_is_said_to_be() {
        for (source, target) in [
            ("text", "integer"),
            ("timestamp with time zone", "timestamp without time zone"),
            ("boolean", "integer"),
            ("integer[]", "bigint[]"),
        ] {
            assert_eq!(fit(source, target), Fit::Different, "{source} into {target}");
        }
    }
}
