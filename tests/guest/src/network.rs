//! TCP: a server, connections that are open at dump time, and the loopback device.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{self, TrySendError};
use std::thread;
use std::time::Duration;

use crate::signals::check_on_demand;

pub(crate) fn listen(port: u16) -> io::Result<u8> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    println!("ready");
    for stream in listener.incoming() {
        let mut stream = stream?;
        thread::spawn(move || io::copy(&mut stream.try_clone()?, &mut stream));
    }
    Ok(0)
}

pub(crate) fn connected() -> io::Result<u8> {
    let (mut here, mut there) = pair()?;
    check_on_demand(|| Ok(word_for(passes(&mut here, &mut there))))
}

/// A connection to a server that repeats what it hears.
pub(crate) fn talk(host: &str, port: u16) -> io::Result<u8> {
    let mut there = TcpStream::connect((host, port))?;
    there.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut here = there.try_clone()?;
    check_on_demand(|| Ok(word_for(passes(&mut here, &mut there))))
}

fn word_for(outcome: io::Result<bool>) -> String {
    match outcome {
        Ok(true) => "passed".into(),
        Ok(false) => "garbled".into(),
        Err(error) => format!("broken: {:?}", error.kind()),
    }
}

/// Both ends of a connection, with data on its way at any time.
pub(crate) fn stream() -> io::Result<u8> {
    let (mut here, mut there) = pair()?;
    thread::spawn(move || -> io::Result<()> {
        let chunk = pattern();
        loop {
            here.write_all(&chunk)?;
        }
    });
    let (said, heard) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let (chunk, mut read) = (pattern(), vec![0; PATTERN]);
        while there.read_exact(&mut read).is_ok() && read == chunk {
            if said.try_send(()) == Err(TrySendError::Disconnected(())) {
                break;
            }
        }
    });
    check_on_demand(|| {
        // What was there already says nothing about now.
        while heard.try_recv().is_ok() {}
        let flows = (0..2).all(|_| heard.recv_timeout(Duration::from_secs(10)).is_ok());
        Ok(if flows { "flows".into() } else { "broken".into() })
    })
}

const PATTERN: usize = 100_003;

fn pattern() -> Vec<u8> {
    (0..PATTERN).map(|at| (at % 251) as u8).collect()
}

/// Makes a new connection each time: it works only while the device is up.
pub(crate) fn loopback() -> io::Result<u8> {
    check_on_demand(|| {
        let outcome = pair().and_then(|(mut here, mut there)| passes(&mut here, &mut there));
        Ok(match outcome {
            Ok(true) => "up".into(),
            Ok(false) => "garbled".into(),
            Err(error) => format!("down: {error}"),
        })
    })
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;
    Ok((here, there))
}

fn passes(from: &mut TcpStream, to: &mut TcpStream) -> io::Result<bool> {
    from.write_all(b"across")?;
    let mut heard = [0; 6];
    to.read_exact(&mut heard)?;
    Ok(&heard == b"across")
}
