//! Memory that must come back as it was, and memory that asks for too much.

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::signals::{Awaited, check_on_demand};

const WORDS_PER_MIB: usize = 1024 * 1024 / 8;
const WORDS_PER_PAGE: usize = 4096 / 8;
/// Short beside every pause that matters, long beside what a look at the clock costs.
const BEAT: Duration = Duration::from_millis(1);

pub(crate) fn heap(mib: usize, is_half: bool) -> io::Result<u8> {
    let heap = filled(mib, is_half)?;
    let sum = checksum(&heap);
    check_on_demand(|| Ok(if checksum(black_box(&heap)) == sum { "same".into() } else { "differs".into() }))
}

/// Tells on demand for how long, at the most, it was kept from running since last asked.
pub(crate) fn pulse(mib: usize, is_half: bool) -> io::Result<u8> {
    let awaited = Awaited::new(&[Signal::SIGUSR1])?;
    let heap = filled(mib, is_half)?;
    let longest = Arc::new(AtomicU64::new(0));
    let of_thread = Arc::clone(&longest);
    thread::spawn(move || {
        loop {
            let before = Instant::now();
            thread::sleep(BEAT);
            of_thread.fetch_max(before.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
    });
    println!("ready");
    loop {
        awaited.next()?;
        black_box(&heap);
        println!("paused {}", longest.swap(0, Ordering::Relaxed));
    }
}

/// Memory of which a hundredth is other memory after each SIGUSR1.
pub(crate) fn churn(mib: usize) -> io::Result<u8> {
    const PART: usize = 100;
    let mut heap = filled(mib, true)?;
    let mut round = 0;
    check_on_demand(|| {
        // Pages here and there, other ones each time.
        let pages = heap.chunks_mut(WORDS_PER_PAGE).skip(round * 37 % PART).step_by(PART);
        pages.zip(random(mib / PART + 1)?.chunks(WORDS_PER_PAGE)).for_each(|(page, new)| {
            let half = WORDS_PER_PAGE / 2;
            page[..half].copy_from_slice(&new[..half]);
        });
        round += 1;
        Ok(format!("changed {round}"))
    })
}

/// Random, or half of each page and the rest zeros.
fn filled(mib: usize, is_half: bool) -> io::Result<Vec<u64>> {
    let mut heap = random(mib)?;
    if is_half {
        heap.chunks_mut(WORDS_PER_PAGE).for_each(|page| page[WORDS_PER_PAGE / 2..].fill(0));
    }
    Ok(heap)
}

fn random(mib: usize) -> io::Result<Vec<u64>> {
    let mut seed = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let mut word = u64::from_ne_bytes(seed) | 1;
    let mut next = || {
        // xorshift: as good as random for a page that must not be compressible.
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word
    };
    Ok((0..mib * WORDS_PER_MIB).map(|_| next()).collect())
}

/// Depends on the order of the words, so that two swapped pages show.
fn checksum(words: &[u64]) -> u64 {
    words.iter().fold(0, |sum: u64, word| sum.rotate_left(5) ^ word)
}

pub(crate) fn oom() -> io::Result<u8> {
    let awaited = Awaited::new(&[Signal::SIGUSR1])?;
    println!("ready");
    awaited.next()?;
    let mut taken: Vec<Vec<u64>> = Vec::new();
    loop {
        taken.push(vec![1; WORDS_PER_MIB]);
        black_box(&taken);
    }
}
