//! How much CSV a query would be, by the plan that the server has for it: the first line of `EXPLAIN`. Pure.
//!
//! The text form is the one that all of them speak, from Greenplum 5 (PostgreSQL 8.3) on. Its top node stands first, and
//! its rows are those of the whole answer; on Greenplum it is the Gather Motion, beneath which rows are counted for each
//! segment. Source: PostgreSQL, "Using EXPLAIN"; `ExplainNode` in Greenplum's `explain.c`.

/// Bytes of CSV for each byte of a row in the server's own form. Measured on PostgreSQL 15: text 1.0, numeric 1.1, whole
/// numbers 0.7 (small ones in a bigint) to 1.9, uuid 2.3, floating-point numbers 2.4 to 2.7, dates and times 2.8 to 2.9;
/// whole rows 1.0 where most of them is text, 1.1 of whole numbers, 2.0 of decimal ones, 2.8 of times alone.
const CSV_FOR_WIDTH: f64 = 1.5;

/// About how many bytes of CSV the answer is, from a line such as `Seq Scan on t  (cost=0.00..1.01 rows=1 width=4)`; `None`
/// for a line without costs.
pub fn read(line: &str) -> Option<u64> {
    // A table's name stands before them, and may hold anything.
    let (_, costs) = line.rsplit_once("(cost=")?;
    let (costs, _) = costs.split_once(')')?;
    let number = |name: &str| {
        let text = costs.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
    };
    // At the least the line's end is written for each row.
    Some((number("rows")? * (number("width")? * CSV_FOR_WIDTH).max(1.0)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_read_as_each_server_writes_it() {
        let bytes = |rows: f64, width: f64| Some((rows * width * CSV_FOR_WIDTH) as u64);
        for (line, expected) in [
            ("Seq Scan on t  (cost=0.00..1637.00 rows=100000 width=36)", bytes(100_000.0, 36.0)),
            // Greenplum 5 and 6: of all segments; ORCA's costs are another unit, its rows are not.
            (
                "Gather Motion 2:1  (slice1; segments: 2)  (cost=0.00..431.02 rows=500 width=12)",
                bytes(500.0, 12.0),
            ),
            (
                "Gather Motion 16:1  (slice1; segments: 16)  (cost=0.00..93.00 rows=8600 width=8)",
                bytes(8600.0, 8.0),
            ),
            // PostgreSQL, in parallel.
            ("Gather  (cost=1000.00..10633.90 rows=1 width=4)", bytes(1.0, 4.0)),
            // PostgreSQL 18 with decimals, and what no `%.0f` writes but a number still is.
            ("Append  (cost=0.00..3.20 rows=12.50 width=8)", bytes(12.5, 8.0)),
            ("Foreign Scan on f  (cost=1e+02..2.5E+10 rows=1e+09 width=100)", bytes(1e9, 100.0)),
            // As the script sends it.
            ("(cost=0.00..1.01 rows=7 width=4)", bytes(7.0, 4.0)),
            // Nothing is known of a row without columns but that it has an end.
            ("Result  (cost=0.00..0.01 rows=3 width=0)", Some(3)),
            ("Result  (cost=0.00..0.00 rows=0 width=0)", Some(0)),
            // A name that looks like costs.
            (
                "Seq Scan on \"x  (cost=0..1 rows=9 width=9)\"  (cost=0.00..1.00 rows=2 width=4)",
                bytes(2.0, 4.0),
            ),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn what_tells_of_no_rows_is_not_read() {
        for line in [
            "",
            "  ->  Seq Scan on t",
            "Optimizer: Pivotal Optimizer (GPORCA)",
            "Seq Scan on t  (cost=0.00..1.00 rows=x width=4)",
            "Seq Scan on t  (cost=0.00..1.00 rows=inf width=4)",
            "Seq Scan on t  (cost=0.00..1.00 rows=-5 width=4)",
            "Seq Scan on t  (cost=0.00..1.00 rows=5)",
            "Seq Scan on t  (cost=0.00..1.00 rows=5 width=4",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
        // More than a number can hold is the largest there is.
        assert_eq!(read("(cost=0..1 rows=1e+300 width=4)"), Some(u64::MAX));
    }
}
