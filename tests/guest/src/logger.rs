//! A logger as `binary://` starts it, outside the container: descriptors 3 and 4
//! carry the container's output, and closing 5 says that reading has begun.

use std::env;
use std::fs::{self, File};
use std::io;
use std::thread;

/// Stores stdout in `file`, stderr in `file.err`, and whose they are in `file.env`.
pub(crate) fn store(file: &str) -> io::Result<u8> {
    let whose = format!(
        "{} {}\n",
        env::var("CONTAINER_NAMESPACE").unwrap_or_default(),
        env::var("CONTAINER_ID").unwrap_or_default()
    );
    fs::write(format!("{file}.env"), whose)?;
    let mut stdout = File::open("/proc/self/fd/3")?;
    let mut stderr = File::open("/proc/self/fd/4")?;
    let (mut to_file, mut to_err) = (File::create(file)?, File::create(format!("{file}.err"))?);
    nix::unistd::close(5)?;
    let other = thread::spawn(move || io::copy(&mut stderr, &mut to_err));
    io::copy(&mut stdout, &mut to_file)?;
    other.join().map_err(|_| io::Error::other("the reader of stderr panicked"))??;
    Ok(0)
}
