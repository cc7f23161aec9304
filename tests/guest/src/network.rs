//! TCP: a server, connections that are open or being closed at dump time, and the loopback device.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
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

/// A connection that is closed at one end, with more sent than the other end has room for.
pub(crate) fn closing() -> io::Result<u8> {
    let (mut here, mut there) = pair()?;
    here.set_nonblocking(true)?;
    let mut sent = 0;
    loop {
        match here.write(&[7; 4096]) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    here.shutdown(Shutdown::Write)?;
    let mut heard = 0;
    check_on_demand(|| {
        heard += there.read_to_end(&mut Vec::new())?;
        Ok(if heard == sent { "all".into() } else { format!("{heard} of {sent} bytes") })
    })
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
