//! A load that reads two streams, and one of them comes empty: nothing may follow from that unless it is meant.

use anyhow::{Result, ensure};

use crate::Outcome;
use crate::data::as_csv;
use crate::place::{Bench, Companion};
use crate::random::Random;

pub(crate) const KINDS: &[&str] = &["union", "left join", "inner join", "exists", "scalar subquery"];

const SELECTS: &[&str] = &[
    "SELECT code AS accountnumber, name, city AS address1_city, status FROM office \
     UNION ALL SELECT code, name, city, status FROM companion",
    "SELECT o.code AS accountnumber, o.name, c.city AS address1_city, o.status FROM office o \
     LEFT JOIN companion c ON 'K-' || c.code = 'K-' || o.code",
    "WITH known AS (SELECT code FROM companion) SELECT o.code AS accountnumber, o.name, o.city AS address1_city, \
     o.status FROM office o INNER JOIN known ON known.code = o.code",
    "SELECT o.code AS accountnumber, o.name, o.city AS address1_city, o.status FROM office o \
     WHERE EXISTS (SELECT 1 FROM companion c WHERE c.code = o.code)",
    "SELECT o.code AS accountnumber, o.name, (SELECT max(c.city) FROM companion c) AS address1_city, o.status \
     FROM office o",
];

pub(crate) fn case(bench: &mut Bench, case: usize, random: &mut Random) -> Result<Outcome> {
    let kind = case % KINDS.len();
    bench.begin(1)?;
    let all = bench.rows();
    // A union shares the rows out, and either half may be the empty one; elsewhere the companion knows every row.
    let is_union = kind == 0;
    let share = random.between(1, 9) as usize;
    let (first, second): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(at, _)| !is_union || at % 10 < share);
    let rows_of = |rows: Vec<(usize, (&String, &crate::data::Row))>| {
        rows.into_iter().map(|(_, (key, row))| (key.clone(), row.clone())).collect()
    };
    let (mine, theirs) = (rows_of(first), rows_of(second));
    let theirs = if is_union { theirs } else { all.clone() };
    let empties_first = is_union && random.between(0, 1) == 0;
    let files = |mine: &crate::data::Rows, theirs: &crate::data::Rows| (as_csv(mine), as_csv(theirs));
    let (office, companion) = files(&mine, &theirs);
    bench.set_companions(SELECTS[kind], &Companion { office: &office, companion: &companion, may_be_empty: false })?;
    let first = bench.run(None)?;
    ensure!(first.status.code() == Some(0), "the first run fails: {}", first.said);
    let before = bench.service.rows()?;
    let none = as_csv(&crate::data::Rows::new());
    let (left, right) = if empties_first { (&none, &companion) } else { (&office, &none) };
    bench.set_companions(SELECTS[kind], &Companion { office: left, companion: right, may_be_empty: false })?;
    let stopped = bench.run(None)?;
    ensure!(stopped.status.code() == Some(4), "exit status {:?}: {}", stopped.status, stopped.said);
    ensure!(bench.service.rows()? == before, "an emptied stream changed rows");
    let again = bench.run(None)?;
    ensure!(again.status.code() == Some(4) && bench.service.rows()? == before, "it passes the second time");
    // Back again, nothing is to be done; and where it is meant, it is done.
    bench.set_companions(SELECTS[kind], &Companion { office: &office, companion: &companion, may_be_empty: false })?;
    let back = bench.run(None)?;
    ensure!(back.status.code() == Some(0) && bench.service.rows()? == before, "it does not recover: {}", back.said);
    if matches!(kind, 0 | 1 | 4) {
        bench.set_companions(SELECTS[kind], &Companion { office: left, companion: right, may_be_empty: true })?;
        let meant = bench.run(None)?;
        ensure!(meant.status.code() == Some(0), "what is meant is refused: {}", meant.said);
        ensure!(bench.service.rows()? != before, "what is meant is not done");
    }
    bench.set_select(None)?;
    Ok(Outcome::of(KINDS[kind], 2))
}
