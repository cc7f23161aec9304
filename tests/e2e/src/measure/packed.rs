//! What many checkpoints of one container take on the disk, once older ones are packed.

use super::Extent;
use super::book::{Book, Column, Line, Reach};
use super::dumps::size;
use super::place::{Place, Side};
use crate::harness::*;

const STORE: &str = "/var/lib/cryo/store";

pub(super) fn measure(place: &Place, book: &mut Book, extent: &Extent) -> Outcome {
    let (count, mib) = extent.packed;
    let docker = Docker::at(&place.bench);
    place.put_in_place(Side::Ours)?;
    let container = docker.run(&[], &["guest", "churn", &mib.to_string(), "half"])?;
    container.wait_for_line("ready")?;
    let section = format!("{count} checkpoints of {}, half of it zeros, of which 1 % changes", size(mib));
    let line = |what: &str, unit, reach| Line { section: section.clone(), what: what.into(), unit, reach };
    container.copy("c1")?;
    let one = stored(place)?;
    for number in 2..=count {
        container.asks(1, &format!("changed {}", number - 1))?;
        container.copy(&format!("c{number}"))?;
    }
    book.note(&line("before", "MB", None), Column::Ours, stored(place)? / 1e6);
    place.bench.shell("cryo store pack >/dev/null; cryo store verify >/dev/null", &[])?;
    let packed = stored(place)?;
    book.note(&line("packed", "MB", None), Column::Ours, packed / 1e6);
    book.note(&line("packed / the bytes of one", "", Some(Reach::Below(2.0))), Column::Ours, packed / one);
    container.call(&["kill"])?;
    container.wait_for_status("exited")?;
    // One that has to be unpacked, and the newest.
    for checkpoint in ["c1", &format!("c{count}")] {
        container.start_from(checkpoint)?;
        container.call(&["kill"])?;
        container.wait_for_status("exited")?;
    }
    container.rm()?;
    place.clear()
}

/// Bytes that the store takes on the disk.
fn stored(place: &Place) -> Outcome<f64> {
    place.settle_disk();
    let said = place.bench.shell("du -sB1 $1 | cut -f1", &[STORE.as_ref()])?;
    Ok(said.trim().parse::<u64>()? as f64)
}
