//! The three measurements.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::server::{BULK, BULK_BYTES, CHUNK, ECHO, PORT};

/// Connections in a row.
const CONNECTIONS: u32 = 500;

/// Round trips in a row.
const ROUND_TRIPS: u32 = 2_000;

/// Nothing takes longer unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one look at one way gives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Seconds for a connection, from its begin until the server's first word and the end have come.
    pub connection: f64,
    /// Seconds for a byte to the server and back, in a connection that stands.
    pub round_trip: f64,
    /// Seconds for a MiB from the server.
    pub mebibyte: f64,
}

impl Sample {
    /// Takes it. `redirected` is whether a sidecar has to be in between.
    pub fn take(server: SocketAddr, redirected: bool) -> io::Result<Self> {
        Ok(Self {
            connection: connections(server, redirected)?,
            round_trip: round_trips(server)?,
            mebibyte: bulk(server)?,
        })
    }
}

fn ask(server: SocketAddr, what: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    stream.write_all(&[what])?;
    Ok(stream)
}

fn connections(server: SocketAddr, redirected: bool) -> io::Result<f64> {
    let start = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut stream = ask(server, PORT)?;
        let mut port = [0; 2];
        stream.read_exact(&mut port)?;
        // A sidecar's own connection to the same server cannot come from the same port.
        if redirected == (u16::from_be_bytes(port) == stream.local_addr()?.port()) {
            return Err(io::Error::other("it did not go the way that is measured"));
        }
        if stream.read(&mut port)? != 0 {
            return Err(io::Error::other("the server said more than it knows"));
        }
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(CONNECTIONS))
}

fn round_trips(server: SocketAddr) -> io::Result<f64> {
    let mut stream = ask(server, ECHO)?;
    let mut byte = [0];
    let mut there_and_back = || {
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)
    };
    // The connection is not there yet all the way.
    there_and_back()?;
    let start = Instant::now();
    for _ in 0..ROUND_TRIPS {
        there_and_back()?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(ROUND_TRIPS))
}

fn bulk(server: SocketAddr) -> io::Result<f64> {
    let mut stream = ask(server, BULK)?;
    let mut chunk = vec![0; CHUNK];
    let mut read = stream.read(&mut chunk)?;
    let (start, mut rest) = (Instant::now(), BULK_BYTES - read);
    while rest > 0 {
        read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        rest -= read;
    }
    #[expect(clippy::cast_precision_loss, reason = "exact up to far more bytes")]
    let mebibytes = (BULK_BYTES / 1024 / 1024) as f64;
    Ok(start.elapsed().as_secs_f64() / mebibytes)
}
